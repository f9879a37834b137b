"""The benchmarks' arithmetic on measurements made up by hand, and that both sides of a comparison do the same work."""

import subprocess
import sys

import pytest
import torch

import mnist_helpers as mh
from benchmarks import epoch, pipelines, startup
from mnist_helpers import data
from mnist_helpers.summary import count_parameters


def test_ratios_are_taken_within_a_round():
    def timing(seconds, accuracy=0.9):
        return {"seconds": seconds, "val_accuracy": accuracy}

    rounds = [{"published": timing(20), "float32": timing(4)}, {"published": timing(90), "float32": timing(30, 0.8)},
              {"published": timing(30), "float32": timing(5)}]
    published, ours = epoch.table([{"case": "a", "images": 9, "workers": 2, "rounds": rounds}]).rows
    assert published == ["a", "published, 2 workers", "30.0", "1.0x [1.0, 1.0]", "90.00 %"]
    assert ours == ["a", "ours, float32", "5.0", "5.0x [3.0, 6.0]", "86.67 %"]


def test_start_up_is_told_beyond_torchs_own():
    measured = [dict(zip(startup.STEPS, values, strict=True)) for values in ((2, 3, 4), (1, 2.5, 9), (3, 3.5, 5))]
    assert startup.table(measured).rows == [
        ["import torch", "2.00 s [1.00, 3.00]", "0.00 s"],
        ["import mnist_helpers", "3.00 s [2.50, 3.50]", "1.00 s"],
        ["import mnist_helpers, load_mnist()", "5.00 s [4.00, 9.00]", "2.00 s"]]


@pytest.mark.parametrize(("case", "parameters"), [("iteration 5", 18_422), ("six convolutions", 19_114)])
def test_the_networks_are_those_of_the_notebooks(case, parameters):
    assert count_parameters(pipelines.network(case)) == parameters
    first, second = (next(pipelines.network(case).parameters()) for _ in range(2))
    assert torch.equal(first, second), "both sides start from the same weights"


@pytest.mark.parametrize("case", pipelines.CASES)
def test_both_sides_train_on_as_many_images_in_as_many_batches(case, mnist_root, monkeypatch):
    batches = []
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    linear.register_forward_hook(lambda module, inputs, logits: batches.append(tuple(inputs[0].shape)))
    monkeypatch.setenv("MNIST_PROFILE", "full")
    pipelines.published_epoch(case, linear, 300, 0)
    theirs = batches.copy()
    batches.clear()
    pipelines.our_epoch(case, linear, 300)
    assert theirs == batches and sum(shape[0] for shape in batches) == 300
    pipelines.mnist.cache_clear()


def test_both_sides_start_from_the_same_pixels(mnist_root):
    """Without augmentation the published tensor is ours: same scaling, same normalisation."""
    full = pipelines.published_dataset("iteration 5", 20).dataset
    full.transform = pipelines.transforms.Compose(pipelines.NORMALIZE)
    ours = mh.normalize(data._read_mnist(data.fetch())[0][0][:20])
    assert torch.allclose(torch.stack([full[number][0] for number in range(20)]), ours, atol=1e-6)
    pipelines.published_dataset.cache_clear()


def test_the_command_line_refuses_what_it_does_not_know():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "startup", "--images", "9"], cwd=data.project_root(),
                          capture_output=True, text=True)
    assert done.returncode == 2 and "--images is for the benchmark of an epoch" in done.stderr
