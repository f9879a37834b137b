"""The two remedies for slow CPUs: what they do, and that they leave nothing behind."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mnist_helpers as mh
from mnist_helpers import cpu, train
from mnist_helpers.data import Split


def epoch(model, tiny):
    train.train_epoch(model, mh.Loader(Split(*tiny)), optimizer=torch.optim.SGD(model.parameters(), lr=0.01))


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_batch_norms_that_share_cache_lines_are_fed_contiguous_images(tiny, two_threads, monkeypatch):
    """... and gradients, on several threads, and hand on channels-last ones; to the same weights, and not
    afterwards."""
    def trained(threads):
        torch.set_num_threads(threads)
        mh.set_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16),
                              nn.Conv2d(16, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
        model(torch.zeros(2, 1, 28, 28))
        model = model.to(memory_format=torch.channels_last)
        fed, gradients, handed_on = {}, {}, {}

        def batch_norm(inputs, *arguments):
            outputs = compute(inputs, *arguments)
            fed[inputs.shape[1]] = inputs.is_contiguous()
            outputs.grad_fn.register_prehook(
                lambda grads: gradients.update({inputs.shape[1]: grads[0].is_contiguous()}))
            return outputs

        for norm in filter(lambda layer: isinstance(layer, nn.BatchNorm2d), model):
            norm.register_forward_hook(lambda norm, _, outputs: handed_on.update(
                {norm.num_features: outputs.is_contiguous(memory_format=torch.channels_last)}))
        monkeypatch.setattr(F, "batch_norm", batch_norm)
        with cpu.contiguous_norms(model):
            epoch(model, tiny)
        assert all(handed_on.values())
        during = dict(fed)
        assert gradients == during
        epoch(model, tiny)
        return model, during, fed

    compute = F.batch_norm
    one, during, _ = trained(threads=1)
    assert during == {8: False, 16: False, 20: False}
    two, during, afterwards = trained(threads=2)
    assert during == {8: True, 16: False, 20: True}
    assert afterwards == {8: False, 16: False, 20: False}, "a training changes no module's forward by itself"
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_a_norms_own_forward_is_used_and_comes_back(network, tiny, two_threads):
    """Users wrap a layer's forward to look at it; training must neither pass it by nor take it away."""
    model, calls = network(), []
    norm = model[1]
    plain = norm.forward

    def forward(inputs):
        calls.append(len(inputs))
        return plain(inputs)

    norm.forward = forward
    with cpu.contiguous_norms(model):
        epoch(model, tiny)
    assert sum(calls) == 100 and norm.forward is forward


@pytest.mark.skipif(sys.platform != "linux", reason="how the C library keeps memory is set with glibc's `mallopt`")
def test_freed_memory_is_kept_for_the_next_step_where_that_is_asked_for():
    """Sixteen blocks of 4 MB, taken and freed again and again: only the first time do they cost page faults."""
    script = """
import resource, torch
from mnist_helpers import cpu
cpu.keep_freed_memory()
faults = []
for step in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**20) for _ in range(16)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[4:]))
"""
    # Without: 16,384 for each of the four steps that are counted. A few blocks may still be given back once.
    result = subprocess.run([sys.executable, "-c", script], check=True,
                            capture_output=True)
    assert int(result.stdout) < 16_384
