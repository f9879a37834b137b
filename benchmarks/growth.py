"""How time and memory grow with images, epochs, steps and parameters; each point in a process of its own."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import mnist_helpers as mh
from mnist_helpers.course import notebooks
from mnist_helpers.course.tables import Table
from mnist_helpers.layers import count_parameters

from . import pipelines, search, spread

BASE = {"images": 30_000, "epochs": 1, "batch_size": 64, "width": 8}
GROWING = {
    "images": [10_000, 30_000, 60_000, 120_000, 240_000],
    "epochs": [1, 2, 3, 4],
    "batch_size": [32, 64, 128, 256, 512],
    "width": [4, 8, 12, 16, 20],
}


def peak_megabytes():
    """The most memory this process has held, in MB of 10^6 bytes; None where the system does not tell (Windows)."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, whose getrusage counts what the process was forked from
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))[1]) * 1024 / 1e6
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def point(images, epochs, batch_size, width):
    """Train a plain network of three convolutions on MNIST's images, repeated until there are enough."""
    train = pipelines.mnist().train
    which = torch.arange(images) % len(train)
    images, labels = train.images[which], train.labels[which]
    mh.set_seed(0)
    model = search.network(f"c3-{width} P c3-{2 * width} P c3-{2 * width} gap")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    augment = mh.Augment(mh.Rotation(10))
    some, batches = (mh.Loader((images[:n], labels[:n]), batch_size, augment=augment) for n in (2_000, len(labels)))
    mh.train.train_epoch(model, some, optimizer=optimizer)  # the first steps pay for start-up
    started = time.perf_counter()
    for _ in range(epochs):
        mh.train.train_epoch(model, batches, optimizer=optimizer)
    return {"seconds": time.perf_counter() - started, "peak_megabytes": peak_megabytes(),
            "steps": epochs * len(batches), "parameters": count_parameters(model)}


def lesson_peak():
    """The most memory the kernel of the first lesson holds, run in full on the CPU, in MB or None as in
    `peak_megabytes`: its code cells, in a process of their own."""
    notebook = notebooks.read(notebooks.lessons()[0])
    code = ["import torch, mnist_helpers\nmnist_helpers.get_device = lambda: torch.device('cpu')",
            *(cell.source for cell in notebook.cells if cell.cell_type == "code")]
    tell = "from benchmarks import growth\nprint()\nprint(growth.peak_megabytes() or '')"
    with tempfile.TemporaryDirectory() as folder:
        settings = os.environ | {"MNIST_PROFILE": "full", "MNIST_COLLECT": folder}
        said = subprocess.check_output([sys.executable, "-c", "\n".join([*code, tell])], text=True, env=settings)
    return float(said.splitlines()[-1]) if said.splitlines()[-1] else None


def run(repeats=5, growing=GROWING):
    """``{"lesson_megabytes", what: [point]}``, a point with the ``seconds`` and ``peak_megabytes`` of each of
    ``repeats`` runs, which go through all points before they repeat one."""
    settings = [(name, BASE | {name: value}) for name, values in growing.items() for value in values]
    runs = [[json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.growth", json.dumps(each)]))
             for _, each in settings] for _ in range(repeats)]
    grown = {"lesson_megabytes": lesson_peak()} | {name: [] for name in growing}
    for (name, each), points in zip(settings, zip(*runs, strict=True), strict=True):
        grown[name].append(points[0] | each | {key: [point[key] for point in points]
                                               for key in ("seconds", "peak_megabytes")})
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
    for name in filter(measured.get, AGAINST):
        points, (against, unit) = measured[name], AGAINST[name]
        x = [point[against] / unit for point in points]
        _, slope, explained = line(x, [statistics.median(point["seconds"]) for point in points])
        peaks = [peak for point in points for peak in point["peak_megabytes"]]
        memory = f"{min(peaks):,.0f} to {max(peaks):,.0f}" if None not in peaks else ""
        rows.append([against, f"{points[0][against]:,} to {points[-1][against]:,}",
                     f"{spread(points[0]['seconds'])} to {spread(points[-1]['seconds'])}",
                     f"{slope:.2f} per {unit:,}", f"{explained:.3f}", memory])
    peak = measured["lesson_megabytes"]
    lesson = f" Lesson 1, run in full, held at most {peak:,.0f} MB." if peak else ""
    rounds = max(len(point["seconds"]) for name in filter(measured.get, AGAINST) for point in measured[name])
    return {f"Growth, in {rounds} rounds: seconds of training, the line through their medians, and the most memory "
            f"held.{lesson}": Table(
        ["growing", "from, to", "seconds [smallest, largest]", "slope, seconds", "R²", "peak memory, MB"], rows)}


if __name__ == "__main__":
    print(json.dumps(point(**json.loads(sys.argv[1]))))
