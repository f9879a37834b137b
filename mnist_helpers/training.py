"""The training loop: `fit`, `train_epoch` and `evaluate`, plain functions for any model, optimiser and loss.

Data are pairs ``(images, labels)`` of tensors; `fit` moves them to the model's device whole and never waits for the
device inside an epoch except to refresh the progress bar, twice a second. Loss and accuracy are sums over images
divided by the number of images, so that a smaller last batch counts for what it is.
"""

import contextlib
import ctypes
import functools
import os
import platform
import re
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from .augment import Augment
from .data import normalize

REFRESH_SECONDS = 0.5
BLOCK_IMAGES = 1024  # gathered and augmented at a time


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite; ``history`` holds the epochs completed before."""

    def __init__(self, message, history=None):
        super().__init__(message)
        self.history = history


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used here: damaged, or made by another model or recipe."""


@dataclass(frozen=True)
class Evaluation:
    """What a model does on a set of images; ``logits`` is float32 ``(n, classes)`` on the CPU."""

    loss: float
    correct: int
    total: int
    logits: torch.Tensor = field(repr=False)

    @property
    def accuracy(self):
        return self.correct / self.total

    def __repr__(self):
        return f"accuracy {self.accuracy:.2%} ({self.correct:,} of {self.total:,}), loss {self.loss:.4f}"


# ---------------------------------------------------------------- devices and random states


def get_device(name=None):
    """The `torch.device` called ``name`` (``"cpu"``, ``"cuda"``, ``"mps"``), by default the fastest one there is.

    Raises `ValueError` if it is not there.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    name = name or there[0]
    if str(name).split(":")[0] not in there:
        raise ValueError(f"there is no {name!r} device here; use one of {', '.join(there)}")
    return torch.device(name)


def fast_precision(device):
    """The precision to train in on ``device``: `torch.bfloat16` where it has units for it, else None, for float32.

    bfloat16 has float32's range and 8 bits of its precision. GPUs multiply it faster since Ampere, processors with
    AVX512_BF16 (AMD's since Zen 4, Intel's with AMX); elsewhere it is emulated, and slower.
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else None


def precision_name(precision):
    """``"bfloat16"`` for `torch.bfloat16`; ``"float32"`` also for None."""
    return str(precision or torch.float32).removeprefix("torch.")


def set_seed(seed):
    """Seed PyTorch on every device, and have CUDA choose reproducible algorithms: same seed, same weights."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def device_of(model):
    """The device of the model's first parameter, the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def random_state(device):
    """PyTorch's global random states: of the CPU and, if it is another one, of ``device``."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state, device):
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


@contextlib.contextmanager
def evaluation_mode(model):
    """The model in eval mode; afterwards each module's own mode and the random states are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    device = device_of(model)
    state = random_state(device)
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        set_random_state(state, device)


# ---------------------------------------------------------------- what slows a CPU down


@contextlib.contextmanager
def uneven_norms_contiguous(model):
    """On several CPU threads, hand batch norms whose channels are no multiple of 16 contiguous inputs.

    Of a channels-last input, PyTorch's backward pass sums the gradients in one row of channels for each thread. Where
    a row does not fill the cache's lines, of 16 float32, neighbours share one and wait for each other: eight channels
    can then take longer than sixteen.
    """
    norms = []
    if device_of(model).type == "cpu" and torch.get_num_threads() > 1:
        norms = [module for module in model.modules()
                 if isinstance(module, torch.nn.BatchNorm2d) and module.num_features % 16]
    replaced = [vars(norm).get("forward") for norm in norms]  # None but where the user has set one
    for norm in norms:
        norm.forward = functools.partial(_contiguous_inside, norm.forward)
    try:
        yield
    finally:
        for norm, forward in zip(norms, replaced, strict=True):
            del norm.forward  # the class's shows again
            if forward is not None:
                norm.forward = forward


def _contiguous_inside(forward, inputs):
    """``forward(inputs)``, computed on contiguous tensors in both directions and handed on in the layout of ``inputs``,
    in which pooling and convolutions go on faster."""
    if inputs.is_contiguous():
        return forward(inputs)
    outputs = forward(inputs.contiguous())
    if outputs.requires_grad:
        outputs.register_hook(torch.Tensor.contiguous)
    return outputs.contiguous(memory_format=torch.channels_last)


