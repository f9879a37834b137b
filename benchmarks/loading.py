"""The batches of an epoch without the steps: our loader against the same images through a `DataLoader`."""

import functools
import statistics
import time

from torch.utils.data import DataLoader
from torchvision import transforms

import mnist_helpers as mh

from . import pipelines, spread

OURS = "mh.Loader"


def sources(case, images):
    """``{name: loader}`` of the first images in the batches and with the augmentation of a case. A loader with workers
    starts them anew for each pass, as an epoch does."""
    _, _, batch_size, published, augment = pipelines.CASES[case]
    in_memory = functools.partial(mh.Loader, pipelines.split(images), batch_size)
    decoded = functools.partial(DataLoader, pipelines.published_dataset(case, images), batch_size, shuffle=True)
    return {OURS: in_memory(augment=augment),
            "mh.Loader, torchvision's transforms": in_memory(augment=transforms.Compose(published)),
            "DataLoader, 0 workers": decoded(), "DataLoader, 2 workers": decoded(num_workers=2)}


def seconds(loader):
    """Of a pass over all batches."""
    started = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - started


def measure(case, images, repeats):
    """``{"images": number, "rounds": [{name: seconds}]}``, the loaders of a round one after another."""
    named = sources(case, images)
    next(iter(named[OURS]))  # the first call pays for start-up
    return {"images": images, "rounds": [{name: seconds(loader) for name, loader in named.items()}
                                         for _ in range(repeats)]}


def rows(case, measured):
    """Of each loader the median of an image's microseconds, and of the ratios within a round to ours."""
    found = []
    for name in measured["rounds"][0]:
        each = [1e6 * times[name] / measured["images"] for times in measured["rounds"]]
        ratios = [times[name] / times[OURS] for times in measured["rounds"]]
        found.append([case, name, f"{statistics.median(each):.0f}", spread(ratios, unit="x")])
    return found
