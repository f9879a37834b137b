"""Measuring a network: `evaluate`, and what it returns."""

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from .data import Split
from .device import device_of, on_few_threads, random_state, set_random_state
from .loader import Loader, batches_of, feed
from .recipe import weights_digest

LOOK = 32  # images whose borders are looked at


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network does on a set of images."""

    loss: float  #: mean over images
    correct: int
    total: int
    logits: torch.Tensor = field(repr=False)  #: float32 ``(n, classes)`` on the CPU
    labels: torch.Tensor = field(repr=False)  #: ``(n,)`` on the CPU
    split: Split | None = field(repr=False, default=None)  #: the images, where they are a `Split`
    weights: str = field(repr=False, default="")  #: digest of the network's weights

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def __repr__(self):
        return f"accuracy {self.accuracy:.2%} ({self.correct:,} of {self.total:,}), loss {self.loss:.4f}"


def count_correct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How many logits ``(n, classes)`` are largest at their target, a class ``(n,)`` or probabilities ``(n, classes)``,
    as a float32 number on the device."""
    return (logits.argmax(1) == (targets.argmax(1) if targets.ndim == 2 else targets)).sum().float()


def bright_borders(images: torch.Tensor) -> bool:
    """Whether nearly all images ``(n, channels, height, width)`` have a border that is nearer to their brightest pixel
    than to their darkest one, as photographs of ink on paper have."""
    flat = images.flatten(2).float()
    border = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], 2).float().median(2)[0]
    bright = border - flat.amin(2) > flat.amax(2) - border
    return len(images) > 0 and bright.float().mean().item() > 0.9


@contextlib.contextmanager
def evaluation_mode(model):
    """The model in eval mode; afterwards each module's own mode and the random states are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    device = device_of(model)
    state = random_state(device)
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        set_random_state(state, device)


@on_few_threads
def evaluate(model, data, *, loss_fn: Callable = F.cross_entropy, batch_size: int = 500,
             augment: Callable | None = None, seed: int = 0) -> Evaluation:
    """The model's `Evaluation` on ``data``: a `Split`, a pair of images and labels, a dataset, or a loader of batches.

    ``loss_fn(logits, targets)`` is the mean over images. With ``augment`` the images are augmented first, with draws
    of their own that ``seed`` fixes. The model's modes, its device and the random states are left as they were.

    Raises `ValueError` for data that make no sense, or if ``augment`` is to be applied to batches that are made.
    """
    device = device_of(model)
    batches = batches_of(data, shuffle=False, batch_size=batch_size, augment=augment,
                         generator=torch.Generator(device).manual_seed(seed))
    own = batches is not data and isinstance(batches, Loader)
    if augment is not None and not own:
        raise ValueError("`augment` goes with images; these batches are made already: give it to their loader")
    if own and bright_borders(batches.images[:LOOK]):
        warnings.warn("these images have a bright border, and MNIST's are white on black: a network trained on MNIST "
                      "reads dark ink on paper as `255 - images`, or through mh.prepare_photo", stacklevel=3)
    generator = getattr(batches, "generator", None)
    state = None if own or generator is None else generator.get_state()
    with evaluation_mode(model), torch.no_grad():
        parts = [(model(inputs.float()).float(), targets) for inputs, targets in feed(batches, device)]
        if not parts:
            raise ValueError("there are no images: the loader is empty, or was used up before")
        logits, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        loss, correct = loss_fn(logits, labels).item(), int(count_correct(logits, labels).item())
    if state is not None:
        generator.set_state(state)  # a training that goes on with this loader sees the same batches
    split = data if isinstance(data, Split) else getattr(data, "dataset", None)
    return Evaluation(loss, correct, len(labels), logits.cpu(), labels.cpu(),
                      split if isinstance(split, Split) else None, weights_digest(model))