@functools.cache
def keep_freed_memory():
    """Have glibc, where it is the C library, keep the memory of freed tensors for the next ones.

    By default it hands large blocks back to the system, after every step, and taking them again costs a page fault
    for each 4 kB: cheap on bare metal, dear in a virtual machine.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc, mmap_threshold, trim_threshold = ctypes.CDLL(None), -3, -1  # M_... in malloc.h
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the largest that it takes
        libc.mallopt(trim_threshold, 2**31 - 1)


# ---------------------------------------------------------------- one pass over the data


def evaluate(model, split, *, loss_fn=F.cross_entropy, batch_size=500, augment=None, normalize=normalize, seed=0):
    """The model's `Evaluation` on ``split``, a pair of images ``(n, ...)`` and integer labels ``(n,)``.

    ``loss_fn(logits, labels)`` is the mean over images. With ``augment`` the images are augmented first, with draws
    of their own that ``seed`` fixes. The model's modes, its device and the random states are left as they were.
    """
    images, labels = _checked(split)
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(seed)
    with evaluation_mode(model), torch.no_grad():
        logits = torch.cat([model(_inputs(batch.to(device), augment, normalize, generator, batch_size))
                            for batch in images.split(batch_size)]).float()
        labels = labels.to(device)
        loss = loss_fn(logits, labels).item()
        correct = (logits.argmax(1) == labels).sum().item()
    return Evaluation(loss, correct, len(labels), logits.cpu())


def train_epoch(model, split, *, optimizer, loss_fn=F.cross_entropy, batch_size=64, augment=None, normalize=normalize,
                generator=None, precision=None, after_step=None, bar=None):
    """Train on every image of ``split`` once, in random order; ``(loss, accuracy, batch_losses)``, as measured while
    the weights were changing and, where the model has dropout, with it on.

    ``generator``, on the model's device, shuffles and augments; ``after_step()`` is called after each step. With
    ``precision=torch.bfloat16`` the forward pass is under `torch.autocast`, and so is the augmentation, whose
    positions are then exact to the 8 bits of that type; the loss is computed in float32.

    Raises `TrainingDiverged`, naming the batch, if the loss is not finite.
    """
    device = device_of(model)
    images, labels = (tensor.to(device) for tensor in split)
    order = torch.randperm(len(labels), generator=generator, device=device)
    sizes = torch.tensor([len(batch) for batch in order.split(batch_size)], device=device)
    # Kept on the device, one number a batch, so that nothing waits for it.
    losses, correct = torch.zeros(len(sizes), device=device), torch.zeros(len(sizes), device=device)

    def measured(steps):
        """Mean loss and accuracy over the first ``steps`` batches; reading them is the only wait."""
        finite = losses[:steps].isfinite().tolist()
        if not all(finite):
            batch = finite.index(False) + 1
            raise TrainingDiverged(f"the loss became {losses[batch - 1].item()} in batch {batch} of {len(sizes)}")
        images_seen = sizes[:steps].sum()
        return (((losses * sizes)[:steps].sum() / images_seen).item(), (correct[:steps].sum() / images_seen).item())

    model.train()
    keep_freed_memory()
    last_refresh = time.monotonic()
    with uneven_norms_contiguous(model):
        batches = _batches((images, labels), order, batch_size, augment, normalize, generator, precision)
        for step, (inputs, targets) in enumerate(batches):
            with torch.autocast(device.type, precision, enabled=precision is not None):
                logits = model(inputs)
            loss = loss_fn(logits.float(), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if after_step:
                after_step()
            losses[step] = loss.detach()
            correct[step] = (logits.detach().argmax(1) == targets).sum()
            if bar is not None and time.monotonic() - last_refresh > REFRESH_SECONDS:
                bar.set_postfix_str("loss {:.4f}, accuracy {:.2%}".format(*measured(step + 1)), refresh=False)
                bar.update(step + 1 - bar.n)
                last_refresh = time.monotonic()
    loss, accuracy = measured(len(sizes))
    if bar is not None:
        bar.update(len(sizes) - bar.n)
    return loss, accuracy, losses.tolist()


def _batches(split, order, batch_size, augment, normalize, generator, precision):
    """The inputs and targets of one batch after another.

    They are gathered and augmented many at a time, which spares the calls; with an `Augment`, every batch gets the
    draws that it would have on its own.
    """
    images, labels = split
    for block in order.split(max(1, BLOCK_IMAGES // batch_size) * batch_size):
        with torch.autocast(images.device.type, precision, enabled=precision is not None):
            inputs = _inputs(images[block], augment, normalize, generator, batch_size)
        yield from zip(inputs.split(batch_size), labels[block].split(batch_size), strict=True)


def _inputs(images, augment, normalize, generator, batch_size):
    if type(augment) is Augment:  # a subclass may take no batch size
        images = augment(images, generator, batch_size)
    elif augment is not None:
        images = torch.cat([augment(batch, generator) for batch in images.split(batch_size)])
    return normalize(images)


def _checked(split):
    images, labels = split
    if len(images) != len(labels):
        raise ValueError(f"{len(images):,} images but {len(labels):,} labels: each image needs one label")
    if len(labels) == 0:
        raise ValueError("there are no images")
    return images, labels


# ---------------------------------------------------------------- training


def fit(model, train, val, *, epochs, optimizer, scheduler=None, scheduler_every="epoch", loss_fn=F.cross_entropy,
        batch_size=64, augment=None, normalize=normalize, precision=None, checkpoint=None, progress=True):
    """Train ``model`` on ``train`` for ``epochs`` epochs, evaluating it on ``val`` after each; return the history.

    ``train`` and ``val`` are pairs of images ``(n, ...)`` and integer labels ``(n,)``; with None for ``val``, nothing
    is evaluated. ``scheduler`` is stepped every ``"epoch"`` or every ``"step"``. ``loss_fn(logits, targets)`` is the
    mean over the batch. ``augment(images, generator)`` applies to training batches alone, ``normalize(images)`` to
    all. ``precision`` is that of the forward pass in training (`fast_precision`), by default float32; validation is in
    float32. Shuffling and augmentation use a generator seeded from PyTorch's global random state: after `set_seed` a
    run can be repeated bit for bit.

    The history is plain data: the lists ``train_loss``, ``train_accuracy`` (while training, see `train_epoch`),
    ``val_loss``, ``val_accuracy``, ``lr`` (of the epoch's last step) and ``seconds`` (of training alone), one entry an
    epoch; ``batch_loss``, one entry a step; the number of training ``images``; and ``device``, ``threads``,
    ``precision``, ``source`` and ``interrupted``.

    With ``checkpoint=path`` everything needed to go on is written there after each epoch, in one step, and a later
    call with the same arguments goes on from it to the same weights, bit for bit. A keyboard interrupt ends training
    and returns the history of the completed epochs.

    Raises `TrainingDiverged` if the loss is not finite, `CheckpointError` if the checkpoint is damaged or belongs to
    another model or recipe, `ValueError` for arguments that make no sense.
    """
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, not {epochs} and {batch_size}")
    if scheduler_every not in ("epoch", "step"):
        raise ValueError(f"scheduler_every must be 'epoch' or 'step', not {scheduler_every!r}")
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    if plateau and val is None:
        raise ValueError("ReduceLROnPlateau follows the validation loss: pass validation images, or another scheduler")
    if val is not None:
        _checked(val)
    images, labels = _checked(train)
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(torch.randint(2**62, ()).item())
    history = {name: [] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")}
    history |= {"batch_loss": [], "images": len(labels), "device": describe(device), "threads": torch.get_num_threads(),
                "precision": precision_name(precision),
                "source": getattr(train, "source", ""), "interrupted": False}
    run = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        recipe = _recipe(**run, scheduler_every=scheduler_every, loss_fn=loss_fn, batch_size=batch_size,
                         augment=augment, normalize=normalize, precision=precision, train=train, val=val)
        if checkpoint.exists():
            history = _resume(checkpoint, recipe, epochs, run, generator, device)
    train = images.to(device), labels.to(device)
    if val is not None:
        val = tuple(tensor.to(device) for tensor in val)
    steps = -(-len(labels) // batch_size)
    rate = None

    def advance():
        nonlocal rate
        rate = _lr(optimizer)  # of the step just taken, not of the next one
        scheduler.step()

    for epoch in range(len(history["seconds"]) + 1, epochs + 1):
        bar = tqdm(total=steps, desc=f"epoch {epoch}/{epochs}", disable=not progress, file=sys.stdout,
                   bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}{postfix}", mininterval=0.2)
        started = time.perf_counter()
        try:
            with bar:
                loss, accuracy, batch_losses = train_epoch(
                    model, train, optimizer=optimizer, loss_fn=loss_fn, batch_size=batch_size, augment=augment,
                    normalize=normalize, generator=generator, precision=precision, bar=bar if progress else None,
                    after_step=advance if scheduler and scheduler_every == "step" else None)
                seconds = time.perf_counter() - started
                text, result = f"loss {loss:.4f}, accuracy {accuracy:.2%}", None
                if val is not None:
                    result = evaluate(model, val, loss_fn=loss_fn, normalize=normalize)
                    text += f"; validation {result.loss:.4f}, {result.accuracy:.2%}"
                bar.set_postfix_str(text)
            for name, value in (("train_loss", loss), ("train_accuracy", accuracy), ("seconds", seconds),
                                ("lr", _lr(optimizer) if rate is None else rate)):
                history[name].append(value)
            if result:
                history["val_loss"].append(result.loss)
                history["val_accuracy"].append(result.accuracy)
            history["batch_loss"] += batch_losses
            if scheduler and scheduler_every == "epoch":
                scheduler.step(*([result.loss] if plateau else []))
            if checkpoint is not None:
                _save(checkpoint, recipe, run, generator, device, history)
        except KeyboardInterrupt:
            history["interrupted"] = True
            print(f"interrupted: the history has the {len(history['seconds'])} epochs completed before")
            return history
        except TrainingDiverged as error:
            raise TrainingDiverged(
                f"{error}, in epoch {epoch}. Try a smaller learning rate (it is {_lr(optimizer):g}), gradient clipping,"
                " or check the inputs and the loss for NaN. The weights are spoilt: create the model anew.",
                history) from None
    return history


def describe(device):
    """The device in words: ``"cpu (AMD EPYC)"``, ``"cuda (NVIDIA T4)"``."""
    return f"{device.type} ({torch.cuda.get_device_name(device) if device.type == 'cuda' else _processor()})"


def _processor():
    """The processor's name where Linux tells it, or whatever else Python knows of it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _lr(optimizer):
    return optimizer.param_groups[0]["lr"]


# ---------------------------------------------------------------- checkpoints


# What schedulers change as they go; everything else in their state is the recipe.
SCHEDULER_PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "best",
                      "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"}


