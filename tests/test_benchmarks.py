"""The benchmarks' arithmetic on measurements made up by hand, and that both sides of a comparison do the same work."""

import contextlib
import json
import os
import sys
import time
from types import SimpleNamespace

import project as small
import psutil
import pytest
import scipy.stats
import torch

import mnist_helpers as mh
from benchmarks import __main__ as command
from benchmarks import (
    busy,
    epoch,
    growth,
    job,
    levers,
    limit,
    loading,
    pipelines,
    processors,
    startup,
    time_to_accuracy,
)
from mnist_helpers import data
from mnist_helpers.course import records
from mnist_helpers.course.tables import Table
from mnist_helpers.layers import count_parameters


def test_ratios_are_taken_within_a_round():
    def timing(seconds, accuracy=0.9):
        return {"seconds": seconds, "val_accuracy": accuracy}

    def one_round(published, ours, on_a_gpu, accuracy=0.9):
        return {"published, cpu": timing(published), "published, cuda": timing(10),
                "ours, cpu, float32, tuned": timing(ours, accuracy), "ours, cuda, bfloat16, tuned": timing(on_a_gpu)}

    rounds = [one_round(20, 4, 1), one_round(90, 30, 5, 0.8), one_round(30, 5, 2)]
    (table,) = epoch.tables([{"case": "a", "images": 9, "workers": {"cpu": 2, "cuda": 1}, "rounds": rounds}]).values()
    assert table.rows == [["a", "published, cpu, workers: 2", "30.0", "1.0x [1.0, 1.0]", "90.00 [90.00, 90.00]"],
                          ["a", "published, cuda, workers: 1", "10.0", "1.0x [1.0, 1.0]", "90.00 [90.00, 90.00]"],
                          ["a", "ours, cpu, float32, tuned", "5.0", "5.0x [3.0, 6.0]", "86.67 [80.00, 90.00]"],
                          ["a", "ours, cuda, bfloat16, tuned", "2.0", "5.0x [2.0, 10.0]", "90.00 [90.00, 90.00]"]]


def test_start_up_is_told_beyond_torchs_own():
    measured = [dict(zip(startup.STEPS, values, strict=True))
                for values in ((2, 3, 4, 5), (1, 2.5, 9, 5), (3, 3.5, 5, 5))]
    (table,) = startup.tables(measured).values()
    assert table.rows == [
        ["import torch", "2.00 s [1.00, 3.00]", "0.00 s"],
        ["import mnist_helpers", "3.00 s [2.50, 3.50]", "1.00 s"],
        ["import mnist_helpers, load_mnist()", "5.00 s [4.00, 9.00]", "2.00 s"],
        ["python -m mnist_helpers doctor", "5.00 s [5.00, 5.00]", "3.00 s"]]
    (table,) = startup.tables([each | {"import mnist_helpers": 0.01} for each in measured]).values()
    assert table.rows[1] == ["import mnist_helpers", "0.01 s [0.01, 0.01]", "torch is not imported"]


@pytest.mark.slow
def test_a_step_of_the_start_is_timed_whatever_it_prints(mnist_root):
    assert startup.seconds(startup.STEPS["python -m mnist_helpers doctor"]) > 0.1


def test_a_busy_program_is_compared_with_a_quiet_machine_round_by_round():
    measured = [{"1 thread, quiet": 10, "2 threads, quiet": 8, "1 thread, beside a busy program": busy_1,
                 "2 threads, beside a busy program": busy_2} for busy_1, busy_2 in ((11, 32), (10, 40), (15, 24))]
    (table,) = busy.tables(measured).values()
    assert [row[2] for row in table.rows] == ["1.0x", "1.0x", "1.1x", "4.0x"]


def test_the_busy_program_is_busy_and_ends():
    with busy.busy_program() as process:
        time.sleep(0.5)
        assert psutil.Process(process.pid).cpu_times().user > 0.05
    assert process.poll() is not None


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
    pipelines.our_epoch(case, linear, pipelines.split(300))
    assert theirs == batches and sum(shape[0] for shape in batches) == 300
    pipelines.mnist.cache_clear()


def test_both_sides_start_from_the_same_pixels(mnist_root):
    """Without augmentation the published tensor is ours: same images, none of them for validation, same scaling."""
    images = pipelines.published_dataset("iteration 5", 20)
    images.dataset.transform = pipelines.transforms.Compose(pipelines.NORMALIZE)
    ours = mh.normalize(mh.load_mnist(verbose=False).train.images[:20])
    assert torch.allclose(torch.stack([image for image, label in images]), ours, atol=1e-6)
    pipelines.published_dataset.cache_clear()


