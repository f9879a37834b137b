"""Random transforms of a whole batch of images at once, each image with its own draw, on the batch's device.

    augment = Augment(CenterCropResize(22, p=0.1), Rotation(15))
    augmented = augment(images, generator)

Every transform draws one parameter set per image (``draw``: a tensor with a row for each) and says what it does with
it: a geometric one as a matrix per image (``matrix``), an elastic one as a shift of each pixel (``displacement``), a
photometric one on the pixels (``apply``). `Augment` multiplies the matrices and adds the shifts, so that an image is
resampled once however many there are, and then applies the photometric ones. To add a transform, write a class with
``draw`` and one of the three.

Matrices take *output* coordinates to *input* coordinates, both from -1 to 1 across the image
(`torch.nn.functional.affine_grid`). The transforms are those of torchvision, which draws once per call, not per image;
here sampling is bilinear, and translations are not rounded to whole pixels.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def _uniform(low, high, shape, generator, device):
    return torch.rand(shape, generator=generator, device=device) * (high - low) + low


def _matrices(n, device, **entries):
    """``(n, 3, 3)`` identities with the named entries (``r0c2`` is row 0, column 2) replaced."""
    matrices = torch.eye(3, device=device).repeat(n, 1, 1)
    for name, value in entries.items():
        matrices[:, int(name[1]), int(name[3])] = value
    return matrices


def _check(condition, message):
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class CenterCropResize:
    """With probability ``p``, keep the central ``size`` pixels and enlarge them to the full image."""

    size: int
    p: float = 1.0

    def __post_init__(self):
        _check(self.size > 0 and 0 <= self.p <= 1, f"{self}: size must be positive and p between 0 and 1")

    def draw(self, n, generator, device):
        return torch.rand(n, generator=generator, device=device) < self.p

    def matrix(self, cropped, side):
        zoom = torch.where(cropped, self.size / side, 1.0)
        return _matrices(len(cropped), cropped.device, r0c0=zoom, r1c1=zoom)


@dataclass(frozen=True)
class Rotation:
    """Turn by an angle uniform in ``-degrees`` to ``degrees``, counter-clockwise if positive."""

    degrees: float

    def __post_init__(self):
        _check(self.degrees >= 0, f"{self}: degrees must not be negative")

    def draw(self, n, generator, device):
        return _uniform(-self.degrees, self.degrees, n, generator, device)

    def matrix(self, angle, side):
        angle = angle * (math.pi / 180)
        cos, sin = angle.cos(), angle.sin()
        return _matrices(len(angle), angle.device, r0c0=cos, r0c1=-sin, r1c0=sin, r1c1=cos)


@dataclass(frozen=True)
class Translation:
    """Shift right and down, each by a fraction of the image's side uniform in ``-fraction`` to ``fraction``."""

    fraction: float

    def __post_init__(self):
        _check(0 <= self.fraction <= 1, f"{self}: the fraction must be between 0 and 1")

    def draw(self, n, generator, device):
        return _uniform(-self.fraction, self.fraction, (n, 2), generator, device)

    def matrix(self, shift, side):
        # The coordinates span 2, so that a shift by a whole side is 2.
        return _matrices(len(shift), shift.device, r0c2=-2 * shift[:, 0], r1c2=-2 * shift[:, 1])


@dataclass(frozen=True)
class Scale:
    """Enlarge about the centre by a factor uniform in ``low`` to ``high``."""

    low: float
    high: float

    def __post_init__(self):
        _check(0 < self.low <= self.high, f"{self}: needs 0 < low <= high")

    def draw(self, n, generator, device):
        return _uniform(self.low, self.high, n, generator, device)

    def matrix(self, factor, side):
        return _matrices(len(factor), factor.device, r0c0=1 / factor, r1c1=1 / factor)


@dataclass(frozen=True)
class Elastic:
    """Shift every pixel right and down by amounts of standard deviation ``pixels``, neighbours by about the same.

    The shifts are drawn at ``points`` by ``points`` places and smoothed by a Gaussian as wide as their distance.

    Source: P. Simard, D. Steinkraus and J. Platt, "Best practices for convolutional neural networks applied to visual
    document analysis" (2003). They draw at every pixel; seven points on 28 pixels make their Gaussian, of 4 pixels.
    """

    pixels: float
    points: int = 7

    def __post_init__(self):
        _check(self.pixels >= 0 and self.points > 0, f"{self}: pixels must not be negative, and points at least 1")

    def draw(self, n, generator, device):
        return torch.randn((n, 2, self.points, self.points), generator=generator, device=device)

    def displacement(self, noise, side):
        distance = (torch.arange(side, device=noise.device)[:, None] + 0.5) * self.points / side - (
            torch.arange(self.points, device=noise.device) + 0.5)
        weights = torch.exp(-distance**2 / 2)
        weights = weights / weights.norm(dim=1, keepdim=True)  # so that every pixel's shift has the same deviation
        return (weights @ noise @ weights.T).permute(0, 2, 3, 1) * (2 * self.pixels / side)