def _recipe(*, model, optimizer, scheduler, scheduler_every, loss_fn, batch_size, augment, normalize, precision, train,
            val):
    """What two runs must share for one to continue the other, as ``{name: text}``.

    The starting weights are represented by the seed, since an interrupted `fit` is called again with weights
    that have moved on.
    """
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)  # alone does not note the first rate

    def options(group):  # schedulers move the rate, and some the momentum or the betas
        rate = optimizer.defaults.get("lr") if plateau else group.get("initial_lr", group.get("lr"))
        kept = {name: value for name, value in group.items() if name not in ("params", "momentum", "betas")}
        return kept | {"lr": rate}

    schedule = _settings(scheduler.state_dict()) if scheduler else None
    images, labels = train
    digest = zlib.crc32(labels.cpu().numpy().tobytes(), zlib.crc32(images.cpu().numpy().tobytes()))
    recipe = {
        "model": repr(model),
        "optimizer": f"{type(optimizer).__name__} {optimizer.defaults} "
                     f"{[options(group) for group in optimizer.param_groups]}",
        "scheduler": f"{type(scheduler).__name__} {schedule} every {scheduler_every}",
        "loss": getattr(loss_fn, "__name__", repr(loss_fn)),
        "batch_size": str(batch_size),
        "augmentation": repr(augment),
        "normalization": getattr(normalize, "__name__", repr(normalize)),
        "precision": str(precision or torch.float32),
        "training images": f"{len(labels)} (checksum {digest:08x})",
        "validation images": "none" if val is None else str(len(val[1])),
        "seed": str(torch.initial_seed()),
        "device": device_of(model).type,
    }
    # A function shows its address in memory, which is another one in the next process.
    return {name: re.sub(r" at 0x[0-9a-fA-F]+", "", text) for name, text in recipe.items()}