def test_the_untuned_epoch_is_trained_as_pytorch_has_it_by_default(mnist_root, monkeypatch):
    told, given = {}, []

    @contextlib.contextmanager
    def contiguous_norms(model):
        given.append(model)
        yield

    def look(model, batches, *, optimizer):
        told[optimizer.defaults["fused"]] = model.conv2.weight.is_contiguous(), model in given

    monkeypatch.setattr(mh.cpu, "contiguous_norms", contiguous_norms)
    monkeypatch.setattr(mh.train, "train_epoch", look)
    monkeypatch.setattr(epoch, "timed", lambda run, *arguments: run(*arguments))
    for device, precision, tuned in epoch.sides("cpu").values():
        epoch.our_epoch("iteration 5", 64, device, precision, tuned, seed=0)
    assert told == {None: (True, False), True: (False, True)}


def test_the_published_epoch_gets_the_workers_that_serve_it_best(monkeypatch):
    """By times that are made up: the first with a number of workers pays for their start."""
    asked = []

    def published(case, images, workers, device):
        asked.append((images, workers))
        return {"seconds": {0: 9, 1: 5, 2: 3, 4: 4}[workers] + (9 if asked.count((images, workers)) == 1 else 0)}

    monkeypatch.setattr(epoch, "published", published)
    monkeypatch.setattr(epoch.os, "cpu_count", lambda: 4)
    assert epoch.best_workers("iteration 5", 4_000) == 2
    assert sorted(set(asked)) == [(640, 0), *((1_000, workers) for workers in (0, 1, 2, 4))]
    epoch.best_workers.cache_clear()


@pytest.mark.slow
def test_an_epoch_is_measured_on_both_sides(mnist_root, monkeypatch):
    monkeypatch.setattr(epoch, "best_workers", lambda case, images, device: 0)
    measured = epoch.measure("iteration 5", 192, repeats=2)
    assert len(measured["rounds"]) == len(measured["loading"]["rounds"]) == 2
    assert {"published, cpu", "ours, cpu, float32, as in the lessons", "ours, cpu, float32, tuned"} <= set(
        measured["rounds"][0])
    assert all(each["seconds"] > 0 for side in measured["rounds"] for each in side.values())
    assert epoch.process(False).submit(os.getpid).result() != epoch.process(True).submit(os.getpid).result()


def test_loaders_are_compared_round_by_round_on_the_same_images(mnist_root, monkeypatch):
    rounds = [{loading.OURS: 1, "other": 4}, {loading.OURS: 2, "other": 4}, {loading.OURS: 4, "other": 4}]
    alone = [["a", "mh.Loader", "2", "1.0x [1.0, 1.0]"], ["a", "other", "4", "2.0x [1.0, 4.0]"]]
    measured = {"case": "a", "workers": {}, "rounds": [{}], "loading": {"images": 1_000_000, "rounds": rounds}}
    assert [table.rows for table in epoch.tables([measured]).values()] == [[], alone]

    batches = {name: [(len(targets), targets.sum().item()) for _, targets in loader]
               for name, loader in loading.sources("iteration 5", 130).items()}
    assert {tuple(size for size, _ in each) for each in batches.values()} == {(64, 64, 2)}
    assert len({sum(labels for _, labels in each) for each in batches.values()}) == 1
    (measured,) = loading.measure("iteration 5", 130, repeats=1)["rounds"]
    assert set(measured) == set(batches) and all(value > 0 for value in measured.values())
    pipelines.published_dataset.cache_clear()
    pipelines.mnist.cache_clear()


def test_the_operations_of_a_step_are_those_counted_by_hand(mnist_root, monkeypatch):
    """Lesson 5's network: a multiplication and an addition for each weight at each position of its output; backwards
    twice that, except in the first layer, whose input needs no gradient."""
    monkeypatch.setattr(limit, "STEPS", 4)
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
    assert sum(measured["operators"].values()) < measured["profiled_seconds"]


def test_what_lies_between_the_operators_is_not_theirs():
    factor = torch.randn(1_000, 1_000)

    def work():
        factor @ factor
        with torch.profiler.record_function("what is not an operator, though the profiler has a name for it"):
            time.sleep(0.5)

    total, operators = limit.profiled(work)
    assert 0 < operators["aten::mm"] <= sum(operators.values()) < total - 0.5


