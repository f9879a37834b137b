"""The training loop in plain sight: `train_epoch` is one pass over the batches, `fit` repeats it.

The loop takes anything that yields ``(inputs, targets)`` and never waits for the device inside an epoch, except to
refresh the progress bar twice a second. Loss and accuracy are sums over images divided by the number of images, so
that a smaller last batch counts for what it is.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from . import checkpoint as keeping
from .check import LOOK, check_loss, check_network
from .device import device_of, on_few_threads
from .loader import Loader, batches_of, feed, first_images
from .measure import count_correct, evaluate
from .run import Interrupted, Run, ended, last_epoch, length_of, new_run, replay, say_threads, traced

REFRESH_SECONDS = 0.5


class Bar(tqdm):
    """The line of an epoch, 79 characters wide wherever it is shown. While batches are counted it ends with the time
    left of all ``epochs``, at the pace since ``began``, when ``done`` epochs were over. Streams have no such end."""

    def __init__(self, epoch, epochs, total, began, done):
        self.over, self.epochs, self.began, self.done = epoch - 1, epochs, began, done
        super().__init__(total=total, desc=f"epoch {epoch}/{epochs}", file=sys.stdout, mininterval=0.2, ncols=79,
                         bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}{left}")

    @property
    def format_dict(self):
        left = ""
        if self.total and self.n < self.total and self.over + self.n > self.done:
            over = self.over + self.n / self.total
            seconds = (time.monotonic() - self.began) / (over - self.done) * (self.epochs - over)
            left = f", {self.format_interval(seconds)} left"
        return super().format_dict | {"left": left}


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; ``history`` holds the epochs completed before."""

    def __init__(self, message, history=None):
        super().__init__(message)
        self.history = history


# ---------------------------------------------------------------- one pass over the batches


def train_epoch(model, batches: Iterable, *, optimizer, loss_fn: Callable = F.cross_entropy,
                after_step: Callable | None = None, bar=None) -> tuple[float, float, list[float]]:
    """Train on every batch once; ``(loss, accuracy, batch_losses)``, as measured while the weights were changing and,
    where the model has dropout, with it on.

    ``batches`` yields ``(inputs, targets)``; ``loss_fn(logits, targets)`` is the mean over the batch, in float32. Where
    inputs come in bfloat16, the forward pass is under `torch.autocast`. A module that is in eval mode inside a model in
    training mode is frozen, and stays so.

    Raises `TrainingDiverged`, naming the batch, if the loss is not finite; `ValueError` if there are no batches.
    """
    device = device_of(model)
    losses, correct, sizes = [], [], []  # tensors on the device, one number a batch, so that nothing waits for it

    def measured():
        """Mean loss and accuracy so far; reading them is the only wait."""
        each, images = torch.stack(losses), torch.tensor(sizes, device=device)
        finite = each.isfinite().tolist()
        if not all(finite):
            batch = finite.index(False) + 1
            raise TrainingDiverged(f"the loss became {each[batch - 1].item()} in batch {batch}")
        seen = images.sum()
        return ((each * images).sum() / seen).item(), (torch.stack(correct).sum() / seen).item()

    if not model.training:
        model.train()
    last_refresh = time.monotonic()
    for inputs, targets in feed(batches, device):
        with torch.autocast(device.type, inputs.dtype, enabled=inputs.dtype in (torch.bfloat16, torch.float16)):
            logits = model(inputs)
        loss = loss_fn(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after_step:
            after_step()
        losses.append(loss.detach())
        correct.append(count_correct(logits.detach(), targets))
        sizes.append(len(targets))
        if bar is not None and not bar.disable and time.monotonic() - last_refresh > REFRESH_SECONDS:
            bar.set_postfix_str("loss {:.4f}, accuracy {:.2%}".format(*measured()), refresh=False)
            bar.update(len(losses) - bar.n)
            last_refresh = time.monotonic()
    if not losses:
        raise ValueError("there are no batches to train on: the loader is empty, or was used up by an epoch before")
    loss, accuracy = measured()
    if bar is not None:
        bar.update(len(losses) - bar.n)
    return loss, accuracy, torch.stack(losses).tolist()


# ---------------------------------------------------------------- training


def each_step(scheduler):
    """Have `fit` step a scheduler after every step instead of after every epoch; returns the scheduler."""
    scheduler.each_step = True
    return scheduler


@on_few_threads
def fit(model, train, val, *, epochs: int, optimizer, scheduler=None, loss_fn: Callable = F.cross_entropy,
        after_epoch: Callable | None = None, checkpoint: str | Path | None = None) -> Run:
    """Train ``model`` on ``train`` for ``epochs`` epochs, evaluating it on ``val`` after each; return the `Run`, whose
    model is in eval mode.

    ``train`` and ``val`` are loaders of batches ``(inputs, targets)``, ours or anybody's; datasets and pairs of images
    and labels become batches of 64. With None for ``val`` nothing is evaluated. ``scheduler`` is stepped after every
    epoch, or after every step if it comes from `each_step`. ``loss_fn(logits, targets)`` is the mean over the batch.
    ``after_epoch(run)`` is called after each epoch with the run so far, and ends the training by returning True; what
    is to happen at every step is a hook of the optimiser (``optimizer.register_step_pre_hook``; it has to return None).
    Shuffling and
    augmentation use a generator seeded from PyTorch's global random state: after `set_seed` a run can be repeated.

    With ``checkpoint=path`` everything needed to go on is written there after each epoch, in one step, and a later
    call with the same arguments goes on from it to the same weights, bit for bit; a warning says so where the batches
    come from what cannot be put back. A keyboard interrupt is raised again as `Interrupted`, with the completed epochs.
    Images of the profile "recorded" have a recorded training replayed.
    On a CPU, training takes one thread: see `mnist_helpers.device.set_threads`.

    Raises `TrainingDiverged` if the loss is not finite, `CheckpointError` if the checkpoint is damaged or belongs to
    another model or recipe, `ValueError` for arguments that make no sense.
    """
    train, val = _as_batches(train, val, device_of(model))
    every_step = getattr(scheduler, "each_step", False)
    _check(model, train, val, epochs, optimizer, scheduler, every_step, loss_fn)
    run = new_run(model, train, val, epochs, optimizer, scheduler, loss_fn, after_epoch)
    if run.card["profile"] == "recorded" and replay(run):
        return ended(run)
    if run.card["profile"] == "trace":
        first = islice(feed(train, device_of(model)), keeping.TRACE_STEPS)
        return traced(run, train_epoch(model, first, optimizer=optimizer, loss_fn=loss_fn,
                                       after_step=scheduler.step if every_step else None)[2])
    say_threads(device_of(model))
    kept = None if checkpoint is None else keeping.Checkpoint(checkpoint, run, optimizer, scheduler, train, val)
    if kept and kept.path.exists():
        kept.resume(epochs)
    rate = _rate(optimizer)

    def advance():
        nonlocal rate
        rate = _rate(optimizer)  # of the step just taken, not of the next one
        scheduler.step()

    began, done = time.monotonic(), len(run.history["seconds"])
    for epoch in range(done + 1, epochs + 1):
        bar = Bar(epoch, epochs, length_of(train), began, done)
        started = time.perf_counter()
        try:
            with bar:
                loss, accuracy, batch_losses = train_epoch(model, train, optimizer=optimizer, loss_fn=loss_fn, bar=bar,
                                                           after_step=advance if every_step else None)
                values = {"train_loss": loss, "train_accuracy": accuracy, "seconds": time.perf_counter() - started,
                          "lr": rate if every_step else _rate(optimizer)}
                result = None
                if val is not None:
                    result = evaluate(model, val, loss_fn=loss_fn)
                    values |= {"val_loss": result.loss, "val_accuracy": result.accuracy}
                bar.set_postfix_str(last_epoch({name: [value] for name, value in values.items()}))
            _check_weights(model)
            if epoch == 1 and result is not None and getattr(loss_fn, "func", loss_fn) is F.cross_entropy:
                check_loss(loss, result.logits.shape[1], values["lr"])
            run.add(values, batch_losses)
            if scheduler and not every_step:
                plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([values["val_loss"]] if plateau else []))
            if kept:
                kept.save()
            if after_epoch and after_epoch(run) is True:
                break
        except KeyboardInterrupt:
            print(f"interrupted: {len(run.history['seconds'])} of {epochs} epochs were completed"
                  + (f" and kept in {kept.path}" if kept else ""))
            raise Interrupted(run) from None
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"{error}, in epoch {epoch}. Try a smaller learning rate (it is {_rate(optimizer):g}), or check the "
                "inputs and the loss for NaN. The weights are unusable. Re-create the model.", run.history) from None
    return ended(run)


