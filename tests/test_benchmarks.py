"""The benchmarks' arithmetic on measurements made up by hand, and that both sides of a comparison do the same work."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import scipy.stats
import torch

import mnist_helpers as mh
from benchmarks import __main__ as command
from benchmarks import epoch, growth, limit, pipelines, startup, time_to_accuracy
from mnist_helpers import data, results
from mnist_helpers.summary import count_parameters


def test_ratios_are_taken_within_a_round():
    def timing(seconds, accuracy=0.9):
        return {"seconds": seconds, "val_accuracy": accuracy}

    rounds = [{"published": timing(20), "float32": timing(4)}, {"published": timing(90), "float32": timing(30, 0.8)},
              {"published": timing(30), "float32": timing(5)}]
    (table,) = epoch.tables([{"case": "a", "images": 9, "workers": 2, "rounds": rounds}]).values()
    assert table.rows == [["a", "published, cpu, 2 workers", "30.0", "1.0x [1.0, 1.0]", "90.00 [90.00, 90.00]"],
                          ["a", "ours, float32", "5.0", "5.0x [3.0, 6.0]", "86.67 [80.00, 90.00]"]]


def test_start_up_is_told_beyond_torchs_own():
    measured = [dict(zip(startup.STEPS, values, strict=True)) for values in ((2, 3, 4), (1, 2.5, 9), (3, 3.5, 5))]
    (table,) = startup.tables(measured).values()
    assert table.rows == [
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
    """Without augmentation the published tensor is ours: same images, none of them for validation, same scaling."""
    images = pipelines.published_dataset("iteration 5", 20)
    images.dataset.transform = pipelines.transforms.Compose(pipelines.NORMALIZE)
    ours = mh.normalize(mh.load_mnist(verbose=False).train.images[:20])
    assert torch.allclose(torch.stack([image for image, label in images]), ours, atol=1e-6)
    pipelines.published_dataset.cache_clear()


def test_an_epoch_is_measured_on_both_sides(mnist_root):
    measured = epoch.measure("iteration 5", 192, repeats=2)
    assert measured["workers"] in (0, 1, 2) and len(measured["rounds"]) == 2
    assert {"published", "cpu, float32"} <= set(measured["rounds"][0])
    assert all(each["seconds"] > 0 for side in measured["rounds"] for each in side.values())


def test_the_operations_of_a_step_are_those_counted_by_hand(mnist_root):
    """Lesson 5's network: a multiplication and an addition for each weight at each position of its output; backwards
    twice that, except in the first layer, whose input needs no gradient."""
    measured = limit.step("iteration 5", None, repeats=1)
    model, work, first = pipelines.network("iteration 5"), 0, []

    def count(module, inputs, output):
        nonlocal work
        operations = 2 * module.weight.numel() * (output[0].numel() // len(module.weight))
        work += operations * (3 if first else 2)
        first.append(module)

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    model(torch.zeros(1, 1, 28, 28))
    grid = 2 * 6 * 28**2  # the augmentation: a 2x3 matrix for each pixel
    assert measured["flops"] == pytest.approx(64 * (work + grid), rel=1e-4)  # the rest is products of 3x3 matrices
    assert sum(share for _, share in measured["operators"]) == pytest.approx(1)


def test_limits_are_told_as_shares():
    measured = {"rates": {"float32": 200.0, "memory": 10.0}, "steps": [
        {"case": "a", "precision": "float32", "flops": 3e9, "seconds": 0.03, "operators": [("aten::mm", 0.75)]}]}
    steps, operators = limit.tables(measured).values()
    assert steps.rows == [["a", "float32", "3.00", "30.0", "100", "200", "50%"]]
    assert operators.rows == [["`aten::mm`", "75%"]]


def test_a_line_is_fitted_as_scipy_fits_it():
    x, y = [1.0, 2.0, 4.0, 8.0], [3.1, 4.9, 9.2, 16.8]
    fit = scipy.stats.linregress(x, y)
    assert growth.line(x, y) == pytest.approx((fit.intercept, fit.slope, fit.rvalue**2))


def test_growth_is_measured_in_processes_of_their_own(mnist_root, monkeypatch):
    monkeypatch.setattr(growth, "lesson_peak", lambda: 900.0)
    grown = growth.run(repeats=1, growing={"images": [640, 1_280]})
    assert [(point["images"], point["steps"]) for point in grown["images"]] == [(640, 10), (1_280, 20)]
    ((caption, table),) = growth.tables(grown).items()
    assert "900 MB" in caption
    assert table.rows[0][:2] == ["images", "640 to 1,280"]


def test_time_to_accuracy_is_scaled_and_compared_within_a_round():
    measured = {"workers": 1, "images": 55_000, "published": [40.0, 60.0],
                "cpu": [{"seconds": 10.0, "val_accuracy": 0.994}, {"seconds": 12.0, "val_accuracy": 0.996}]}
    (table,) = time_to_accuracy.tables(measured).values()
    assert table.rows[0][:2] == ["published recipe, cpu", "15 x 50.0 = 750"]
    assert table.rows[1][:4] == ["ours, cpu", "11.0 [10.0, 12.0]", "68x [60, 75]", "99.50"]


def test_what_is_timed_is_the_recipe_of_the_notebook():
    recipe = time_to_accuracy.recipe()
    compile(recipe, "recipe", "exec")
    assert "class SpeedRun(nn.Module)" in recipe and "history = train(model" in recipe
    assert "mnist.test" not in recipe and "plots" not in recipe, "neither the test nor a figure is timed"


def test_a_timing_begins_with_the_process_and_ends_with_the_training(monkeypatch):
    """On the device that was asked for, whatever the machine has."""
    monkeypatch.setattr(time_to_accuracy, "recipe", lambda: """
