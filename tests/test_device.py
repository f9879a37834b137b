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


def test_mps_is_taken_only_by_name(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert mh.get_device() == CPU and mh.get_device("mps").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert mh.get_device().type == "cuda"


@pytest.fixture
def three_threads(monkeypatch):
    """Three threads for everything but training, and nobody has said how many that may take."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(device, "_threads", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


def test_training_and_evaluation_use_one_thread_or_as_many_as_told(three_threads, monkeypatch):
    used = []

    class Watched(torch.nn.Linear):
        def forward(self, inputs):
            used.append(torch.get_num_threads())
            return super().forward(inputs.flatten(1))

    def trained_and_evaluated():
        used.clear()
        model, data = Watched(4, 10), (torch.randn(20, 1, 2, 2), torch.arange(20) % 10)
        mh.fit(model, data, None, epochs=1, optimizer=torch.optim.SGD(model.parameters(), 0.1))
        mh.evaluate(model, data)
        assert torch.get_num_threads() == 3  # as before
        return set(used)

    assert trained_and_evaluated() == {1}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert trained_and_evaluated() == {2}
    mh.set_threads(4)
    assert trained_and_evaluated() == {4}
    with pytest.raises(ValueError, match="at least 1"):
        mh.set_threads(0)


def test_the_number_of_threads_comes_back_after_an_error(three_threads):
    with pytest.raises(ValueError):
        mh.evaluate(torch.nn.Linear(2, 2), [])
    assert torch.get_num_threads() == 3


def test_bfloat16_is_fast_only_where_there_are_units_for_it(monkeypatch):
    for there, precision in ((True, torch.bfloat16), (False, None)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda there=there: there)
        assert device.fast_precision(CPU) == precision
    assert device.fast_precision(torch.device("mps")) is None
    for capability, precision in (((7, 5), None), ((8, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        assert device.fast_precision(torch.device("cuda")) == precision
    assert [device.precision_name(each) for each in (None, torch.bfloat16)] == ["float32", "bfloat16"]
