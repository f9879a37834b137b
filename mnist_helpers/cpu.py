"""What slows a CPU down, and two remedies to call where speed is the subject; nothing here runs by itself."""

import contextlib
import ctypes
import functools
import platform
import sys

import torch

from .device import device_of


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc, where it is the C library, keep the memory of freed tensors for the next ones.

    By default it hands large blocks back to the system, after every step, and taking them again costs a page fault
    for each 4 kB: cheap on bare metal, dear in a virtual machine. It holds for the whole process, to its end.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc, mmap_threshold, trim_threshold = ctypes.CDLL(None), -3, -1  # M_... in malloc.h
        libc.mallopt(mmap_threshold, 32 * 2**20)  # the largest that it takes
        libc.mallopt(trim_threshold, 2**31 - 1)


@contextlib.contextmanager
def contiguous_norms(model: torch.nn.Module):
    """On several CPU threads, give contiguous inputs to batch norms whose channel count is not a multiple of 16.

    Of a channels-last input, PyTorch's backward pass sums the gradients in one row of channels for each thread. Where
    a row does not fill the cache's lines, of 16 float32, neighbours share one and wait for each other: eight channels
    can then take longer than sixteen. Within the context these layers' ``forward`` is replaced.
    """
    norms = []
    if device_of(model).type == "cpu":
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
    if torch.get_num_threads() == 1 or inputs.is_contiguous():
        return forward(inputs)
    outputs = forward(inputs.contiguous())
    if outputs.requires_grad:
        outputs.register_hook(torch.Tensor.contiguous)
    return outputs.contiguous(memory_format=torch.channels_last)
