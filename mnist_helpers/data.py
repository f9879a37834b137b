"""MNIST as tensors: found and split, with a small real sample for when there is no network.

The database is by Yann LeCun, Corinna Cortes and Christopher Burges; `mnist_helpers.download` brings its files.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from . import download
from .download import DataError, DownloadError

MEAN, STD = 0.1307, 0.3081  # of the pixels of the 60,000 training images, scaled to 0..1
VALIDATION_IMAGES = 5_000
SPLIT_SEED = 0  # fixed: every lesson and every seed sees the same split
QUICK_IMAGES = {"train": 4_000, "val": 1_000, "test": 2_000}


@dataclass(frozen=True, eq=False)
class Split(torch.utils.data.Dataset):
    """Images with their labels: a map-style dataset, for a `torch.utils.data.DataLoader` as for our `Loader`.

    ``split[i]`` is the pair of an image, uint8 ``(1, 28, 28)``, and its label, an int; ``split[:100]`` is the `Split`
    of the first hundred.
    """

    images: torch.Tensor  #: uint8 ``(n, 1, 28, 28)``, 0 is background
    labels: torch.Tensor  #: int64 ``(n,)``
    source: str = ""  #: what figures and tables call it
    name: str = ""  #: ``"train"``, ``"val"``, ``"test"`` or ``"train and val"``
    dataset: str = ""  #: ``"mnist"`` or ``"digits"``
    profile: str = "full"

    def __getitem__(self, index):
        if isinstance(index, slice):
            return replace(self, images=self.images[index], labels=self.labels[index])
        return self.images[index], int(self.labels[index])

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        return f"{len(self):,} images of {self.source}"


@dataclass(frozen=True)
class Dataset:
    """Three splits; ``name`` is ``"mnist"`` or ``"digits"``, ``profile`` what `profile` says."""

    name: str
    profile: str
    train: Split
    val: Split
    test: Split

    @property
    def train_and_val(self):
        """Both `Split`s in one, for the last run of a recipe that was chosen on ``val`` and is changed no more."""
        return replace(self.train, images=torch.cat([self.train.images, self.val.images]),
                       labels=torch.cat([self.train.labels, self.val.labels]), name="train and val")

    def epochs(self, full):
        """How many epochs to train where the lesson says ``full``: all of them, except in the quick profile.

        Quick runs two on MNIST, and eight on the digits sample, whose epochs are seven times shorter.
        """
        return min(full, 2 if self.name == "mnist" else 8) if self.profile == "quick" else full

    def __repr__(self):
        counts = f"{len(self.train):,} to train on, {len(self.val):,} to validate on, {len(self.test):,} to test on"
        return f"{self.train.source}: {counts}"


PROFILES = {
    "full": "trains as written",
    "quick": "takes the same cells through a small part of the data, an epoch or two",
    "recorded": "replays recorded trainings from their kept weights and computes all the rest",
    "trace": "takes a hundred steps of each training, to compare them with those recorded; not for lessons",
}


def profile() -> str:
    """One of `PROFILES`, from the environment variable ``MNIST_PROFILE``; by default ``"full"``."""
    return _known_profile(os.environ.get("MNIST_PROFILE") or "full")


def _known_profile(name):
    if name not in PROFILES:
        raise DataError(f"the profile is {name!r}: set MNIST_PROFILE to 'full', 'quick' or 'recorded', or unset it")
    return name


def project_root():
    """The checkout this package was installed from, or the working directory if it was installed without one."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def default_root():
    """The folder MNIST is looked for in: ``MNIST_ROOT`` if set, else ``data``; both relative to the project, since
    notebooks run in folders of their own. Raises `DataError` for the home of a user that does not exist."""
    return project_root() / _expanded(os.environ.get("MNIST_ROOT") or "data")


def _expanded(folder):
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # ~ of a user that does not exist
        raise DataError(f"there is no folder {folder}: {error} Set MNIST_ROOT to another one") from error


def load_mnist(root=None, profile=None, verbose=True):
    """MNIST, split once and for all into 55,000 / 5,000 / 10,000 images; the digits sample if there is no MNIST.

    ``root`` is a folder in torchvision's layout (``root/MNIST/raw``), by default ``MNIST_ROOT`` or ``data/``; files
    that are missing or damaged are unpacked or downloaded. Where that fails the lessons still run, on `digits_sample`,
    and say so.
    ``profile`` is one of `PROFILES`, by default what ``MNIST_PROFILE`` says; ``"quick"`` keeps a small part of each
    split.

    Raises `DataError` for files that cannot be read or written or are not MNIST's, and for an unknown profile.
    """
    profile = _known_profile(profile or os.environ.get("MNIST_PROFILE") or "full")
    name, source, failure = "mnist", "MNIST", None
    try:
        train, test = _read_mnist(fetch(root, remember=True))
        held_out = VALIDATION_IMAGES
    except DownloadError as error:
        name, source, failure = "digits", "the digits sample, not MNIST", error
        train, test = digits_sample()
        held_out = 200
    is_val = stratified_mask(train[1], held_out)
    splits = {"train": _subset(train, ~is_val), "val": _subset(train, is_val), "test": test}
    if profile == "quick":
        source += ", quick profile"
        splits = {key: (images[: QUICK_IMAGES[key]], labels[: QUICK_IMAGES[key]])
                  for key, (images, labels) in splits.items()} | {"test": of_both_halves(test, QUICK_IMAGES["test"])}
    dataset = Dataset(name, profile, **{
        key: Split(*split, source, key, name, profile) for key, split in splits.items()})
    if verbose:
        if failure:
            print(f"MNIST is not here and could not be fetched.\n{failure}\n"
                  "Using scikit-learn's 8x8 digits, enlarged, instead: the lesson runs, but nothing measured on them "
                  "says anything about MNIST.")
        print(dataset)
    return dataset


