"""What several tests share: a tiny dataset, a tiny network, and where real MNIST is."""

import functools
import os
import shutil

import pytest
import torch
from torch import nn

from mnist_helpers import data

# Making it takes most of a second, and many tests train on it.
data.digits_sample = functools.cache(data.digits_sample)


@pytest.fixture(autouse=True)
def environment():
    """Functions that are for a process of their own set environment variables; here they are put back."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    """Chromium, as playwright drives it; tests that need it are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def tiny():
    """A pair ``(images, labels)`` of 100 random uint8 images that a network can learn by heart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (100,), generator=generator)
    images = torch.randint(0, 40, (100, 1, 28, 28), generator=generator, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * label : 2 * label + 6, 4:24] = 220
    return images, labels


@pytest.fixture
def network():
    """A function that makes the same small network, with batch norm and dropout, each time it is called."""
    def make(seed=0):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                             nn.Linear(4 * 7 * 7, 10))
    return make


@pytest.fixture(scope="session")
def mnist_root():
    """The folder of real MNIST; tests that need it are skipped where there is none."""
    problems = data.damaged()
    assert set(problems.values()) <= {"missing"}, f"damaged files, or wrong checksums in download.py: {problems}"
    if problems:
        pytest.skip("needs real MNIST: set MNIST_ROOT, or run `python -m mnist_helpers data`")
    return data.default_root()
