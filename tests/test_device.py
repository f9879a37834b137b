"""Devices, precisions, seeds and random states."""

import random

import numpy as np
import pytest
import torch

import mnist_helpers as mh
from mnist_helpers import device

CPU = torch.device("cpu")


def draws():
    return [torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand(3).tolist(), np.random.randn()]


def test_a_seed_fixes_every_generator_and_the_algorithms(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    mh.set_seed(3)
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    first = draws()
    mh.set_seed(3)
    assert draws() == first
    mh.set_seed(2**40)  # numpy takes no seed as large
    assert all(ours != theirs for ours, theirs in zip(draws(), first, strict=True))


def test_random_states_come_back_also_from_a_file_of_plain_data(tmp_path):
    draws()  # leaves half of a pair of normal draws behind
    torch.save(device.random_state(CPU), tmp_path / "state.pt")
    first = draws()
    device.set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert draws() == first


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"tpu.*cpu"):
        mh.get_device("tpu")
    assert mh.get_device("cpu") == CPU and str(CPU) in device.describe(CPU)
    assert device.device_of(torch.nn.ReLU()) == CPU
    assert device.device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")


def test_bfloat16_is_fast_only_where_there_are_units_for_it(monkeypatch):
    for there, precision in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        assert device.fast_precision(CPU) == precision
    assert device.fast_precision(torch.device("mps")) is None
    for capability, precision in (((7, 5), None), ((8, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert device.fast_precision(torch.device("cuda")) == precision
    assert [device.precision_name(each) for each in (None, torch.bfloat16)] == ["float32", "bfloat16"]
