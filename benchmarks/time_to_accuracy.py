"""Seconds from the start of a process to a trained network of the speed-run notebook, and of the published recipe."""

import json
import statistics
import subprocess
import sys
import time

import nbformat

from mnist_helpers import notebooks, scoreboard
from mnist_helpers.results import Table
from mnist_helpers.stats import mean_over_seeds

from . import epoch, pipelines

NOTEBOOK, NETWORK = "challenges/speed_run", "SpeedRun"
CASE, PUBLISHED_EPOCHS = "six convolutions", 15  # the first epoch at which it was reported to reach 99.4 %


def recipe():
    """The code of the notebook's cells tagged ``recipe``: what is timed is what the notebook shows."""
    (path,) = notebooks.find([NOTEBOOK])
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells
                     if "recipe" in cell.metadata.get("tags", []))


def timed(seed, device):
    """Run the recipe in a fresh process on ``"cpu"`` or ``"cuda"``: seconds until the network is trained, and its
    accuracy on the validation images, measured afterwards."""
    code = (f"import json, time, torch, mnist_helpers\n"
            f"mnist_helpers.get_device = lambda: torch.device({device!r})\nSEED = {seed}\n{recipe()}\n"
            f"model.to('cpu')\nfinished = time.time()\n"
            f"print(json.dumps([finished, mh.evaluate(model, mnist.val).accuracy]))")
    started = time.time()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    finished, val_accuracy = json.loads(said.stdout.splitlines()[-1])
    return {"seconds": finished - started, "val_accuracy": val_accuracy}


def run(repeats=5, images=55_000):
    """Alternate: seed by seed ours, and an epoch as published, with the number of workers that serves it best."""
    devices = pipelines.devices()
    workers = epoch.best_workers(CASE, images)
    measured = {"workers": workers, "images": images, "published": [], **{device: [] for device in devices}}
    for seed in range(repeats):
        for device in devices:
            measured[device].append(timed(seed, device))
        measured["published"].append(epoch.published(CASE, images, workers)["seconds"])
    return measured


def tables(measured):
    """Medians; the accuracy is that of the recorded runs, since a stopwatch that looked at the test images each time
    would be another look at them."""
    one_epoch = statistics.median(measured["published"])
    rows = [["published recipe, cpu", f"{PUBLISHED_EPOCHS} x {one_epoch:.1f} = {PUBLISHED_EPOCHS * one_epoch:.0f}",
             "1.0x", "", "99.4 in one run"]]
    seeds = scoreboard.entries().get(f"{NOTEBOOK}.ipynb: {NETWORK}", {})
    test = str(mean_over_seeds([run["test_accuracy"] for run in seeds.values()])) if seeds else "not recorded"
    for device in ("cpu", "cuda"):
        if device in measured:
            seconds = sorted(each["seconds"] for each in measured[device])
            ratios = sorted(PUBLISHED_EPOCHS * theirs / ours["seconds"]
                            for theirs, ours in zip(measured["published"], measured[device], strict=True))
            rows.append([f"ours, {device}",
                         f"{statistics.median(seconds):.1f} [{seconds[0]:.1f}, {seconds[-1]:.1f}]",
                         f"{statistics.median(ratios):.0f}x [{ratios[0]:.0f}, {ratios[-1]:.0f}]",
                         f"{100 * statistics.fmean(each['val_accuracy'] for each in measured[device]):.2f}", test])
    return {"Time to 99.4 %, from the start of the process; the published recipe's is one timed epoch, scaled.": Table(
        ["recipe", "seconds [smallest, largest]", "times as fast", "validation (%)", "test over seeds (%)"], rows)}
