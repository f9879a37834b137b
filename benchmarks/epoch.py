"""An epoch as published against an epoch of ours: same network, images, batch size and augmentation, same threads."""

import functools
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import torch

import mnist_helpers as mh
from mnist_helpers.course.tables import Table

from . import loading, pipelines, spread


def timed(epoch, case, model, *arguments):
    """Seconds of training a fresh model for one epoch, and its accuracy on the validation images afterwards."""
    started = time.perf_counter()
    epoch(case, model, *arguments)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "val_accuracy": mh.evaluate(model, pipelines.mnist().val).accuracy}


@functools.cache
def process(tuned):
    """Where epochs run. `keep_freed_memory` holds for a whole process, so the tuned epochs have one of their own."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"),
                               initializer=mh.cpu.keep_freed_memory if tuned else None)


def published(case, images, workers, device="cpu", seed=0):
    return process(False).submit(published_epoch, case, images, workers, device, seed).result()


def published_epoch(case, images, workers, device, seed):
    return timed(pipelines.published_epoch, case, pipelines.network(case, seed).to(device), images, workers)


@functools.cache
def best_workers(case, images, device="cpu"):
    """The number of a DataLoader's workers with which a quarter of the published epoch is fastest here, the better of
    two times: 0, 1, 2 or, where there are more cores, as many as cores, up to 16."""
    images = -(-images // 4)
    published(case, min(images, 640), 0, device)  # the first run pays for start-up
    candidates = sorted({0, 1, 2, max(2, min(16, os.cpu_count() or 0))})
    return min(candidates, key=lambda workers: min(published(case, images, workers, device)["seconds"]
                                                   for _ in range(2)))


def ours(case, images, device="cpu", precision=None, tuned=False, seed=0):
    """``tuned``: channels last in memory, Adam's step fused, and what `mnist_helpers.cpu` offers. Otherwise all is as
    PyTorch has it by default, as in the lessons."""
    return process(tuned).submit(our_epoch, case, images, device, precision, tuned, seed).result()


def our_epoch(case, images, device, precision, tuned, seed):
    layout = torch.channels_last if tuned else torch.contiguous_format
    model = pipelines.network(case, seed).to(device, memory_format=layout)
    return timed(pipelines.our_epoch, case, model, pipelines.split(images, device), precision, tuned)


def sides(device):
    """``{name: (device, precision, tuned)}`` of our epochs on a device."""
    fast = mh.device.fast_precision(torch.device(device))
    named = {f"ours, {device}, float32, as in the lessons": (device, None, False)}
    for precision in dict.fromkeys((None, fast)):
        named[f"ours, {device}, {mh.device.precision_name(precision)}, tuned"] = (device, precision, True)
    return named


def measure(case, images, repeats):
    """Alternate the published epoch and ours ``repeats`` times, under a new seed each time, on each device."""
    devices = pipelines.devices()
    workers = {device: best_workers(case, images, device) for device in devices}
    named = {name: side for device in devices for name, side in sides(device).items()}
    for side in named.values():
        ours(case, images, *side)  # the first run pays for start-up
    rounds = []
    for seed in range(repeats):
        rounds.append({f"published, {device}": published(case, images, workers[device], device, seed)
                       for device in devices})
        rounds[-1] |= {name: ours(case, images, *side, seed) for name, side in named.items()}
    return {"case": case, "images": images, "workers": workers, "rounds": rounds,
            "loading": loading.measure(case, max(1, images // 10), repeats)}


def run(repeats=5, images=55_000):
    return [measure(case, images, repeats) for case in pipelines.CASES]


def tables(measured):
    """Of each case the medians of an epoch's seconds, and of the ratios within a round to the published epoch on the
    same device, with the smallest and the largest; and the mean validation accuracy after that one epoch."""
    rows = []
    for case in measured:
        for name in case["rounds"][0]:
            side, device = name.split(", ")[:2]
            values = [each[name] for each in case["rounds"]]
            ratios = [each[f"published, {device}"]["seconds"] / each[name]["seconds"] for each in case["rounds"]]
            label = f"{name}, workers: {case['workers'][device]}" if side == "published" else name
            accuracies = [100 * value["val_accuracy"] for value in values]
            rows.append([case["case"], label,
                         f"{statistics.median(value['seconds'] for value in values):.1f}",
                         spread(ratios, unit="x"),
                         f"{statistics.fmean(accuracies):.2f} [{min(accuracies):.2f}, {max(accuracies):.2f}]"])
    rounds = " and ".join(map(str, dict.fromkeys(len(case["rounds"]) for case in measured)))
    # Figures from before the loaders were measured alone have no such part.
    alone = [row for case in measured if "loading" in case for row in loading.rows(case["case"], case["loading"])]
    return {f"One epoch as published and as here, in {rounds} rounds: the same network, images, batch size, "
            "augmentation and threads. *Tuned* is with channels last in memory, a fused Adam "
            "and the settings of `mnist_helpers.cpu`.":
            Table(["network", "epoch", "seconds", "times as fast [smallest, largest]",
                   "validation (%) [smallest, largest]"], rows)} | ({
            "Loading alone, without the steps: the same images, batch size and augmentation. torchvision's transforms "
            "draw once a call, so they are called for each image.":
            Table(["network", "batches from", "µs an image", "times mh.Loader [smallest, largest]"], alone)}
            if alone else {})
