"""Batches: what stands between the data and the loop.

A training loop takes anything that yields ``(inputs, targets)``. `Loader` yields them from images that fit in memory,
shuffled, augmented and normalised about a thousand at a time; it takes the place of `torch.utils.data.DataLoader` in
anybody's loop. torchvision's transforms draw once a call; here every image has draws of its own.

Source of the idea: K. Jordan's loader for CIFAR-10, which keeps the whole set on the device as one tensor.
"""

import inspect
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.utils.data import DataLoader

from .augment import Augment
from .data import Split, normalize
from .device import random_state, set_random_state

BLOCK_IMAGES = 1024  # gathered and augmented at a time
BATCH_SIZE = 64  # where none is said
PLAUSIBLE = 30  # the largest absolute value of normalised pixels that makes sense; MNIST's reach 2.8


class Loader:
    """Batches ``(inputs, targets)`` of images in memory, on the images' device.

    ``data`` is a `Split`, a pair of images ``(n, channels, height, width)`` or ``(n, height, width)`` and integer
    labels ``(n,)`` or probabilities ``(n, classes)``, tensors or arrays, or a dataset of torchvision that holds such
    (see `stored`). One rule says what
    is normalised: integers 0..255 are scaled to 0..1, augmented, and normalised as MNIST is; floats are taken as they
    are, augmented or not. ``normalize`` may be a function of the float images instead, which is then always applied, or
    False.

    ``augment`` is an `Augment`, any function of a batch of images, or of images and a generator, or a transform of
    torchvision, which draws once a call and is therefore called once an image (slower: see `one_by_one`). With
    ``precision=torch.bfloat16`` augmentation runs under autocast and the inputs come in that type, which the loop then
    computes in. Shuffling and augmentation draw from ``generator``, on the images' device; without one, from a
    generator that the first epoch seeds from PyTorch's global random state, so that `set_seed` fixes both.

    Raises `ValueError` for data that make no sense.
    """

    def __init__(self, data, batch_size: int = BATCH_SIZE, *, augment: Callable | None = None,
                 normalize: Callable | bool = True, shuffle: bool = True, drop_last: bool = False,
                 precision: torch.dtype | None = None, generator: torch.Generator | None = None):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        images, labels = checked_pair(data)
        self.dataset, self.images, self.labels = data, images, labels
        self.batch_size, self.augment, self.normalize = batch_size, augment, normalize
        self.shuffle, self.drop_last, self.precision, self.generator = shuffle, drop_last, precision, generator
        self.from_torchvision = _from_torchvision(augment)
        self.takes_generator = augment is not None and not self.from_torchvision and _takes_generator(augment)
        self.own_generator = generator is None
        if images.is_floating_point():
            check_range(images)

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size if self.drop_last else -(-len(self.labels) // self.batch_size)

    def steps(self, epochs: int) -> int:
        """How many batches so many epochs have."""
        return epochs * len(self)

    def __iter__(self):
        device = self.images.device
        if self.generator is None and (self.shuffle or self.augment is not None):
            self.restart()
        order = self.order()
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        # Many batches are gathered and augmented at a time, which spares the calls.
        for block in order.split(max(1, BLOCK_IMAGES // self.batch_size) * self.batch_size):
            with torch.autocast(device.type, self.precision, enabled=self.precision is not None):
                inputs = self.prepare(self.images[block])
            yield from zip(inputs.split(self.batch_size), self.labels[block].split(self.batch_size), strict=True)

    def order(self) -> torch.Tensor:
        """int64 ``(n,)``: which images an epoch takes, in their order. Called once an epoch. A subclass that chooses
        images replaces it, and with it `__len__` and `steps`."""
        n, device = len(self.labels), self.images.device
        return torch.randperm(n, generator=self.generator, device=device) if self.shuffle else (
            torch.arange(n, device=device))

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Stored images as the inputs of a network: augmented and normalised."""
        integers = not images.is_floating_point()
        if type(self.augment) is Augment:  # a subclass may take no batch size; the draws are as for single batches
            images = self.augment(images, self.generator, self.batch_size)
        elif self.from_torchvision:
            images = one_by_one(images, self.augment)
            if "Normalize(" in repr(self.augment):
                return images if self.precision is None else images.to(self.precision)
        elif self.augment is not None:
            images = torch.cat([self.augment(batch, *([self.generator] if self.takes_generator else []))
                                for batch in images.split(self.batch_size)])
        inputs = normalized(images, self.normalize, integers)
        return inputs if self.precision is None else inputs.to(self.precision)

    def to(self, device: torch.device) -> "Loader":
        """Move the whole set to ``device``; returns the loader itself."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        return self

    def restart(self) -> None:
        """Seed the loader's own generator anew from PyTorch's global random state; one that was given stays."""
        if self.own_generator:
            self.generator = torch.Generator(self.images.device).manual_seed(torch.randint(2**62, ()).item())

    def __repr__(self):
        return (f"{len(self):,} batches of {self.batch_size} from {len(self.labels):,} images"
                + (f", {self.augment}" if self.augment else ""))


def one_by_one(images: torch.Tensor, transform) -> torch.Tensor:
    """A batch ``(n, channels, height, width)`` with torchvision's ``transform`` applied to each image, so that each has
    draws of its own. It is given pictures of PIL, as by torchvision's datasets, and which are faster one by one; a
    transform that takes tensors alone is given those."""
    from torchvision.transforms.v2 import functional

    steps = repr(transform)
    makes_tensors = any(name in steps for name in ("ToTensor()", "PILToTensor()", "ToImage()"))
    takes_tensors = any(name in steps for name in ("Normalize(", "ToDtype(", "ConvertImageDtype(", "RandomErasing("))
    pil = images.dtype == torch.uint8 and (makes_tensors or not takes_tensors)
    if not pil and "ToTensor()" in steps:
        raise TypeError("transforms.ToTensor takes pictures, and these images are floats: pass the integers, or leave "
                        "ToTensor out")
    made = [transform(functional.to_pil_image(image) if pil else image) for image in images.cpu()]
    made = [image if isinstance(image, torch.Tensor) else functional.pil_to_tensor(image) for image in made]
    return torch.stack([image.as_subclass(torch.Tensor) for image in made]).to(images.device)


def normalized(images, normalize_=True, integers=None):
    """Float inputs of images by the rule of `Loader`; ``integers`` says what they were before augmentation."""
    integers = not images.is_floating_point() if integers is None else integers
    if not images.is_floating_point():
        images = images.float().div_(255)
    if normalize_ is True:
        return normalize(images) if integers else images
    return normalize_(images) if normalize_ else images


def checked_pair(data):
    """Images and labels of a `Split` or a pair, as tensors. Raises `ValueError` if they do not fit."""
    if isinstance(data, Split):
        images, labels = data.images, data.labels
    else:
        images, labels = stored(data) if in_memory(data) else data
        images = torch.as_tensor(images)
    images, labels = single(images), checked_targets(labels)
    if images.ndim == 3:  # without a place for channels, as MNIST is stored
        images = images[:, None]
    if not images.is_floating_point() and images.dtype != torch.uint8:
        if images.numel() and not 0 <= images.min() <= images.max() <= 255:
            raise ValueError(f"integer images are pixels of 0 to 255, and these reach from {images.min().item()} to "
                             f"{images.max().item()}: scale them")
        images = images.to(torch.uint8)
    if len(images) != len(labels):
        raise ValueError(f"{len(images):,} images but {len(labels):,} labels: each image needs one label")
    if len(labels) == 0:
        raise ValueError("there are no images")
    return images, labels


def single(numbers: torch.Tensor) -> torch.Tensor:
    """Doubles, which are NumPy's default, as float32, in which networks compute."""
    return numbers.float() if numbers.dtype == torch.float64 else numbers


def checked_targets(targets) -> torch.Tensor:
    """Targets as a tensor: classes ``(n,)``, int64, or floats as they are. Raises `TypeError` or `ValueError` for what
    is neither."""
    if not isinstance(targets, torch.Tensor):
        try:
            plain = isinstance(targets, np.ndarray) and targets.dtype == object
            targets = torch.as_tensor(targets.tolist() if plain else targets)
        except (TypeError, ValueError) as error:
            raise TypeError("labels are numbers, and these are of another kind: number the classes, such as "
                            "`[names.index(label) for label in labels]`") from error
    if targets.ndim == 0:
        raise ValueError("one label came where a batch of them should: pass DataLoader(data, batch_size=64), which "
                         "makes batches of single images")
    if targets.is_floating_point():
        return single(targets)
    targets = targets.long()
    if targets.ndim > 1:
        remedy = "labels[:, 0]" if targets[0].numel() == 1 else "labels.argmax(1)"
        raise ValueError(f"integer labels are one class an image, and these have the shape {tuple(targets.shape)}: "
                         f"pass `{remedy}`, or floats for probabilities")
    # On a GPU, looking at each batch would wait for the device.
    if targets.device.type == "cpu" and len(targets) and targets.min() < 0:
        raise ValueError(f"a label is {targets.min().item()}, and classes count from 0: leave such images out, "
                         "`images[labels >= 0]`")
    return targets


def stored(dataset) -> tuple:
    """Images ``(n, channels, height, width)`` and labels ``(n,)`` that a dataset of torchvision holds in memory: MNIST
    and its like, USPS, SVHN, CIFAR. Raises `ValueError` if the dataset has transforms, which would not be applied."""
    if takes_transform(dataset):
        raise ValueError("a Loader takes the images that a dataset holds, and not its transform: leave that out and "
                         "pass it as `augment`, or use a DataLoader")
    images = torch.as_tensor(dataset.data)
    labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
    if images.ndim == 4 and images.shape[3] == 3 and images.shape[1] != 3:  # CIFAR has its colours last
        images = images.permute(0, 3, 1, 2)
    return images, labels[:, 0] if labels.ndim == 2 else labels  # QMNIST: the class, then where the digit comes from


def in_memory(dataset) -> bool:
    """Whether it is a dataset of torchvision that holds its images as one tensor or array."""
    return type(dataset).__module__.startswith("torchvision.datasets") and isinstance(
        getattr(dataset, "data", None), torch.Tensor | np.ndarray)


def takes_transform(dataset) -> bool:
    """Whether a dataset of torchvision has any transform."""
    return any(getattr(dataset, name, None) for name in ("transform", "target_transform", "transforms"))


def check_range(inputs: torch.Tensor) -> None:
    """Raise `ValueError` for float inputs that nobody normalised, such as pixels of 0 to 255."""
    largest = inputs.abs().max().item() if inputs.numel() else 0.0
    if largest > PLAUSIBLE:
        raise ValueError(f"float images are taken as they are, and these reach {largest:g}: divide them by 255 and "
                         "normalise them, or pass the integers")


def batches_of(data, *, shuffle: bool, batch_size: int = BATCH_SIZE, **options) -> Iterable:
    """Whatever a PyTorch user brings as something that yields batches.

    Loaders and other iterables of batches are taken as they are; a `Split`, a pair of tensors or arrays, and a dataset
    of torchvision that is in memory and has no transform become a `Loader`, any other map-style dataset a `DataLoader`,
    both with ``batch_size``. Raises `TypeError` for the rest.
    """
    if isinstance(data, Loader | DataLoader):
        return data
    if isinstance(data, Split) or _is_pair(data) or (in_memory(data) and not takes_transform(data)):
        return Loader(data, batch_size, shuffle=shuffle, **options)
    if not isinstance(data, torch.utils.data.IterableDataset) and hasattr(data, "__getitem__") and (
            hasattr(data, "__len__")) and not isinstance(data, list | tuple | dict):
        if len(data) == 0:
            raise ValueError("there are no images")
        return DataLoader(data, batch_size, shuffle=shuffle)
    if hasattr(data, "__iter__"):
        return data
    raise TypeError(f"a {type(data).__name__} yields no batches: pass a Loader, a DataLoader, a dataset, or a pair of "
                    "images and labels")


def _is_pair(data):
    if not isinstance(data, tuple | list) or len(data) != 2 or not isinstance(data[0], torch.Tensor | np.ndarray):
        return False
    return isinstance(data[1], torch.Tensor | np.ndarray | list | tuple)


def feed(batches: Iterable, device: torch.device):
    """Yield ``(inputs, targets)`` on ``device`` as a network takes them: integer images normalised, floats checked once
    for a plausible range. Raises `ValueError` or `TypeError` for batches that make no sense."""
    if isinstance(batches, Loader):
        yield from batches.to(device)
        return
    for number, batch in enumerate(batches):
        inputs, targets = (part.to(device) for part in split_batch(batch))
        if not number and inputs.is_floating_point():
            check_range(inputs)
        yield normalized(inputs), targets


def first_images(batches: Iterable, count: int, device: torch.device):
    """The first ``count`` inputs and targets of a loader on ``device``, without taking a batch or a random number from
    it; None where that is not possible. A `Loader`'s are not augmented."""
    if isinstance(batches, Loader):
        return normalized(batches.images[:count], batches.normalize).to(device), batches.labels[:count].to(device)
    if not isinstance(batches, DataLoader) or isinstance(batches.dataset, torch.utils.data.IterableDataset):
        return None
    state = random_state(device)
    try:
        items = [batches.dataset[number] for number in range(min(count, len(batches.dataset)))]
        if items and isinstance(items[0], tuple) and hasattr(items[0][0], "getbands"):
            raise TypeError("the dataset's images are pictures of PIL: give it a transform that ends in tensors, such "
                            "as transforms.ToTensor()")
        first = batches.collate_fn(items)
        return next(feed([first], device))
    finally:
        set_random_state(state, device)


def split_batch(batch):
    """``(inputs, targets)`` of a batch, as tensors. Raises `TypeError` or `ValueError` for batches of another form."""
    if isinstance(batch, dict) or not isinstance(batch, tuple | list) or len(batch) != 2:
        parts = f"the keys {list(batch)}" if isinstance(batch, dict) else (
            f"{len(batch)} parts" if isinstance(batch, tuple | list) else f"a {type(batch).__name__}")
        raise TypeError(f"a batch is (inputs, targets), and this one is {parts}: give the DataLoader a collate_fn "
                        "that returns the two, or pass a list such as [(b[0], b[1]) for b in loader]")
    targets = checked_targets(batch[1])
    return single(torch.as_tensor(batch[0])), targets


def _from_torchvision(augment):
    """Whether it is a transform of torchvision, or several in an `nn.Sequential`."""
    parts = list(augment) if isinstance(augment, torch.nn.Sequential) else [augment]
    return bool(parts) and all(type(part).__module__.startswith("torchvision.transforms") for part in parts)


def _takes_generator(function):
    """Whether a function, or a module's ``forward``, takes images and a generator, or images alone."""
    try:
        parameters = inspect.signature(getattr(function, "forward", function)).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    second = positional[1] if len(positional) > 1 else None
    required = second is not None and (second.default is second.empty or second.name == "generator")
    return required or any(p.kind is p.VAR_POSITIONAL for p in parameters)