def test_limits_are_told_as_shares(monkeypatch):
    monkeypatch.setattr(limit, "SHOWN", 2)
    measured = {"rates": {"float32": [200.0, 190.0, 300.0], "bfloat16": [500.0], "memory": [10.0]}, "steps": [
        {"case": "a", "precision": "float32", "flops": 3e9, "seconds": [0.02, 0.03, 0.05], "profiled_seconds": 1,
         "operators": {"aten::mm": 1.0}},
        {"case": "a", "precision": "bfloat16", "flops": 3e9, "seconds": [0.03], "profiled_seconds": 0.04,
         "operators": {"aten::mm": 0.02, "aten::convolution": 0.004, "aten::relu": 0.006}},
        {"case": "b", "precision": "bfloat16", "flops": 3e9, "seconds": [0.06], "profiled_seconds": 0.1,
         "operators": {"aten::mm": 0.01, "aten::bmm": 0.05}}]}
    steps, operators = limit.tables(measured).values()
    assert steps.rows == [["a", "float32", "3.00", "30.0 [20.0, 50.0]", "100", "200 [190, 300]", "50%"],
                          ["a", "bfloat16", "3.00", "30.0 [30.0, 30.0]", "100", "500 [500, 500]", "20%"],
                          ["b", "bfloat16", "3.00", "60.0 [60.0, 60.0]", "50", "500 [500, 500]", "10%"]]
    assert operators.header == ["operator", "a, bfloat16", "b, bfloat16"]
    assert operators.rows == [["`aten::bmm`", "0%", "50%"], ["`aten::mm`", "50%", "10%"],
                              ["other operators", "25%", "0%"], ["between operators", "25%", "40%"]]


def test_a_line_is_fitted_as_scipy_fits_it():
    x, y = [1.0, 2.0, 4.0, 8.0], [3.1, 4.9, 9.2, 16.8]
    fit = scipy.stats.linregress(x, y)
    assert growth.line(x, y) == pytest.approx((fit.intercept, fit.slope, fit.rvalue**2))


@pytest.mark.slow
def test_growth_is_measured_in_processes_of_their_own(mnist_root, monkeypatch):
    monkeypatch.setattr(growth, "lesson_peak", lambda: 900.0)
    grown = growth.run(repeats=2, growing={"images": [640, 1_280]})
    assert [(point["images"], point["steps"]) for point in grown["images"]] == [(640, 10), (1_280, 20)]
    (table,) = growth.tables(grown).values()
    assert table.rows[0][:2] == ["images", "640 to 1,280"]
    assert all(len(point["seconds"]) == len(point["peak_megabytes"]) == 2 for point in grown["images"])


def test_growth_is_told_without_memory_where_the_system_keeps_silent():
    def point(images, *seconds):
        return {"images": images, "seconds": list(seconds), "peak_megabytes": [None] * len(seconds)}

    (table,) = growth.tables(
        {"lesson_megabytes": None, "images": [point(10_000, 2, 1, 9), point(20_000, 3, 3, 3)]}).values()
    assert table.rows == [["images", "10,000 to 20,000", "2.0 [1.0, 9.0] to 3.0 [3.0, 3.0]", "1.00 per 10,000", "1.000",
                           ""]]


def test_time_to_accuracy_is_scaled_and_compared_within_a_round():
    measured = {"cpu": {"workers": 1, "published": [40.0, 60.0], "ours": [
        {"seconds": 10.0, "val_accuracy": 0.994}, {"seconds": 12.0, "val_accuracy": 0.996}]}}
    (table,) = time_to_accuracy.tables(measured).values()
    assert table.rows[0][:2] == ["published recipe, cpu, workers: 1", "750 [600, 900]"]
    assert table.rows[1][:4] == ["ours, cpu", "11.0 [10.0, 12.0]", "68x [60, 75]", "99.50"]


def test_a_time_stands_beside_the_accuracy_that_was_recorded(monkeypatch):
    runs = {seed: {"test_accuracy": 0.99 + seed / 1000, "card": {"device": f"cpu ({name})"}}
            for seed, name in enumerate(["Old", "New", "Old"])}
    monkeypatch.setattr(records, "by_seed", lambda: {"SpeedRun": runs})
    timed = {"cpu": {"workers": 1, "published": [40.0], "ours": [{"seconds": 10.0, "val_accuracy": 0.994}]}}
    ((caption, table),) = time_to_accuracy.tables(timed).items()
    assert "on cpu (Old) and cpu (New)" in caption and table.rows[1][4] == "99.10 (standard deviation 0.10, n = 3)"


