"""An epoch as published against an epoch of ours: same network, images, batch size and augmentation, same threads."""

import functools
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

import mnist_helpers as mh
from mnist_helpers.results import Table

from . import pipelines


def timed(epoch, case, model, *arguments):
    """Seconds of training a fresh model for one epoch, and its accuracy on the validation images afterwards."""
    started = time.perf_counter()
    epoch(case, model, *arguments)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "val_accuracy": mh.evaluate(model, pipelines.mnist().val).accuracy}


@functools.cache
def its_own_process():
    """Where the published epochs run: the memory settings that our loop makes for its process would speed them up."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def published(case, images, workers, seed=0):
    return its_own_process().submit(_published, case, images, workers, seed).result()


def _published(case, images, workers, seed):
    return timed(pipelines.published_epoch, case, pipelines.network(case, seed), images, workers)


def ours(case, images, precision=None, device="cpu", seed=0):
    model = pipelines.network(case, seed).to(device, memory_format=torch.channels_last)
    return timed(pipelines.our_epoch, case, model, images, precision)


@functools.cache
def best_workers(case, images):
    """The number of a DataLoader's workers, of 0, 1 and 2, with which the published epoch is fastest here."""
    published(case, min(images, 640), 0)  # the first run pays for start-up
    return min((0, 1, 2), key=lambda workers: published(case, images, workers)["seconds"])


def measure(case, images, repeats):
    """Alternate the published epoch and ours ``repeats`` times, under a new seed each time; ours in float32 and in the
    fast precision, on the CPU and on a GPU if there is one."""
    sides = {}
    for name in pipelines.devices():
        sides[f"{name}, float32"] = (None, name)
        if fast := mh.training.fast_precision(torch.device(name)):
            sides[f"{name}, {mh.training.precision_name(fast)}"] = (fast, name)
    for side in sides.values():
        ours(case, images, *side)  # the first run pays for start-up
    workers, rounds = best_workers(case, images), []
    for seed in range(repeats):
        rounds.append({"published": published(case, images, workers, seed)})
        rounds[-1] |= {name: ours(case, images, *side, seed) for name, side in sides.items()}
    return {"case": case, "images": images, "workers": workers, "rounds": rounds}


def run(repeats=5, images=55_000):
    return [measure(case, images, repeats) for case in pipelines.CASES]


def tables(measured):
    """Of each case the medians of an epoch's seconds, and of the ratios within a round with the smallest and the
    largest; and the mean validation accuracy after that one epoch."""
    rows = []
    for case in measured:
        for name in case["rounds"][0]:
            values = [each[name] for each in case["rounds"]]
            ratios = sorted(each["published"]["seconds"] / each[name]["seconds"] for each in case["rounds"])
            label = f"published, cpu, {case['workers']} workers" if name == "published" else f"ours, {name}"
            accuracies = [100 * value["val_accuracy"] for value in values]
            rows.append([case["case"], label,
                         f"{statistics.median(value['seconds'] for value in values):.1f}",
                         f"{statistics.median(ratios):.1f}x [{ratios[0]:.1f}, {ratios[-1]:.1f}]",
                         f"{statistics.fmean(accuracies):.2f} [{min(accuracies):.2f}, {max(accuracies):.2f}]"])
    return {"One epoch as published and as here: the same network, images, batch size, augmentation and threads.":
            Table(["network", "epoch", "seconds", "times as fast [smallest, largest]",
                   "validation (%) [smallest, largest]"], rows)}
