"""Each transform against torchvision's or PIL's own, with the parameters fixed; then the draws."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from mnist_helpers import Augment, Brightness, CenterCropResize, Contrast, Elastic, Rotation, Scale, Translation, data
from mnist_helpers.augment import warp

GEOMETRIC = [CenterCropResize(22, p=0.5), Rotation(15), Translation(0.1), Scale(0.9, 1.1)]


@pytest.fixture(scope="module")
def images():
    """float ``(24, 1, 28, 28)`` handwritten digits in 0..1."""
    (digits, _), _ = data.digits_sample()
    return digits[:24].float() / 255


def warped(images, transform, parameter):
    """The images under one transform, with the same parameter for all."""
    return warp(images, transform.matrix(parameter.expand(len(images), *parameter.shape), images.shape[-1]))


def affine(images, angle=0.0, translate=(0, 0), scale=1.0):
    return tv.affine(images, angle=angle, translate=translate, scale=scale, shear=[0.0, 0.0],
                     interpolation=InterpolationMode.BILINEAR)


@pytest.mark.parametrize("degrees", [-15.0, 7.5, 90.0])
def test_rotation_is_torchvisions(images, degrees):
    expected = tv.rotate(images, degrees, interpolation=InterpolationMode.BILINEAR)
    torch.testing.assert_close(warped(images, Rotation(90), torch.tensor(degrees)), expected, atol=1e-4, rtol=0)


def test_rotation_is_pils(images):
    pictures = (images * 255).round()
    expected = np.stack([np.asarray(Image.fromarray(picture[0].byte().numpy()).rotate(12, Image.Resampling.BILINEAR))
                         for picture in pictures])
    ours = warped(pictures, Rotation(15), torch.tensor(12.0))[:, 0]
    # PIL computes in whole grey levels, and blanks the pixels whose source lies outside the image.
    difference = (ours - torch.from_numpy(expected)).abs()[:, 2:-2, 2:-2]
    assert difference.max() <= 2


@pytest.mark.parametrize("pixels", [(3, -2), (0, 5)])
def test_translation_is_torchvisions(images, pixels):
    ours = warped(images, Translation(1.0), torch.tensor(pixels) / 28)
    torch.testing.assert_close(ours, affine(images, translate=pixels), atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_scale_is_torchvisions(images, factor):
    ours = warped(images, Scale(0.5, 2), torch.tensor(factor))
    torch.testing.assert_close(ours, affine(images, scale=factor), atol=1e-4, rtol=0)


def test_center_crop_and_resize_is_torchvisions(images):
    expected = tv.resize(tv.center_crop(images, [22, 22]), [28, 28], interpolation=InterpolationMode.BILINEAR)
    ours = warped(images, CenterCropResize(22), torch.tensor(True))
    # The outermost pixels sample half a pixel beyond the crop, where ours sees the image and the resized crop its edge.
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(warped(images, CenterCropResize(22), torch.tensor(False)), images)


def test_elastic_is_torchvisions(images):
    """Both read a pixel where the same field of shifts says."""
    transform = Elastic(1.5)
    noise = transform.draw(1, torch.Generator().manual_seed(0), torch.device("cpu"))
    displacement = transform.displacement(noise, 28)
    expected = tv.elastic(images, displacement, interpolation=InterpolationMode.BILINEAR)
    identity = torch.eye(3).expand(len(images), 3, 3)
    torch.testing.assert_close(warp(images, identity, displacement), expected, atol=1e-4, rtol=0)
    assert (expected - images).abs().max() > 0.2


def test_elastic_shifts_are_as_large_as_said_and_smooth():
    """Simard's white noise at every pixel, smoothed by scipy with a Gaussian of 4 pixels, has the same correlations."""
    transform = Elastic(1.5)
    noise = transform.draw(4_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    shifts = transform.displacement(noise, 28).numpy() * 14  # from coordinates that span 2 to pixels
    np.testing.assert_allclose(shifts.std(0), 1.5, rtol=0.05)
    simard = ndimage.gaussian_filter1d(np.random.default_rng(0).standard_normal((4_000, 28)), 4, mode="constant")

    def correlation(field, distance):
        return np.corrcoef(field[:, 12], field[:, 12 + distance])[0, 1]

    for distance in (1, 2, 4, 8, 12):
        assert correlation(shifts[:, 14, :, 0], distance) == pytest.approx(correlation(simard, distance), abs=0.06)
        assert correlation(shifts[:, :, 14, 1], distance) == pytest.approx(correlation(simard, distance), abs=0.06)
    assert abs(np.corrcoef(shifts[:, 14, 14, 0], shifts[:, 14, 14, 1])[0, 1]) < 0.06, "x and y are independent"


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_brightness_and_contrast_are_torchvisions(images, factor):
    factors = torch.full((len(images),), factor)
    torch.testing.assert_close(Brightness(0.2).apply(images, factors), tv.adjust_brightness(images, factor))
    torch.testing.assert_close(Contrast(0.2).apply(images, factors), tv.adjust_contrast(images, factor))


def test_transforms_compose_in_their_order_into_one_resampling(images, monkeypatch):
    class Fixed(Rotation):
        def draw(self, n, generator, device):
            return torch.full((n,), self.degrees)

    class Shift(Translation):
        def draw(self, n, generator, device):
            return torch.tensor([[self.fraction, 0.0]]).repeat(n, 1)

    calls = []
    monkeypatch.setattr("mnist_helpers.augment.warp", lambda *args: calls.append(1) or warp(*args))
    ours = Augment(Fixed(90.0), Shift(4 / 28))(images)
    # Neither of these two blurs, so two resamplings give what one gives.
    expected = affine(tv.rotate(images, 90), translate=(4, 0))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(ours, Augment(Shift(4 / 28), Fixed(90.0))(images), atol=0.1)
    calls.clear()
    Augment(*GEOMETRIC, Elastic(1), Brightness(0.2))(images)
    assert calls == [1]


def test_a_batch_size_draws_batch_by_batch(images):
    """Not a bit differs from augmenting each batch on its own, though one transform stands there twice."""
    augment = Augment(*GEOMETRIC, Rotation(15), Elastic(1), Brightness(0.2), Contrast(0.2))
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    one_by_one = torch.cat([augment(batch, generators[0]) for batch in images.split(10)])
    assert torch.equal(augment(images, generators[1], 10), one_by_one)
    assert torch.equal(torch.rand(3, generator=generators[0]), torch.rand(3, generator=generators[1]))


@pytest.mark.parametrize("side", [8, 28])
def test_the_grid_is_pytorchs(side):
    matrices = torch.eye(3).repeat(5, 1, 1) + 0.2 * torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0))
    batch = torch.rand((5, 1, side, side), generator=torch.Generator().manual_seed(1))
    grid = torch.nn.functional.affine_grid(matrices[:, :2], list(batch.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(batch, grid, align_corners=False)
    torch.testing.assert_close(warp(batch, matrices), expected, atol=1e-5, rtol=0)


def test_elastic_shifts_are_added_to_the_matrices(images):
    class Known(Elastic):
        def displacement(self, noise, side):
            return torch.tensor([2 * 4 / side, 0]).expand(len(noise), side, side, 2)

    shifted = Augment(Known(1.0))(images)
    torch.testing.assert_close(shifted, affine(images, translate=(-4, 0)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("transform", "low", "high"), [
    (Rotation(15), -15, 15), (Translation(0.1), -0.1, 0.1), (Scale(0.9, 1.1), 0.9, 1.1), (Brightness(0.2), 0.8, 1.2),
    (Contrast(0.2), 0.8, 1.2)])
def test_draws_are_uniform(transform, low, high):
    draws = transform.draw(20_000, torch.Generator().manual_seed(1), torch.device("cpu")).flatten().numpy()
    assert stats.kstest(draws, stats.uniform(low, high - low).cdf).pvalue > 1e-4
    assert draws.min() >= low and draws.max() <= high


def test_crop_is_drawn_with_its_probability():
    cropped = CenterCropResize(22, p=0.1).draw(20_000, torch.Generator().manual_seed(1), torch.device("cpu"))
    assert stats.binomtest(int(cropped.sum()), 20_000, 0.1).pvalue > 1e-4


@pytest.mark.parametrize("transform", [Rotation(15), Translation(0.1), Scale(0.8, 1.2), Brightness(0.5), Contrast(0.5),
                                       Elastic(1), CenterCropResize(22, p=0.5)])
def test_images_of_a_batch_get_different_draws(images, transform):
    batch = images[:1].expand(16, -1, -1, -1)
    augmented = Augment(transform)(batch, torch.Generator().manual_seed(0))
    distinct = {tuple(image.flatten().tolist()) for image in augmented}
    assert len(distinct) == (2 if isinstance(transform, CenterCropResize) else 16)


def test_a_generator_makes_it_reproducible_and_leaves_the_global_state(images):
    augment = Augment(*GEOMETRIC, Elastic(1), Brightness(0.2), Contrast(0.2))
    state = torch.get_rng_state()
    first, second, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_images_of_every_type_are_augmented_alike(images):
    levels = (images * 255).round().byte()
    augment = Augment(*GEOMETRIC, Elastic(1), Brightness(0.2), Contrast(0.2))
    from_bytes, *others = (augment(batch, torch.Generator().manual_seed(0)) for batch in (
        levels, levels.float() / 255, levels.double() / 255, levels.half() / 255, levels.bfloat16() / 255))
    assert from_bytes.dtype == torch.float32 and torch.equal(from_bytes, others[0])
    assert from_bytes.min() >= 0 and from_bytes.max() <= 1 and math.isfinite(from_bytes.sum())
    for batch, precision in zip(others, (1e-6, 1e-6, 2e-3, 2e-2), strict=True):
        torch.testing.assert_close(batch.float(), from_bytes, atol=precision, rtol=0)


@pytest.mark.parametrize("shape", [(28, 28), (4, 1, 28, 20)])
def test_wrong_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r"square .*\(\d+, "):
        Augment(Rotation(15))(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [lambda: Rotation(-1), lambda: CenterCropResize(22, p=2), lambda: Scale(1.1, 0.9),
                                   lambda: Translation(3), lambda: Brightness(-0.1), lambda: Contrast(1.5),
                                   lambda: Elastic(-1), lambda: Elastic(1, points=0)])
def test_senseless_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\("):
        wrong()


def test_what_is_no_transform_is_refused():
    class Misspelt:
        draw = Brightness.draw

        def aply(self, images, factor):
            return 1 - images

    for wrong in (torch.nn.Identity(), Misspelt()):
        with pytest.raises(TypeError):
            Augment(wrong)


def test_it_says_what_it_does():
    assert repr(Augment(Brightness(0.2), Elastic(1), CenterCropResize(22, p=0.1), Rotation(15))) == (
        "Augment(CenterCropResize(size=22, p=0.1), Rotation(degrees=15), Elastic(pixels=1, points=7), "
        "Brightness(amount=0.2))")