def test_what_is_timed_is_the_recipe_of_the_notebook():
    recipe = time_to_accuracy.recipe(seed=7)
    compile(recipe, "recipe", "exec")
    assert "SEED = 7" in recipe and "class SpeedRun(nn.Module)" in recipe and "mh.fit(" in recipe
    assert "mnist.test" not in recipe and "plots" not in recipe, "neither the test nor a figure is timed"


def test_a_timing_begins_with_the_process_and_ends_with_the_training(monkeypatch):
    """On the device that was asked for, whatever the machine has."""
    monkeypatch.setattr(time_to_accuracy, "recipe", lambda seed: f"""
import torch
import mnist_helpers as mh
from types import SimpleNamespace
mnist = SimpleNamespace(val={seed})
assert mh.get_device() == torch.device("meta"), mh.get_device()
model = torch.nn.Linear(1, 1)
time.sleep(1)
mh.evaluate = lambda model, val: time.sleep(2) or SimpleNamespace(accuracy=val / 10)
""")
    started = time.perf_counter()
    measured = time_to_accuracy.timed(seed=7, device="meta")
    assert measured["val_accuracy"] == 0.7
    assert 1 < measured["seconds"] < time.perf_counter() - started - 2


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """A function that runs the command line on two benchmarks that measure nothing, in a project of their own."""
    def tables(measured):
        return {f"Repeats {measured['repeats']}": Table(["what"], [["all well"]])}

    stub = SimpleNamespace(run=lambda repeats: {"repeats": repeats}, tables=tables)
    monkeypatch.setattr(command, "BENCHMARKS", {"new": stub, "old": stub})
    monkeypatch.setattr(pipelines, "mnist", lambda: SimpleNamespace(name="mnist"))
    monkeypatch.setattr(data, "project_root", lambda: tmp_path)
    monkeypatch.delenv("MNIST_PROFILE", raising=False)
    for path in (command.page(), command.results_file()):
        path.parent.mkdir()
    command.page().write_text("<!-- benchmarks:start -->\n\n<!-- benchmarks:end -->\n", encoding="utf-8")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        command.main()
    return run


def test_measurements_are_written_where_they_are_asked_for(bench, tmp_path, capsys):
    bench("new", "--repeats", "3", "--save", "--json", str(tmp_path / "own.json"))
    bench("old", "--repeats", "4", "--save")
    own, kept = (json.loads(path.read_text(encoding="utf-8"))
                 for path in (tmp_path / "own.json", command.results_file()))
    assert {name: each["measured"]["repeats"] for name, each in kept.items()} == {"new": 3, "old": 4}
    assert own == {"new": kept["new"]}
    for said in (command.page().read_text(encoding="utf-8"), capsys.readouterr().out):
        assert "Repeats 3" in said and "Repeats 4" in said and "all well" in said


@pytest.mark.parametrize(("kept", "page"), [({"another": "form"}, None), ({"repeats": 1}, "no markers")])
def test_kept_measurements_that_cannot_be_shown_are_found_before_measuring(kept, page, bench, monkeypatch):
    monkeypatch.setattr(command.BENCHMARKS["new"], "run", lambda repeats: pytest.fail("measured"))
    written = json.dumps({"old": {"machine": "cpu", "measured": kept}})
    command.results_file().write_text(written, encoding="utf-8")
    if page:
        command.page().write_text(page, encoding="utf-8")
    with pytest.raises(SystemExit):
        bench("new", "--save")
    assert command.results_file().read_text(encoding="utf-8") == written


def test_each_machine_is_named_with_what_was_measured_on_it(monkeypatch):
    stub = SimpleNamespace(tables=lambda measured: {})
    monkeypatch.setattr(command, "BENCHMARKS", dict.fromkeys(["epoch", "time-to-accuracy", "limit"], stub))
    kept = {name: {"machine": machine, "measured": None} for name, machine in (
        ("epoch", "cpu (B)"), ("limit", "cpu (A)"), ("time-to-accuracy", "cpu (A)"))}
    said = command.text(kept).splitlines()
    assert said[::2] == ["Measured on cpu (B): epoch.", "Measured on cpu (A): time-to-accuracy, limit.",
                         "Not measured on a GPU: `epoch` and `time-to-accuracy`."]


