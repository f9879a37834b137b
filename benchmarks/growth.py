"""How time and memory grow with images, epochs, steps and parameters; each point in a process of its own."""

import json
import subprocess
import sys
import time

import numpy as np
import torch

import mnist_helpers as mh
from mnist_helpers.results import Table
from mnist_helpers.summary import count_parameters

from . import pipelines, search

BASE = {"images": 30_000, "epochs": 1, "batch_size": 64, "width": 8}
GROWING = {
    "images": [10_000, 30_000, 60_000, 120_000, 240_000],
    "epochs": [1, 2, 3, 4],
    "batch_size": [32, 64, 128, 256, 512],
    "width": [4, 8, 12, 16, 20],
}


def peak_megabytes(children=False):
    """The most memory this process, or the largest of its ``children``, has held, in MB of 10^6 bytes; None where the
    system does not tell (Windows)."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes on macOS, kilobytes on Linux


def point(images, epochs, batch_size, width):
    """Train a plain network of three convolutions on MNIST's images, repeated until there are enough."""
    train = pipelines.mnist().train
    which = torch.arange(images) % len(train)
    split = train.images[which], train.labels[which]
    mh.set_seed(0)
    model = search.network(f"c3-{width} P c3-{2 * width} P c3-{2 * width} gap")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    augment = mh.Augment(mh.Rotation(10))
    mh.training.train_epoch(model, (split[0][:2_000], split[1][:2_000]), optimizer=optimizer, augment=augment,
                            batch_size=batch_size)  # the first steps pay for start-up
    started = time.perf_counter()
    for _ in range(epochs):
        mh.training.train_epoch(model, split, optimizer=optimizer, augment=augment, batch_size=batch_size)
    return {"seconds": time.perf_counter() - started, "peak_megabytes": peak_megabytes(),
            "steps": epochs * -(-images // batch_size), "parameters": count_parameters(model)}


def lesson_peak():
    """The most memory the kernel of the first lesson holds, run in full."""
    code = ("from benchmarks import growth; from mnist_helpers import notebooks; "
            "done = notebooks.execute(notebooks.find()[0], show=False); assert not done.error, done.error; "
            "print(growth.peak_megabytes(children=True) or '')")
    said = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1]
    return float(said) if said else None


def run(repeats=5, growing=GROWING):
    """``{"lesson_megabytes", what: [point]}``: the medians of ``repeats`` runs, which go through all points before they
    repeat one."""
    settings = [(name, BASE | {name: value}) for name, values in growing.items() for value in values]
    runs = [[json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.growth", json.dumps(each)]))
             for _, each in settings] for _ in range(repeats)]
    grown = {"lesson_megabytes": lesson_peak()} | {name: [] for name in growing}
    for (name, each), points in zip(settings, zip(*runs, strict=True), strict=True):
        peaks = [point["peak_megabytes"] for point in points if point["peak_megabytes"] is not None]
        grown[name].append(points[0] | each | {
            "seconds": float(np.median([point["seconds"] for point in points])),
            "peak_megabytes": float(np.median(peaks)) if peaks else None})
    return grown


def line(x, y):
    """``(intercept, slope, share of y's variance that the line explains)`` by least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.var(y - (intercept + slope * np.asarray(x)))
    return float(intercept), float(slope), float(1 - rest / np.var(y)) if np.var(y) else 1.0


# What each is a straight line in: a smaller batch means more steps, a wider network more parameters.
AGAINST = {"images": ("images", 10_000), "epochs": ("epochs", 1), "batch_size": ("steps", 1_000),
           "width": ("parameters", 10_000)}


def tables(measured):
    rows = []
    for name in [name for name in AGAINST if name in measured]:
        points, (against, unit) = measured[name], AGAINST[name]
        x = [point[against] / unit for point in points]
        _, slope, explained = line(x, [point["seconds"] for point in points])
        peaks = [point["peak_megabytes"] for point in points]
        memory = f"{min(peaks):,.0f} to {max(peaks):,.0f}" if None not in peaks else ""
        rows.append([against, f"{points[0][against]:,} to {points[-1][against]:,}",
                     f"{points[0]['seconds']:.1f} to {points[-1]['seconds']:.1f}",
                     f"{slope:.2f} per {unit:,}", f"{explained:.3f}", memory])
    peak = measured["lesson_megabytes"]
    lesson = f" The kernel of lesson 1 held at most {peak:,.0f} MB." if peak else ""
    return {f"Growth: seconds of training, the line through them, and the most memory held.{lesson}": Table(
        ["growing", "from, to", "seconds", "slope, seconds", "R²", "peak memory, MB"], rows)}


if __name__ == "__main__":
    print(json.dumps(point(**json.loads(sys.argv[1]))))
