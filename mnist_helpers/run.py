"""A run is one thing: its network, its history, and the card that says what made it."""

import functools
import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from . import checkpoint
from .device import describe, device_of, precision_name
from .loader import Loader
from .recipe import recipe as tell_recipe
from .recipe import weights_digest


@dataclass
class Run:
    """A training: its network, what happened, and what made it."""

    model: torch.nn.Module = field(repr=False)  #: trained, in eval mode
    history: dict[str, list[float]]  #: by epoch: train_loss, train_accuracy, val_loss, val_accuracy, lr, seconds
    batch_loss: list = field(repr=False)  #: an entry a step
    card: dict = field(repr=False)  #: model, parameters, seed, epochs, images, device, versions, recipe
    id: str = ""  #: the same for the same recipe and seed
    weights: str = ""  #: digest of the trained weights
    replayed: bool = False  #: from the weights and history of a recorded run

    def add(self, values: dict, batch_losses: list) -> None:
        """Add an epoch."""
        for name, value in values.items():
            self.history[name].append(value)
        self.batch_loss += batch_losses

    def __repr__(self):
        epochs = len(self.history["seconds"])
        last = f": {last_epoch(self.history)}" if epochs else ""
        return (f"{epochs} epoch{'s' * (epochs != 1)} of {self.card['model']} ({self.card['parameters']:,} "
                f"parameters){last}")


class Interrupted(KeyboardInterrupt):
    """Training was interrupted; ``run`` holds the epochs completed before."""

    def __init__(self, run):
        super().__init__("training was interrupted")
        self.run = run


def new_run(model, train, val, epochs: int, optimizer, scheduler, loss_fn, after_epoch=None) -> Run:
    """The run that a training begins with: no epoch yet, its card written, the order of its images drawn."""
    recipe = tell_recipe(model=model, train=train, val=val, optimizer=optimizer, scheduler=scheduler, loss_fn=loss_fn,
                         after_epoch=after_epoch)
    if isinstance(train, Loader):
        train.restart()  # the same images in the same order, whatever this loader was used for before
    start = checkpoint.starting_point(model, train)
    measures = ["train_loss", "train_accuracy", *["val_loss", "val_accuracy"] * (val is not None), "lr", "seconds"]
    return Run(model, {name: [] for name in measures}, [], _card(model, train, epochs, recipe, start),
               checkpoint.identity(model, recipe, epochs, start))


def _card(model, train, epochs, recipe, start):
    """What makes a run, as plain data."""
    device, data = device_of(model), getattr(train, "dataset", None)
    return {"model": type(model).__name__, "parameters": sum(p.numel() for p in model.parameters()),
            "seed": torch.initial_seed(), "epochs": epochs, "images": length_of(data),
            "source": getattr(data, "source", ""), "dataset": getattr(data, "dataset", ""),
            "split": getattr(data, "name", ""),
            "profile": getattr(data, "profile", "full"), "device": describe(device),
            "instructions": torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else "",
            "threads": torch.get_num_threads(), "precision": precision_name(getattr(train, "precision", None)),
            "versions": {"python": platform.python_version(), "torch": version("torch"),
                         "torchvision": version("torchvision")},
            "package": checkpoint.package_digest(), "recipe": recipe, "start": start}


def length_of(data) -> int | None:
    """How many there are; None of a stream."""
    try:
        return len(data)
    except TypeError:
        return None


def replay(run: Run) -> bool:
    """Take weights and history from the kept run of the same identity; say so, or why there is none."""
    kept, why = checkpoint.find_kept(run.id, run.card)
    if kept is None:
        print(f"training, since {why}")
        return False
    run.model.load_state_dict(kept["weights"])
    run.history, run.batch_loss, run.card, run.replayed = kept["history"], kept["batch_loss"], kept["card"], True
    epochs, device = len(run.history["seconds"]), run.card["device"].removeprefix("cpu (").removesuffix(")")
    print(f"replayed: {epochs} epoch{'s' * (epochs != 1)}, {sum(run.history['seconds']):.0f} s on {device}: "
          f"{last_epoch(run.history)}")
    return True


def ended(run: Run) -> Run:
    """The run at its end: in eval mode, its weights on its card, and kept if the command line collects runs."""
    run.model.eval()
    run.weights = weights_digest(run.model)
    if run.replayed and run.weights != run.card["weights"]:
        raise checkpoint.CheckpointError(f"the kept weights of {run.id} are damaged: restore the file from git")
    run.card["weights"] = run.weights
    if (folder := os.environ.get("MNIST_COLLECT")) and not run.replayed:
        checkpoint.keep(run, Path(folder))
    return run


@functools.cache
def say_threads(device) -> None:
    """Say once how many threads of a CPU's training takes, where there are more cores."""
    cores = os.cpu_count() or 1
    if device.type == "cpu" and torch.get_num_threads() < cores:
        print(f"training on {torch.get_num_threads()} of {cores} processor cores; mh.set_threads(n) takes more")


def traced(run: Run, batch_losses: list) -> Run:
    """A run that ends after its first steps, whose losses are written for a comparison. Where its recorded weights are
    kept it gets these: another training of the notebook may learn from this network."""
    run.batch_loss = batch_losses
    if folder := os.environ.get("MNIST_COLLECT"):
        checkpoint.write_trace(run, Path(folder))
    kept = checkpoint.kept_folder() / f"{run.id}.safetensors"
    if kept.is_file():
        run.model.load_state_dict(checkpoint.read_kept(kept)["weights"])
    run.model.eval()
    return run


def last_epoch(history):
    """The last epoch of a history in words."""
    text = f"loss {history['train_loss'][-1]:.4f}, {history['train_accuracy'][-1]:.2%}"
    if history.get("val_accuracy"):
        text += f"; val {history['val_loss'][-1]:.4f}, {history['val_accuracy'][-1]:.2%}"
    return text