import torch
import mnist_helpers as mh
from types import SimpleNamespace
mnist = SimpleNamespace(val=SEED)
assert mh.get_device() == torch.device("meta"), mh.get_device()
model = torch.nn.Linear(1, 1)
time.sleep(1)
mh.evaluate = lambda model, val: time.sleep(2) or SimpleNamespace(accuracy=val / 10)
""")
    started = time.perf_counter()
    measured = time_to_accuracy.timed(seed=7, device="meta")
    assert measured["val_accuracy"] == 0.7
    assert 1 < measured["seconds"] < time.perf_counter() - started - 2


def test_measurements_are_written_where_they_are_asked_for(monkeypatch, tmp_path, capsys):
    table = results.Table(["what"], [["all well"]])
    stub = SimpleNamespace(run=lambda repeats: [repeats], tables=lambda measured: {f"Repeats {measured}": table})
    monkeypatch.setattr(command, "BENCHMARKS", {"stub": stub})
    monkeypatch.setattr(data, "project_root", lambda: tmp_path)
    monkeypatch.delenv("MNIST_PROFILE", raising=False)
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text("\n".join(command.MARKERS))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--repeats", "3", "--save", "--json", str(tmp_path / "own.json")])
    command.main()
    for path in (tmp_path / "own.json", tmp_path / "results" / "benchmarks.json"):
        assert json.loads(path.read_text())["stub"]["measured"] == [3]
    assert "Repeats [3]" in (tmp_path / "README.md").read_text() and "all well" in capsys.readouterr().out


def test_the_readme_shows_the_benchmarks_as_measured():
    readme = (data.project_root() / "README.md").read_text(encoding="utf-8")
    measured = json.loads(command.results_file().read_text())
    assert set(measured) == set(command.BENCHMARKS)
    assert command.readme_section(readme, measured) == readme, "run: python -m benchmarks --save"


@pytest.mark.parametrize(("arguments", "said"), [(["epochs"], "there is no benchmark epochs"),
                                                 (["--repeats", "0"], "--repeats must be at least 1"),
                                                 (["--json", "nowhere/x.json"], "there is no folder"),
                                                 (["--json", "tests"], "tests is a folder, not a file"),
                                                 (["startup"], "only the full profile is measured")])
def test_the_command_line_refuses_what_it_does_not_know(arguments, said):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=data.project_root(),
                          env=os.environ | {"MNIST_PROFILE": "quick"}, capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr
