"""Run records, the tables made of them, and the README that carries one."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from mnist_helpers import data, results

RUN = {
    "notebook": "03_twenty_epochs.ipynb", "model": "TwentyEpochs", "parameters": 18_374, "seed": 0, "epochs": 20,
    "profile": "full", "dataset": "mnist", "train_images": 55_000, "val_accuracy": 0.9924, "test_accuracy": 0.9931,
    "test_correct": 9_931, "test_total": 10_000, "seconds": 123.4, "device": "cpu (x)", "threads": 2, "versions": {},
    "augmented_train_accuracy": 0.9946,
}
BASELINE = RUN | {"notebook": "01_baseline.ipynb", "parameters": 26_714}


@pytest.fixture
def runs_file(tmp_path, monkeypatch):
    path = tmp_path / "results" / "runs.jsonl"
    monkeypatch.setattr(results, "runs_file", lambda: path)
    monkeypatch.delenv("MNIST_RUN_RECORD", raising=False)
    return path


def finished_run(tiny, profile="full"):
    """What a lesson hands to `record`, as small as it gets."""
    split = data.Split(*tiny, "MNIST")
    dataset = data.Dataset("mnist", profile, split, split, split)
    model = torch.nn.Linear(3, 2)
    history = {"seconds": [1.25, 2.0], "val_accuracy": [0.5, 0.75], "images": 100, "device": "cpu (x)",
               "threads": 2, "precision": "float32", "interrupted": False}
    logits = torch.eye(10)[split.labels]
    logits[17] = torch.eye(10)[(split.labels[17] + 1) % 10]
    test = SimpleNamespace(accuracy=0.99, correct=99, total=100, logits=logits)
    return "01_baseline.ipynb", dataset, model, history, test, 7


def test_a_full_run_appends_one_line(tiny, runs_file):
    run = results.record(*finished_run(tiny), augmented_train_accuracy=0.8)
    results.record(*finished_run(tiny))
    assert len(runs_file.read_text().splitlines()) == 2
    assert results.read()[0] == json.loads(json.dumps(run))
    assert set(run) >= results.KEYS
    assert (run["parameters"], run["epochs"], run["seconds"], run["val_accuracy"]) == (8, 2, 3.2, 0.75)
    assert (run["seed"], run["train_images"], run["augmented_train_accuracy"]) == (7, 100, 0.8)
    assert run["mistakes"] == {17: (int(tiny[1][17]) + 1) % 10} and run["val_curve"] == [0.5, 0.75]
    assert run["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_a_run_on_all_images_has_no_validation_accuracy(tiny, runs_file):
    arguments = finished_run(tiny)
    arguments[3].update(val_accuracy=[], images=60_000)
    run = results.record(*arguments)
    assert (run["val_accuracy"], run["val_curve"], run["train_images"]) == (None, [], 60_000)
    assert results.read()[0]["val_accuracy"] is None


def test_quick_and_interrupted_runs_are_not_recorded(tiny, runs_file):
    results.record(*finished_run(tiny, profile="quick"))
    arguments = finished_run(tiny)
    arguments[3]["interrupted"] = True
    results.record(*arguments)
    assert not runs_file.exists()


def test_a_run_without_an_epoch_is_refused(tiny, runs_file):
    arguments = finished_run(tiny)
    arguments[3]["seconds"] = []
    with pytest.raises(ValueError, match="no epoch was completed"):
        results.record(*arguments)


def test_a_torn_line_does_not_take_the_next_run_with_it(runs_file):
    results.append(BASELINE)
    with open(runs_file, "a") as file:
        file.write('{"notebook": "03_tw')
    results.append(RUN)
    lines = runs_file.read_text().splitlines()
    assert json.loads(lines[0]) == BASELINE and json.loads(lines[2]) == RUN and len(lines) == 3
    with pytest.raises(ValueError, match="line 2 is no record"):
        results.read()


def test_the_command_line_collects_records_in_a_file_of_its_own(tiny, runs_file, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_RUN_RECORD", str(tmp_path / "collected.jsonl"))
    results.record(*finished_run(tiny, profile="quick"))
    assert not runs_file.exists() and len(results.read(tmp_path / "collected.jsonl")) == 1


def test_a_line_that_is_no_run_is_named(runs_file):
    runs_file.parent.mkdir()
    runs_file.write_text(json.dumps(RUN) + "\n{half a li")
    with pytest.raises(ValueError, match=r"runs.jsonl, line 2 is no record"):
        results.read()
    runs_file.write_text(json.dumps({key: value for key, value in RUN.items() if key != "seed"}))
    with pytest.raises(ValueError, match="line 1 lacks seed"):
        results.read()


def test_latest_is_the_last_full_mnist_run_of_each_notebook():
    runs = [RUN | {"seed": 1}, BASELINE, RUN | {"seed": 2}, RUN | {"profile": "quick"}, RUN | {"dataset": "digits"}]
    latest = results.latest(runs)
    assert list(latest) == ["01_baseline.ipynb", "03_twenty_epochs.ipynb"]
    assert latest["03_twenty_epochs.ipynb"]["seed"] == 2
    assert results.latest(runs, seed=1)["03_twenty_epochs.ipynb"]["seed"] == 1
    runs[0]["reference"] = True
    assert [run["seed"] for run in results.latest(runs, reference=True).values()] == [1]


def test_table_shows_what_was_measured_and_what_was_published():
    table = results.table([RUN])
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "iteration": "03_twenty_epochs", "parameters": "18,374", "epochs": "20", "validation": "99.24 %",
        "test [95 % interval]": "99.31 % [99.13, 99.45]", "measured as published": "99.46 %", "published": "99.46 %",
        "published on": "training images", "seconds": "123"}
    assert table._repr_markdown_().splitlines()[2].startswith("| 03_twenty_epochs | 18,374 | 20 |")
    assert " [99.13,\N{NO-BREAK SPACE}99.45] |" in table._repr_markdown_(), "a cell breaks between its figures"
    assert "99.31 % [99.13, 99.45]" in str(table)


@pytest.mark.parametrize(("change", "name"), [
    ({"profile": "quick"}, "03_twenty_epochs (quick)"),
    ({"dataset": "digits"}, "03_twenty_epochs (digits sample, not MNIST)")])
def test_what_does_not_compare_stands_beside_no_published_figure(change, name, runs_file):
    results.append(BASELINE)
    row = dict(zip(results.table([RUN]).header, results.table([RUN | change]).rows[0], strict=True))
    assert row["iteration"] == name and row["published"] == "" and row["published on"] == ""
    assert next(row[0] for row in results.measures(RUN | change).rows) != "published"
    assert "Nothing to compare" in results.compare(RUN | change, "01_baseline.ipynb")


def test_the_table_so_far_has_the_lessons_before(runs_file):
    for run in (BASELINE, RUN | {"notebook": "05_under_20k.ipynb"}, RUN | {"seed": 9}):
        results.append(run)
    rows = results.table_so_far(RUN | {"test_correct": 9_000, "test_accuracy": 0.9}).rows
    assert [row[0] for row in rows] == ["01_baseline", "03_twenty_epochs"]
    assert rows[1][4].startswith("90.00 %"), "this run, not a recorded one"
    assert len(results.table_so_far(RUN | {"dataset": "digits"}).rows) == 1


def test_compare_two_runs_on_the_same_images(runs_file):
    results.append(BASELINE | {"mistakes": {"1": 7, "5": 3, "8": 3, "9": 4}})
    said = results.compare(RUN | {"mistakes": {1: 7, 2: 7}}, "01_baseline.ipynb")
    assert "99.31 % against 99.31 %" in said and "+0.00 points" in said
    assert "1 images only this run gets wrong, 3 only the other: exact McNemar p = 0.62" in said  # 2 (1 + 4) / 2^4
    assert "one run a side cannot tell" in said


def test_a_small_p_is_not_shown_as_zero(runs_file):
    results.append(BASELINE | {"mistakes": {}})
    said = results.compare(RUN | {"mistakes": dict.fromkeys(range(10), 7)}, "01_baseline.ipynb")
    assert "exact McNemar p < 0.01" in said                                          # 2 / 2^10 is 0.002


def with_seeds(run, correct):
    """Reference runs of seeds 0, 1, ... with these numbers of correct test images."""
    return [run | {"seed": seed, "reference": True, "test_correct": number, "test_accuracy": number / 10_000}
            for seed, number in enumerate(correct)]


def test_seeds_tell_noise_from_more(runs_file):
    for run in with_seeds(BASELINE, [9_900, 9_905, 9_910]) + with_seeds(RUN, [9_930, 9_936, 9_939]):
        results.append(run)
    # Differences 30, 31, 29 images: 30 +- 4.303 * 1 / sqrt(3).
    assert "Over 3 seeds a side: mean difference +0.30 points, 95 % interval +0.28 to +0.32: more than noise" in (
        results.compare(RUN, "01_baseline.ipynb"))
    table = results.table([RUN], results.read())
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert row["test over seeds"] == "99.35 ± 0.05 (n = 3)"
    assert row["difference from the one before"] == "+0.30 [+0.28, +0.32] more than noise"
    smaller = RUN | {"parameters": 9_000}
    assert results.table([smaller], results.read()).rows[0][5:7] == ["", ""], "the seeds are not of this network"
    assert "Over 3 seeds" not in results.compare(smaller, "01_baseline.ipynb")
    for run in with_seeds(BASELINE, [9_940, 9_905, 9_950]):
        results.append(run)
    assert "within noise" in results.compare(RUN, "01_baseline.ipynb"), "the later run of a seed counts"


def test_runs_of_changed_code_are_not_mixed():
    runs = [run | {"code": "old"} for run in with_seeds(RUN, [9_900, 9_905])]
    runs += [run | {"code": "new"} for run in with_seeds(RUN, [9_930])]
    assert [run["test_correct"] for run in results.by_seed(runs)[RUN["notebook"]].values()] == [9_930]


def test_the_readme_table_is_that_of_the_courses_own_runs():
    readme = f"before\n{results.MARKERS[0]}\nold\n{results.MARKERS[1]}\nafter"
    new = results.readme_table(readme, [RUN | {"reference": True}, RUN | {"test_accuracy": 0.5}])
    assert new.startswith("before\n") and new.endswith("\nafter") and "old" not in new
    assert "| 99.31 % [99.13, 99.45] |" in new.replace("\N{NO-BREAK SPACE}", " ") and "50.00" not in new
    assert results.readme_table(new, [RUN | {"reference": True}]) == new
    with pytest.raises(ValueError, match="the README needs the lines"):
        results.readme_table("no markers", [RUN])


def test_the_committed_readme_is_up_to_date():
    readme = (data.project_root() / "README.md").read_text(encoding="utf-8")
    assert readme == results.readme_table(readme, results.read()), "run: python -m mnist_helpers table --write"


def test_the_committed_figure_is_up_to_date():
    drawn = Image.open(results.figure_file()).info["Description"]
    assert drawn == results.digest(results.means(results.read())), "run: python -m mnist_helpers table --write"