def _as_batches(train, val, device):
    """Whatever was given to train and to validate on as loaders; images in memory are moved to the device whole."""
    train = batches_of(train, shuffle=True)
    if val is not None:  # images are normalised as those trained on
        alike = {"normalize": train.normalize} if isinstance(train, Loader) else {}
        val = batches_of(val, shuffle=False, batch_size=500, **alike)
    for batches in (train, val):
        if isinstance(batches, Loader):
            batches.to(device)
    return train, val


def _check(model, train, val, epochs, optimizer, scheduler, every_step, loss_fn):
    steps = length_of(train)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    if steps == 0:
        raise ValueError("there are no batches to train on")
    for batches in (train, val):
        if isinstance(batches, Iterator) and epochs > 1:
            raise ValueError(f"a {type(batches).__name__} yields its batches once, and {epochs} epochs were asked for: "
                             "pass a DataLoader, or a list of the batches")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("LBFGS computes the loss several times a step; this loop does so once: use another optimiser")
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and val is None:
        raise ValueError("ReduceLROnPlateau follows the validation loss: pass validation images, or another scheduler")
    planned, all_steps = getattr(scheduler, "total_steps", None), (steps or 0) * epochs
    if isinstance(train, Loader):  # whose epochs may differ in length
        all_steps = train.steps(epochs)
    if planned and steps and planned != (all_steps if every_step else epochs):
        counted = f"after every step, {all_steps} times" if every_step else f"after every epoch, {epochs} times"
        raise ValueError(f"{type(scheduler).__name__} was made for {planned} steps and would be stepped {counted}: "
                         + ("give it that number" if every_step else "pass scheduler=each_step(scheduler)"))
    first = first_images(train, LOOK, device_of(model))
    if first is not None:
        labels = getattr(train, "labels", None)
        classes = None if labels is None or labels.ndim > 1 else int(labels.max()) + 1
        check_network(model, *first, loss_fn, classes)
    ours = {id(parameter) for parameter in model.parameters()}
    if not any(id(parameter) in ours for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError("the optimiser has none of this model's parameters: make it from model.parameters()")


def _check_weights(model):
    """The loss of a step is computed before its update: after the last step of an epoch nothing else would notice."""
    if not all(value.isfinite().all() for value in model.state_dict().values() if value.is_floating_point()):
        raise TrainingDiverged("the weights became NaN or infinite in the last step")


def _rate(optimizer):
    rate = optimizer.param_groups[0]["lr"]
    return rate.item() if isinstance(rate, torch.Tensor) else rate
