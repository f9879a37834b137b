"""Trainings that are measured on the validation images, each a line of a file in ``results/``."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch

import mnist_helpers as mh
from mnist_helpers import files


def measured(told: dict, train: Callable, more: Callable | None = None) -> dict:
    """The record of a training: what is ``told`` of it, what it ran on (a CPU, where nothing else is told), and what
    its last epoch came to. ``train()`` returns its `Run`, and ``more(run)`` what the record has besides."""
    record = {"torch": version("torch"), "threads": mh.device.threads(),
              "device": mh.device.describe(torch.device("cpu"))} | told
    started = time.perf_counter()
    try:
        run = train()
    except mh.train.TrainingDiverged as error:
        return record | {"val_accuracy": None, "diverged": str(error)}
    history = run.history
    return record | {"val_accuracy": round(history["val_accuracy"][-1], 4),
                     "val_loss": round(history["val_loss"][-1], 5), "train_loss": round(history["train_loss"][-1], 5),
                     **(more(run) if more else {}), "seconds": round(time.perf_counter() - started, 1)}


def all_of_mnist(parser: argparse.ArgumentParser):
    """MNIST in full; where it is not there, the command ends and says so."""
    dataset = mh.load_mnist(verbose=False)
    if (dataset.name, dataset.profile) != ("mnist", "full"):
        parser.error(f"this is measured on all of MNIST, and this is {dataset}")
    return dataset


def add(records: Iterable[tuple[str, dict]], path: Path) -> None:
    """Add each ``(name, record)`` to a file as it comes, and print what it reached."""
    for name, record in records:
        files.append_line(path, json.dumps(record))
        reached = record.get("diverged") or f"{record['val_accuracy']:.2%} in {record['seconds']:.0f} s"
        print(f"seed {record['seed']}: {reached}: {name}", flush=True)