@dataclass(frozen=True)
class Brightness:
    """Multiply the pixels by a factor uniform in ``1 - amount`` to ``1 + amount``, then clip to 0..1."""

    amount: float

    def __post_init__(self):
        _check(0 <= self.amount <= 1, f"{self}: the amount must be between 0 and 1")

    def draw(self, n, generator, device):
        return _uniform(1 - self.amount, 1 + self.amount, n, generator, device)

    def apply(self, images, factor):
        return (images * factor.view(-1, 1, 1, 1)).clamp(0, 1)


@dataclass(frozen=True)
class Contrast:
    """Move the pixels away from their image's mean by a factor as in `Brightness`, then clip to 0..1."""

    amount: float

    __post_init__ = Brightness.__post_init__
    draw = Brightness.draw

    def apply(self, images, factor):
        mean = images.mean((1, 2, 3), keepdim=True)
        return (mean + (images - mean) * factor.view(-1, 1, 1, 1)).clamp(0, 1)


class Augment:
    """The transforms one after another: geometric and elastic ones first, in a single resampling, then photometric."""

    def __init__(self, *transforms):
        for transform in transforms:
            if not hasattr(transform, "draw"):
                raise TypeError(f"{transform!r} is no transform of this module: it has no `draw`")
            if not any(hasattr(transform, name) for name in ("matrix", "displacement", "apply")):
                raise TypeError(f"{transform!r} does nothing: it needs a method `matrix`, `displacement` or `apply`")
        self.geometric = [t for t in transforms if hasattr(t, "matrix")]
        self.elastic = [t for t in transforms if hasattr(t, "displacement")]
        self.photometric = [t for t in transforms if hasattr(t, "apply")]
        self.transforms = self.geometric + self.elastic + self.photometric

    def __call__(self, images, generator=None, batch_size=None):
        """uint8 0..255 or float 0..1 ``(n, channels, side, side)`` images, or one without the ``n``, as augmented
        float32 ones in 0..1.

        ``generator`` is a `torch.Generator` on the images' device; without one the global random state is used. With
        a ``batch_size`` the random numbers are drawn as for one batch of that size after another.
        """
        if not isinstance(images, torch.Tensor) or not (images.is_floating_point() or images.dtype == torch.uint8):
            kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise TypeError(f"augmentation takes images as uint8 or float tensors, not {kind}: put v2.ToImage() or "
                            "transforms.ToTensor() before it, and give it the image without its label")
        if not isinstance(generator, torch.Generator | None):
            raise TypeError(f"the second argument is a torch.Generator, not {type(generator).__name__}: give a "
                            "transform of torchvision the image without its label")
        if images.ndim == 3:
            return self(images[None], generator)[0]
        if images.ndim != 4 or images.shape[2] != images.shape[3]:
            raise ValueError(f"augmentation takes square images (n, channels, side, side), not {tuple(images.shape)}")
        images = images.float().div_(255) if images.dtype == torch.uint8 else images.float()
        n, side, device = len(images), images.shape[-1], images.device
        draws = [[transform.draw(len(batch), generator, device) for transform in self.transforms]
                 for batch in images.split(batch_size or max(1, n))]
        drawn = map(torch.cat, zip(*draws, strict=True))  # one tensor for each transform
        if self.geometric or self.elastic:
            matrices = torch.eye(3, device=device).expand(n, 3, 3)
            for transform in self.geometric:
                matrices = matrices @ transform.matrix(next(drawn), side)
            images = warp(images, matrices, *(transform.displacement(next(drawn), side)
                                              for transform in self.elastic))
        for transform in self.photometric:
            images = transform.apply(images, next(drawn))
        return images

    def __repr__(self):
        return f"Augment({', '.join(map(repr, self.transforms))})"


@functools.cache
def _pixels(side, device):
    """The centres of an image's pixels as columns ``(3, side * side)`` of x, y and 1: what `F.affine_grid` multiplies,
    here for all images of a batch in one product, which is cheaper on a CPU."""
    centres = torch.linspace(-1, 1, side, device=device) * (side - 1) / side
    x, y = torch.meshgrid(centres, centres, indexing="xy")
    return torch.stack([x, y, torch.ones_like(x)]).view(3, -1)


def warp(images, matrices, *displacements):
    """Resample float ``(n, channels, side, side)`` images, bilinearly, 0 outside: each output pixel is read where its
    image's matrix of ``(n, 3, 3)`` takes it, moved on by each of ``displacements``, ``(n, side, side, 2)``, x first."""
    n, _, side, _ = images.shape
    grid = (matrices[:, :2].reshape(-1, 3) @ _pixels(side, images.device)).view(n, 2, side, side).permute(0, 2, 3, 1)
    for displacement in displacements:
        grid += displacement
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