def test_a_gpus_figures_stand_beside_the_processors(monkeypatch):
    stub = SimpleNamespace(tables=lambda measured: {measured: Table(["a"], [])})
    monkeypatch.setattr(command, "BENCHMARKS", {"epoch": stub, "busy": stub})
    kept = {"epoch": {"machine": "cpu (A)", "measured": "on A"}, "busy": {"machine": "cpu (A)", "measured": "busy A"},
            "epoch, cuda": {"machine": "cuda (B)", "measured": "on B"}}
    said = [line for line in command.text(kept).splitlines() if line and not line.startswith("|")]
    assert said == ["on A", "busy A", "Measured on cpu (A): epoch, busy.", "### On a GPU", "on B",
                    "Measured on cuda (B): epoch."]


def test_on_a_gpu_only_what_a_gpu_does_is_measured_unasked(bench, monkeypatch):
    measured = []
    monkeypatch.setattr(command, "BENCHMARKS", {name: SimpleNamespace(
        run=lambda repeats, name=name: measured.append(name), tables=lambda measured: {}) for name in ("new", "old")})
    monkeypatch.setattr(command, "ON_GPU", ("new",))
    monkeypatch.setattr(pipelines, "devices", lambda: ["cuda"])
    monkeypatch.setattr(command, "machine", lambda: "cuda (B)")
    bench()
    assert measured == ["new"]
    bench("old")
    assert measured == ["new", "old"]


def test_the_main_job_is_compared_with_a_quiet_machine_round_by_round():
    measured = [{"quiet": quiet, "beside a busy program": beside} for quiet, beside in ((10, 15), (20, 24), (10, 14))]
    (table,) = job.tables(measured).values()
    assert table.rows == [["quiet", "10 [10, 20]", "1.00x"], ["beside a busy program", "15 [14, 24]", "1.40x"]]


def test_the_main_job_is_run_quiet_and_then_beside_a_busy_program(monkeypatch):
    ran = []

    @contextlib.contextmanager
    def busy_program():
        ran.append("busy")
        yield
        ran.append("quiet")

    monkeypatch.setattr(job.busy, "busy_program", busy_program)
    monkeypatch.setattr(job.subprocess, "run", lambda command, **options: ran.append(command[1:]))
    assert list(job.run(repeats=1)[0]) == ["quiet", "beside a busy program"]
    assert ran == [job.COMMAND, "busy", job.COMMAND, "quiet"]


def test_the_page_shows_the_benchmarks_as_measured():
    measured = json.loads(command.results_file().read_text(encoding="utf-8"))
    assert set(measured) == set(command.BENCHMARKS)
    assert command.with_tables(measured) == command.page().read_text(encoding="utf-8"), "python -m benchmarks --save"


@pytest.mark.parametrize(("arguments", "profile", "said"), [
    (["newer"], "full", "no benchmark newer"), (["--repeats", "0"], "full", "--repeats"),
    (["--json", "nowhere/x.json"], "full", "nowhere/x.json"), (["--json", "."], "full", "directory"),
    (["new"], "quick", "full profile"), (["new"], "nonsense", "nonsense"), (["new"], "full", "measured on MNIST")])
