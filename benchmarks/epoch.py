"""An epoch as published against an epoch of ours: same network, images, batch size and augmentation, same threads."""

import statistics
import time

import torch

import mnist_helpers as mh
from mnist_helpers.results import Table, percent

from . import pipelines


def timed(epoch, case, model, *arguments):
    """Seconds of training a fresh model for one epoch, and its accuracy on the validation images afterwards."""
    started = time.perf_counter()
    epoch(case, model, *arguments)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "val_accuracy": mh.evaluate(model, pipelines.mnist().val).accuracy}


def published(case, images, workers):
    return timed(pipelines.published_epoch, case, pipelines.network(case), images, workers)


def ours(case, images, precision=None):
    model = pipelines.network(case)
    if precision:
        model = model.to(memory_format=torch.channels_last)
    return timed(pipelines.our_epoch, case, model, images, precision)


def measure(case, images, repeats):
    """Alternate the two ``repeats`` times; the published one with the number of workers that serves it best."""
    ours(case, images)  # the first run of each pays for start-up
    workers = min((0, 1, 2), key=lambda workers: published(case, images, workers)["seconds"])
    fast = mh.training.fast_precision(torch.device("cpu"))
    rounds = []
    for _ in range(repeats):
        rounds.append({"published": published(case, images, workers), "float32": ours(case, images)})
        if fast:
            rounds[-1]["bfloat16"] = ours(case, images, fast)
    return {"case": case, "images": images, "workers": workers, "rounds": rounds}


def run(images=55_000, repeats=5):
    return [measure(case, images, repeats) for case in pipelines.CASES]


def table(measured):
    """Of each case the medians of an epoch's seconds, and of the ratios within a round with the smallest and the
    largest; and the mean validation accuracy after that one epoch."""
    rows = []
    for case in measured:
        for name in case["rounds"][0]:
            values = [each[name] for each in case["rounds"]]
            ratios = sorted(each["published"]["seconds"] / each[name]["seconds"] for each in case["rounds"])
            label = f"published, {case['workers']} workers" if name == "published" else f"ours, {name}"
            rows.append([case["case"], label,
                         f"{statistics.median(value['seconds'] for value in values):.1f}",
                         f"{statistics.median(ratios):.1f}x [{ratios[0]:.1f}, {ratios[-1]:.1f}]",
                         percent(statistics.fmean(value["val_accuracy"] for value in values))])
    return Table(["network", "epoch", "seconds", "times as fast [smallest, largest]", "validation"], rows)