def normalize(images):
    """uint8 0..255 or float 0..1 images of any shape, as float32 of about zero mean and unit variance on MNIST."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    return (images - MEAN) / STD


def of_both_halves(split, count):
    """``count`` of a test set's images, in their order, or all if it has no more: each digit of each half keeps its
    share. MNIST's first half is harder than its last: other people wrote it."""
    labels = split[1]
    if len(labels) <= count:
        return split
    return _subset(split, stratified_mask(2 * labels + (torch.arange(len(labels)) >= len(labels) // 2), count))


def stratified_mask(labels, held_out, seed=SPLIT_SEED):
    """Boolean ``(n,)``: True for ``held_out`` labels drawn so that each class keeps its share to within one image.

    Drawn with numpy's legacy generator, whose stream is frozen for good, so that no library update moves an image
    from training to validation.
    """
    labels = np.asarray(labels)
    if not 0 < held_out < len(labels):
        raise ValueError(f"cannot hold out {held_out} of {len(labels)} images: choose between 1 and {len(labels) - 1}")
    random = np.random.RandomState(seed)
    classes, counts = np.unique(labels, return_counts=True)
    exact = counts * held_out / len(labels)
    quota = np.floor(exact).astype(int)
    # Largest remainders first, so that the quotas add up.
    quota[np.argsort(quota - exact, kind="stable")[: held_out - quota.sum()]] += 1
    mask = np.zeros(len(labels), dtype=bool)
    for label, count in zip(classes, quota, strict=True):
        mask[random.permutation(np.flatnonzero(labels == label))[:count]] = True
    return torch.from_numpy(mask)


# ---------------------------------------------------------------- files


def raw(root=None):
    """Where MNIST's files lie below ``root``, by default `default_root`: in torchvision's layout."""
    return (_expanded(root) if root else default_root()) / "MNIST" / "raw"


def damaged(root=None):
    """``{file name: what is wrong}`` for each MNIST file under ``root`` that is missing, truncated or altered. Raises
    `DataError` for what cannot be read."""
    return download.damaged(raw(root))


def fetch(root=None, **options):
    """The folder with the four verified MNIST files; see `mnist_helpers.download.fetch`."""
    return download.fetch(raw(root), **options)


def _read_mnist(folder):
    def read(name, header, shape):
        return torch.from_numpy(np.fromfile(folder / name, dtype=np.uint8, offset=header).reshape(shape))

    return tuple((read(f"{part}-images-idx3-ubyte", 16, (-1, 1, 28, 28)),
                  read(f"{part}-labels-idx1-ubyte", 8, (-1,)).long()) for part in ("train", "t10k"))


def _subset(split, mask):
    return split[0][mask], split[1][mask]


# ---------------------------------------------------------------- the offline sample


def digits_sample():
    """``(train, test)`` pairs of tensors shaped like MNIST's: 1,397 and 400 of scikit-learn's handwritten digits.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository (1998), CC BY 4.0.
    """
    from sklearn.datasets import load_digits  # over a second, so only when it is needed

    digits = load_digits()
    images = torch.stack([prepare_digit(torch.from_numpy(image)) for image in digits.images])[:, None]
    labels = torch.from_numpy(digits.target).long()
    is_test = stratified_mask(labels, 400)
    return _subset((images, labels), ~is_test), _subset((images, labels), is_test)


def prepare_digit(ink):
    """A drawing of any size as MNIST prepared its own: uint8 ``(28, 28)``.

    ``ink`` is ``(height, width)``, zero where nothing is drawn. Its bounding box is scaled, keeping its proportions,
    until the longer side is 20 pixels, and placed so that its centre of mass falls on pixel (14, 14), where MNIST's
    images have theirs. An empty drawing gives an empty image.

    Source: Y. LeCun et al., "Gradient-based learning applied to document recognition" (1998), section III.A.
    """
    ink = torch.as_tensor(ink, dtype=torch.float32)
    if ink.ndim != 2:
        raise ValueError(f"a drawing has two dimensions, (height, width); this one has shape {tuple(ink.shape)}")
    return centred(boxed(ink)) if (ink > 0).any() else torch.zeros(28, 28, dtype=torch.uint8)


def boxed(ink):
    """The part of ``(height, width)`` that is not zero, scaled until its longer side is 20: uint8, 255 where it is
    brightest."""
    ink = torch.as_tensor(ink, dtype=torch.float32)
    rows, columns = (ink > 0).any(1).nonzero(), (ink > 0).any(0).nonzero()
    box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    size = [max(1, round(side * 20 / max(box.shape))) for side in box.shape]
    box = F.interpolate(box[None, None], size=size, mode="bilinear", antialias=True)[0, 0]
    return (box / box.max() * 255).round().byte()


def centred(box):
    """A small uint8 image ``(height, width)`` on a black page, its centre of mass on pixel (14, 14): uint8
    ``(28, 28)``. It is moved by whole pixels, and never over the edge."""
    page, corner = torch.zeros(28, 28, dtype=torch.uint8), []
    for axis, side in enumerate(box.shape):
        mass = box.sum(1 - axis).float()
        centre = (mass * torch.arange(side)).sum() / mass.sum()
        corner.append(min(max(0, round(14 - centre.item())), 28 - side))
    page[corner[0] : corner[0] + box.shape[0], corner[1] : corner[1] + box.shape[1]] = box
    return page