def _settings(state):
    """The state of a scheduler, or of a list of them, without what changes as it goes."""
    if isinstance(state, dict):
        plain = (int, float, str, list, tuple, dict, type(None))
        return {key: _settings(value) for key, value in state.items()
                if key not in SCHEDULER_PROGRESS and isinstance(value, plain)}
    return [_settings(each) for each in state] if isinstance(state, list | tuple) else state


def _save(path, recipe, run, generator, device, history):
    """Write a checkpoint in one step, so that being killed here leaves the previous one."""
    content = {name: part.state_dict() for name, part in run.items() if part is not None}
    content |= {"recipe": recipe, "history": history, "generator": generator.get_state(),
                "random_state": random_state(device)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _resume(path, recipe, epochs, run, generator, device):
    """Load a checkpoint into the run's parts and return its history."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        theirs = content["recipe"]
    except Exception as error:  # torch.load raises whatever the damage makes it stumble over
        raise CheckpointError(f"{path} is not a checkpoint of `fit`, or is damaged ({type(error).__name__}). Delete it "
                              "to start anew, or use another path.") from error
    differences = [f"  {name}: {theirs.get(name)} there, {ours} here" for name, ours in recipe.items()
                   if theirs.get(name) != ours]
    if differences:
        raise CheckpointError(f"{path} was made by another run:\n" + "\n".join(differences) +
                              "\nUse another path, or delete it to start anew.")
    done = len(content["history"]["seconds"])
    if done > epochs:
        raise CheckpointError(f"{path} has {done} epochs, and {epochs} were asked for. Use another path, or delete it.")
    for name, part in run.items():
        if part is not None:
            part.load_state_dict(content[name])
    generator.set_state(content["generator"])
    set_random_state(content["random_state"], device)
    print(f"going on from {path.name}: {done} of {epochs} epochs are done")
    return content["history"]
