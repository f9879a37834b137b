"""The device, its threads, name and precision, and everything random: seeds, and states to save and restore."""

import functools
import os
import platform
import random
import re
from pathlib import Path

import numpy as np
import torch


def get_device(name: str | None = None) -> torch.device:
    """The `torch.device` called ``name`` (``"cpu"``, ``"cuda"``, ``"mps"``), by default CUDA if it is there, else the
    CPU.

    Apple's ``"mps"`` is taken only by name: in PyTorch 2.10, batch norm's gradients are wrong there where channels are
    last in memory (pytorch/pytorch issue 175189), as the challenges have them. Raises `ValueError` if the device is
    not there.
    """
    there = ["cuda"] * torch.cuda.is_available() + ["cpu"] + ["mps"] * torch.backends.mps.is_available()
    name = name or there[0]
    if str(name).split(":")[0] not in there:
        raise ValueError(f"there is no {name!r} device here; use one of {', '.join(there)}")
    return torch.device(name)


_threads = None  # as set_threads was told


def set_threads(count: int) -> None:
    """Have training and evaluation on a CPU use ``count`` threads, from now on.

    Without this call they use one (or ``OMP_NUM_THREADS``, where it is set). Networks as small as these gain little
    from a second thread, and wait for it several times as long where another program has its core; and with one thread
    they come to the recorded figures. Raises `ValueError` for a count below 1.
    """
    global _threads
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    _threads = count


def threads() -> int:
    """How many threads training and evaluation use on a CPU; see `set_threads`."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return _threads or (int(told) if told.isdigit() and int(told) else 1)


def on_few_threads(function):
    """``function(model, ...)``, on `threads` threads where the model is on a CPU, and afterwards as many as before."""
    @functools.wraps(function)
    def limited(model, *args, **options):
        before = torch.get_num_threads()
        if device_of(model).type == "cpu" and before != threads():
            torch.set_num_threads(threads())
        try:
            return function(model, *args, **options)
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)
    return limited


def device_of(model: torch.nn.Module) -> torch.device:
    """The device of the model's first parameter, the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def describe(device: torch.device) -> str:
    """The device in words: ``"cpu (AMD EPYC)"``, ``"cuda (NVIDIA T4)"``."""
    return f"{device.type} ({torch.cuda.get_device_name(device) if device.type == 'cuda' else _processor()})"


def _processor():
    """The processor's name where Linux tells it, or whatever else Python knows of it."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    names = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return names[0] if names else platform.processor() or platform.machine()


def fast_precision(device: torch.device) -> torch.dtype | None:
    """The precision to train in on ``device``: `torch.bfloat16` where it has units for it, else None, for float32.

    bfloat16 has float32's range and 8 bits of its precision. GPUs multiply it faster since Ampere, processors with
    AVX512_BF16 (AMD's since Zen 4, Intel's with AMX); elsewhere it is emulated, and slower.
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else None


def precision_name(precision: torch.dtype | None) -> str:
    """``"bfloat16"`` for `torch.bfloat16`; ``"float32"`` also for None."""
    return str(precision or torch.float32).removeprefix("torch.")


def set_seed(seed: int) -> None:
    """Seed PyTorch on every device, Python's `random` and NumPy, and have CUDA choose reproducible algorithms: same
    seed, same weights."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # it takes no larger one
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def random_state(device: torch.device) -> dict:
    """The global random states of PyTorch (on the CPU and on ``device``), of `random` and of NumPy, as plain data."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    state = {"cpu": torch.get_rng_state(), "python": [version, list(numbers), gauss],
             "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest]}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict, device: torch.device) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])