def test_the_command_line_refuses_what_it_cannot_measure(arguments, profile, said, bench, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_PROFILE", profile)
    monkeypatch.setattr(pipelines, "mnist", lambda: SimpleNamespace(name="digits"))
    with pytest.raises(SystemExit) as ended:
        bench(*arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("case", pipelines.CASES)
def test_a_batched_network_takes_the_steps_of_its_networks_one_by_one(case, mnist_root, monkeypatch):
    """Without dropout, whose draws differ; plain gradient descent, which does not blow up rounding as Adam's signs do."""
    monkeypatch.setattr(levers, "SEEDS", 2)
    monkeypatch.setattr(levers, "adam", lambda parameters, fused: torch.optim.SGD(parameters, lr=0.01))
    made, network = [], pipelines.network

    def without_dropout(case, seed=0):
        made.append(levers.replaced(network(case, seed), torch.nn.Dropout, lambda layer: torch.nn.Identity()))
        return made[-1]

    def batches(*arguments, **options):
        return mh.loader.Loader(*arguments, shuffle=False)

    monkeypatch.setattr(pipelines, "network", without_dropout)
    monkeypatch.setattr(levers.mh, "Loader", batches, raising=False)
    weights = levers.batched(case, count=2).weights
    batch_size = pipelines.CASES[case][2]
    for seed in range(2):
        model = without_dropout(case, seed)
        mh.train_epoch(model, mh.loader.Loader(pipelines.split(2 * batch_size), batch_size, shuffle=False),
                       optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
        for name, value in model.named_parameters():
            assert torch.allclose(weights[name][seed], value, atol=2e-5), name
        moved = weights["linear.weight"][seed] - without_dropout(case, seed).linear.weight
        assert moved.abs().max() > 2e-4, "far more than the tolerance"


def test_dropout_from_bytes_drops_as_many_and_keeps_the_mean():
    """Against the binomial distribution: a share of inputs within five standard errors; the mean of what is left."""
    layer, inputs = levers.ByteDropout(0.25), torch.ones(400, 1_000)
    torch.manual_seed(0)
    outputs = layer(inputs)
    dropped = (outputs == 0).double().mean().item()
    assert abs(dropped - 0.25) < 5 * (0.25 * 0.75 / 400_000) ** 0.5
    assert outputs.max().item() == pytest.approx(4 / 3)
    assert not torch.equal(outputs[:200], outputs[200:])
    assert torch.equal(layer.eval()(inputs), inputs)


def test_levers_are_compared_with_the_lessons_step_round_by_round():
    rounds = [{levers.AS_IT_IS: slow, "both": fast} for slow, fast in ((10, 5), (30, 10), (20, 5))]
    (table,) = levers.tables({"iteration 5": rounds}).values()
    assert table.rows == ["iteration 5", [levers.AS_IT_IS, "20.0 [10.0, 30.0]", "1.00x [1.00, 1.00]"],
                          ["both", "5.0 [5.0, 10.0]", "3.00x [2.00, 4.00]"]]


@pytest.mark.slow
def test_every_lever_takes_steps(mnist_root, monkeypatch):
    monkeypatch.setattr(levers, "STEPS", 2)
    monkeypatch.setattr(levers.torch, "compile", lambda model: model)
    monkeypatch.setattr(levers.torch, "set_num_threads", lambda threads: None)
    (found,) = levers.measure("six convolutions", repeats=1)
    assert set(found) == {*levers.LEVERS, *(f"without {name}" for name in levers.PARTS), levers.BATCHED}
    assert all(milliseconds > 0 for milliseconds in found.values())


def test_a_run_is_set_beside_the_record_of_another_processor(monkeypatch, tmp_path, capsys):
    def record(number, seed, correct, mistakes, instructions, **changes):
        model = ["Baseline", "FewerParameters"][number]
        made = small.record(model, "01_baseline", id=f"{model}-s{seed}-0", seed=seed, test_correct=correct,
                            mistakes=dict.fromkeys(map(str, mistakes), 0), **changes)
        return made | {"card": made["card"] | {"instructions": instructions}}

    theirs = [record(0, 0, 7, [1, 2, 3], "AVX512"), record(0, 1, 8, [1, 9], "AVX512"), record(0, 2, 10, [], "AVX512"),
              record(1, 0, 9, [5], "AVX512")]
    mine = [record(0, 0, 5, [4], "AVX2"), record(0, 0, 8, [2, 5], "AVX2"), record(1, 0, 9, [5], "AVX512")]
    monkeypatch.setattr(records, "course_records", lambda: theirs)
    monkeypatch.setattr(records, "all_seeds", lambda: {"Baseline": {each["seed"]: each for each in theirs[:3]}})
    monkeypatch.setattr(records, "mine_file", lambda: tmp_path / "mine.jsonl")
    monkeypatch.setattr(data, "project_root", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["", "--write"])
    with pytest.raises(SystemExit):
        processors.main()
    page = tmp_path / "site" / "method.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- processors:start -->\nold\n<!-- processors:end -->\nafter\n", encoding="utf-8")
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in mine), encoding="utf-8")
    assert processors.main() == 0
    # The latest run: right are 8 of 10; 1 and 3 only here, 5 only there; between seeds {2, 3, 9} and {1, 2, 3}.
    assert "| 1 baseline | 7 | 8 | +1 | 3 | 3 |\n<!--" in (text := page.read_text(encoding="utf-8"))
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text and "2 smaller" not in text
