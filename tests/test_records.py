"""Records: what cannot be recorded, where records go, which of them count, and when they are stale."""

import json
from types import SimpleNamespace

import nbformat
import pytest
import torch
from torch import nn

import mnist_helpers as mh
from mnist_helpers import checkpoint, data, device
from mnist_helpers.course import catalogue, notebooks, records, stamps, tables


def a_record(correct=9_931, **changes):
    """A record of lesson 3, as `records.record` makes them."""
    accuracy = correct / 10_000
    return {"id": "TwentyEpochs-s0-00000000", "notebook": "03_twenty_epochs", "model": "TwentyEpochs",
            "parameters": 18_374, "seed": 0, "epochs": 20, "profile": "full", "dataset": "mnist",
            "train_images": 55_000, "val_accuracy": 0.9924, "test_accuracy": accuracy, "test_loss": 0.02,
            "test_correct": correct, "test_total": 10_000, "augmented_train_accuracy": 0.9946, "seconds": 123.4,
            "card": {"device": "cpu (x)", "threads": 1, "package": "p"}, "val_curve": [0.99] * 19 + [0.9924],
            "mistakes": {str(image): 0 for image in range(10_000 - correct)}, "trace": [2.3, 1.9]} | changes


def of(name, seed=0, correct=9_931, **changes):
    """A record of another network of the catalogue, with an id of its own."""
    network = catalogue.network(name)
    curve = [0.9924] * network.epochs
    return a_record(correct, **{"id": f"{name}-s{seed}-{correct}", "notebook": network.notebook, "model": name,
                                "parameters": network.parameters, "epochs": network.epochs, "seed": seed,
                                "val_curve": curve} | changes)


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A project of its own, whose notebooks all have the recipe "r" and whose package is "p"."""
    for module in (data, checkpoint, notebooks, records, stamps):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setattr(stamps, "recipe_now", lambda notebook: "r")
    monkeypatch.setattr(checkpoint, "package_digest", lambda: "p")
    for name in ("MNIST_COLLECT", "MNIST_CHECK", "MNIST_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# ---------------------------------------------------------------- what belongs to one run


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(784, 10)

    def forward(self, x):
        return self.linear(x.flatten(1))


@pytest.fixture
def splits(tiny, monkeypatch):
    monkeypatch.setattr(records, "TEST_IMAGES", 100)
    return {name: data.Split(*tiny, "MNIST", name, "mnist", "full") for name in ("train", "val", "test")}


@pytest.fixture
def run(splits):
    mh.set_seed(3)
    model = Small()
    return mh.fit(model, mh.Loader(splits["train"], batch_size=50), splits["val"], epochs=2,
                  optimizer=torch.optim.Adam(model.parameters(), lr=1e-2))


def test_a_full_run_is_a_line_of_the_learners_own_file(course, run, splits):
    test = mh.evaluate(run.model, splits["test"])
    made = mh.record(run, test, mh.evaluate(run.model, splits["train"]))
    assert json.loads(records.mine_file().read_text(encoding="utf-8")) == made | {"digest": records.digest(made)}
    assert not records.runs_file().exists() and records.by_seed() == {}
    assert set(made) == records.KEYS | {"augmented_train_accuracy"}
    expected = {"id": run.id, "notebook": "yours", "model": "Small", "parameters": 7_850, "seed": 3, "epochs": 2,
                "profile": "full", "dataset": "mnist", "train_images": 100, "test_correct": test.correct,
                "test_total": 100, "trace": run.batch_loss}
    assert {key: made[key] for key in expected} == expected
    assert made["val_accuracy"] == made["val_curve"][-1] == pytest.approx(run.history["val_accuracy"][-1])
    wrong = test.logits.argmax(1) != splits["test"].labels
    assert {int(image) for image in made["mistakes"]} == set(wrong.nonzero().flatten().tolist())
    assert all(made["mistakes"][str(i)] == test.logits[i].argmax() for i in wrong.nonzero().flatten().tolist())
    assert made["card"]["versions"]["torch"] and made["card"]["threads"] == device.threads()


def test_a_run_on_all_images_has_no_validation_accuracy(course, splits):
    model = Small()
    run = mh.fit(model, mh.Loader(splits["train"]), None, epochs=1, optimizer=torch.optim.Adam(model.parameters()))
    made = mh.record(run, mh.evaluate(model, splits["test"]))
    assert made["val_accuracy"] is None and made["val_curve"] == [] and "augmented_train_accuracy" not in made


def test_another_networks_evaluation_is_refused(course, run, splits):
    """As when a later cell rebinds ``model``."""
    with pytest.raises(ValueError, match="of other weights than this run trained"):
        mh.record(run, mh.evaluate(Small(), splits["test"]))
    test = mh.evaluate(run.model, splits["test"])
    with pytest.raises(ValueError, match="of other weights than this run trained"):
        mh.record(run, test, mh.evaluate(Small(), splits["train"]))
    with torch.no_grad():
        run.model.linear.bias += 0.1
    with pytest.raises(ValueError, match="of other weights than this run trained"):
        mh.record(run, mh.evaluate(run.model, splits["test"]))
    assert not records.mine_file().exists()


@pytest.mark.parametrize(("name", "said"), [("train", "called 'train'"), ("val", "called 'val'")])
def test_only_test_images_are_the_test(course, run, splits, name, said):
    with pytest.raises(ValueError, match=f"evaluation of the test images.*{said}"):
        mh.record(run, mh.evaluate(run.model, splits[name]))


def test_images_without_a_name_a_part_of_them_and_test_images_as_training_images_are_refused(course, run, splits):
    test = mh.evaluate(run.model, splits["test"])
    with pytest.raises(ValueError, match="unknown images"):
        mh.record(run, mh.evaluate(run.model, (splits["test"].images, splits["test"].labels)))
    with pytest.raises(ValueError, match="only 40 of the 100 test images"):
        mh.record(run, mh.evaluate(run.model, splits["test"][:40]))
    with pytest.raises(ValueError, match=r"evaluation of the training images.*called 'test'"):
        mh.record(run, test, test)


def test_a_network_trained_on_the_test_images_is_refused(course, splits):
    model = Small()
    run = mh.fit(model, mh.Loader(splits["test"]), None, epochs=1, optimizer=torch.optim.Adam(model.parameters()))
    with pytest.raises(ValueError, match="trained on the test images"):
        mh.record(run, mh.evaluate(model, splits["test"]))


@pytest.mark.parametrize("other", [{"dataset": "digits"}, {"profile": "quick"}])
def test_another_dataset_is_refused(course, run, splits, other):
    from dataclasses import replace

    with pytest.raises(ValueError, match="trained on mnist full and evaluated on"):
        mh.record(run, mh.evaluate(run.model, replace(splits["test"], **other)))


def test_a_run_without_an_epoch_is_refused(course, run, splits):
    run.history["seconds"] = []
    with pytest.raises(ValueError, match="no epoch was completed"):
        mh.record(run, mh.evaluate(run.model, splits["test"]))


# ---------------------------------------------------------------- where records go


def finished(correct=99, model="Baseline", profile="full", dataset="mnist", replayed=False):
    """What a lesson hands to `record`, without training."""
    labels = torch.arange(100) % 10
    logits = torch.eye(10)[labels]
    logits[:100 - correct] = torch.eye(10)[(labels[:100 - correct] + 1) % 10]
    split = data.Split(torch.zeros(100, 1, 28, 28, dtype=torch.uint8), labels, "MNIST", "test", dataset, profile)
    test = SimpleNamespace(loss=0.1, correct=correct, total=100, accuracy=correct / 100, logits=logits, labels=labels,
                           split=split, weights="w")
    card = {"model": model, "parameters": 26_714, "seed": 0, "images": 55_000, "dataset": dataset, "profile": profile,
            "device": "cpu", "package": "p"}
    history = {"seconds": [1.0], "val_accuracy": [0.5]}
    return SimpleNamespace(model=None, history=history, batch_loss=[1.0] * 150, card=card, id=f"{model}-s0-0",
                           weights="w", replayed=replayed), test


@pytest.fixture
def small(course, monkeypatch):
    monkeypatch.setattr(records, "TEST_IMAGES", 100)
    return course


def test_quick_runs_and_digits_are_not_written(small):
    assert records.record(*finished(profile="quick"))["profile"] == "quick"
    records.record(*finished(dataset="digits"))
    assert not (small / "results").exists()
    made = records.record(*finished(profile="recorded"))
    assert made["profile"] == "full" and len(made["trace"]) == 100 and records.mine_file().exists()


def test_the_command_line_collects_records_in_a_folder_of_its_own(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_COLLECT", str(tmp_path / "collected"))
    made = records.record(*finished(profile="quick"))
    assert records.read(tmp_path / "collected" / "records.jsonl") == [made]
    assert not (small / "results").exists()


def test_an_accuracy_below_the_floor_fails_where_it_is_checked(small, monkeypatch):
    records.record(*finished(correct=95))  # the baseline's floor is 0.95
    monkeypatch.setenv("MNIST_CHECK", "1")
    with pytest.raises(AssertionError, match=r"Baseline.*not above 95\.00%"):
        records.record(*finished(correct=95))
    records.record(*finished(correct=96))
    records.record(*finished(correct=85, profile="quick"))
    records.record(*finished(correct=5, model="Mine"))


def test_a_replayed_run_is_compared_with_its_record(small):
    recorded = records.record(*finished()) | {"seconds": 77.0}
    records.keep(recorded)
    before = records.mine_file().read_text()
    assert records.record(*finished(correct=90, replayed=True))["seconds"] == 77.0
    with pytest.raises(ValueError, match=r"test_accuracy is 88\.00% here and 99\.00% in the record, 11 images apart"):
        records.record(*finished(correct=88, replayed=True))
    assert records.mine_file().read_text() == before


# ---------------------------------------------------------------- values and lines


@pytest.mark.parametrize(("change", "said"), [
    ({"test_accuracy": 5.0}, "test_accuracy is 5.0, not from 0 to 1"),
    ({"val_accuracy": float("nan")}, "val_accuracy is nan"),
    ({"augmented_train_accuracy": -0.1}, "augmented_train_accuracy is -0.1"),
    ({"val_curve": [0.9] * 19 + [1.5]}, r"val_curve\[19\] is 1.5"),
    ({"val_curve": [0.9]}, "val_curve has 1 entries for 20 epochs"),
    ({"test_correct": 9_930}, "9930 of 10000 images is not a test accuracy of 0.9931"),
    ({"test_correct": 10_001, "test_accuracy": 1.0001}, "test_accuracy is 1.0001"),
    ({"mistakes": {"5": 1}}, "1 images are listed as mistakes, and 69 of 10000 should be"),
    ({"test_loss": float("inf")}, "not finite"),
    ({"trace": [1.0, float("nan")]}, "not finite"),
    ({"seconds": "long"}, "not finite"),
    ({"epochs": 0}, "epochs is 0"),
    ({"seed": True}, "seed is True"),
    ({"mistakes": None}, "is no record of a run"),
    ({"test_total": "many"}, "is no record of a run"),
])
def test_impossible_values_are_refused(course, change, said):
    records.check(a_record())
    with pytest.raises(ValueError, match=said):
        records.append(a_record(**change), records.runs_file())
    assert not records.runs_file().exists()
    # A line that was written by hand is left out, and named.
    records.append(a_record(), records.runs_file())
    with open(records.runs_file(), "a", encoding="utf-8") as file:
        file.write(json.dumps(a_record(id="by hand", **change)) + "\n")
    assert records.course_records() == [a_record()]


def test_blank_and_torn_lines_are_left_out_in_one_line(course, capfd):
    records.append(a_record(), records.runs_file())
    with open(records.runs_file(), "a", encoding="utf-8") as file:
        file.write(f'\n\n{json.dumps(a_record(id="impossible", epochs=0))}\n[1]\n{{"id": "torn", "noteb')
    records.append(a_record(seed=1, id="after"), records.runs_file())
    assert [record["id"] for record in records.course_records()] == ["TwentyEpochs-s0-00000000", "after"]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and "line 5, 6" in said[0] and "impossible" in said[1]


# ---------------------------------------------------------------- which records count


def test_the_first_record_of_a_seed_counts(course):
    for record in (of("Baseline", 1), of("Baseline", 0, 9_810), of("Baseline", 0, 9_820), of("Strided", 0)):
        records.keep(record)
    found = records.by_seed()
    assert list(found) == ["Baseline", "Strided"] and list(found["Baseline"]) == [0, 1]
    assert found["Baseline"][0]["test_correct"] == 9_810


def test_a_fresh_record_counts_before_a_stale_one(course):
    records.append(of("Baseline", 0, 9_810), records.runs_file())
    assert records.by_seed()["Baseline"][0]["test_correct"] == 9_810
    records.keep(of("Baseline", 0, 9_820))
    records.keep(of("Baseline", 0, 9_830))
    assert records.by_seed()["Baseline"][0]["test_correct"] == 9_820


@pytest.mark.parametrize("change", [{"profile": "quick"}, {"dataset": "digits"}, {"parameters": 26_715},
                                    {"epochs": 2, "val_curve": []}, {"model": "Mine"}])
def test_what_is_not_the_catalogues_network_does_not_count(course, change):
    records.keep(of("Baseline", **change))
    assert records.by_seed() == {}


def test_a_learners_run_never_counts(course):
    records.append(of("Baseline"), records.mine_file())
    assert records.course_records() == [] and records.by_seed() == {}


# ---------------------------------------------------------------- stamps


def test_a_record_goes_stale_with_its_recipe_its_package_and_its_trace(course, monkeypatch):
    record = of("Under20K")
    assert stamps.stale(record) == "it was never verified"
    records.keep(record)
    assert stamps.stale(record) is None
    monkeypatch.setattr(stamps, "recipe_now", lambda notebook: "r" if notebook == "01_baseline" else "new")
    assert stamps.stale(record) == "the recipe in 05_under_20k.ipynb has changed since"
    stamps.stamp(record["id"], trace="verified", notebook="05_under_20k")
    assert stamps.stale(record) is None
    monkeypatch.setattr(checkpoint, "package_digest", lambda: "q")
    assert stamps.stale(record) == "the package has changed since"
    stamps.stamp(record["id"], trace="differs", notebook="05_under_20k", recipe="r", package="p")
    assert "other losses" in stamps.stale(record)
    assert json.loads(checkpoint.stamps_file().read_text()) == {
        record["id"]: {"recipe": "r", "package": "p", "trace": "differs", "notebook": "05_under_20k"}}


def test_a_kept_record_is_stamped_with_what_it_ran_through(course):
    """Not with the code as it stands when it is kept, which may have been edited meanwhile."""
    records.keep(of("Under20K", card={"package": "before"}), recipe="executed")
    (stamp,) = checkpoint.stamps().values()
    assert (stamp["recipe"], stamp["package"], stamp["trace"]) == ("executed", "before", "recorded")


def test_an_edited_notebook_is_read_again(tmp_path, monkeypatch):
    from mnist_helpers.course import notebooks

    monkeypatch.setattr(stamps, "project_root", lambda: tmp_path)
    monkeypatch.setattr(notebooks, "recipe_digest", lambda path: path.read_text(encoding="utf-8"))
    assert stamps.recipe_now("lesson") is None
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "lesson.ipynb"
    for text in ("one", "two"):
        path.write_text(text, encoding="utf-8")
        assert stamps.recipe_now("lesson") == text


def test_fresh_seeds_take_the_tables_over_once_all_that_were_planned_are_there(course):
    """Lesson 3 has a plan of twenty: nineteen of them, or the first five, are not mixed with them."""
    assert catalogue.network("TwentyEpochs").fresh_seeds == 20
    for seed in (0, 1, *range(100, 119)):
        records.keep(of("TwentyEpochs", seed, 9_930))
    assert list(records.by_seed()["TwentyEpochs"]) == [0, 1]
    records.keep(of("TwentyEpochs", 119, 9_930))
    assert list(records.by_seed()["TwentyEpochs"]) == list(range(100, 120))
    assert list(records.all_seeds()["TwentyEpochs"]) == [0, 1, *range(100, 120)]
    # Beside a network without fresh seeds, all seeds count, so that both have some in common.
    for seed in (0, 1, 2):
        records.keep(of("BatchNorm", seed, 9_940))
    ours, theirs = records.together("BatchNorm", "TwentyEpochs")
    assert set(ours) & set(theirs) == {0, 1} and len(theirs) == 22
    assert tables.difference_over_seeds("BatchNorm", "TwentyEpochs").n == 2


def test_half_an_edit_of_one_notebook_leaves_tables_readable(tmp_path, monkeypatch):
    from mnist_helpers.course import notebooks

    path = tmp_path / "notebooks" / "lesson.ipynb"
    path.parent.mkdir()
    monkeypatch.setattr(stamps, "project_root", lambda: tmp_path)
    for cell in ("Now the full training set.", None):
        cells = [nbformat.v4.new_code_cell(cell, metadata={"tags": ["recipe"]})] if cell else None
        path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)) if cells else "{", encoding="utf-8")
        with pytest.raises((SyntaxError, ValueError)):
            notebooks.recipe_digest(path)
        assert stamps.recipe_now("lesson") is None


def test_of_two_records_with_one_id_the_later_counts(course):
    """A run that was repeated after a change: its weights are those that are kept."""
    records.keep(of("Under20K", 0, 9_930, id="Under20K-s0-same"))
    records.keep(of("Under20K", 0, 9_935, id="Under20K-s0-same"))
    assert records.by_seed()["Under20K"][0]["test_correct"] == 9_935


def test_a_record_that_is_not_as_it_was_written_is_left_out_and_named(course, capfd, monkeypatch):
    """A digit that no other figure contradicts, of a line with its digest and of one that has it in the file beside."""
    records.append(a_record(), records.runs_file())
    text = records.runs_file().read_text()
    assert records.course_records() == [a_record()]
    records.runs_file().write_text(text.replace("123.4", "523.4"))
    assert records.course_records() == [] and "TwentyEpochs-s0-00000000" in capfd.readouterr().err
    monkeypatch.setattr(records, "_digests", lambda: {a_record()["id"]: [records.digest(a_record())]})
    for seconds, count in ((123.4, 1), (523.4, 0)):
        records.runs_file().write_text(json.dumps(a_record(seconds=seconds)) + "\n")
        assert len(records.course_records()) == count


def test_every_record_of_the_course_is_as_it_was_written(capfd):
    lines = records.runs_file().read_text(encoding="utf-8").splitlines()
    assert len(records.course_records()) == len(lines) and not capfd.readouterr().err


def test_where_nothing_can_be_noted_the_record_is_returned_with_a_sentence(course, run, splits, monkeypatch, capsys):
    """As in a course folder that belongs to somebody else."""
    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(records.files, "append_line", refuse)
    made = mh.record(run, mh.evaluate(run.model, splits["test"]))
    assert made["test_total"] == 100
    said = capsys.readouterr().out
    assert str(records.mine_file()) in said and "Permission denied" in said


# ---------------------------------------------------------------- seeds and images


def test_the_test_images_are_of_two_kinds():
    """As QMNIST's authors have it: the first 5,001 images by students, the others by employees."""
    assert records.by_kind("students").tolist() == [True] * 5_001 + [False] * 4_999
    assert (records.by_kind("employees") != records.by_kind("students")).all()


def test_outcomes_are_those_of_the_mistakes():
    one, two = a_record(9_998, mistakes={"3": 1, "9999": 2}), a_record(9_999, mistakes={"3": 5})
    right = records.outcomes([one, two])
    assert right.shape == (2, 10_000) and right[0].sum() == 9_998 and right[1].sum() == 9_999
    assert not right[:, 3].any() and right[:, 9_999].tolist() == [0, 1]


def test_a_mean_over_all_is_of_common_seeds_and_of_one_kind_where_asked():
    a = {seed: a_record(9_900 + seed) for seed in (0, 1, 2)}  # the first images are the mistakes: by students
    b = {seed: a_record(9_800) for seed in (1, 2, 3)}
    assert records.over_all(a).mean == pytest.approx(0.9901) and records.over_all(a).images > 0
    step = records.over_all(a, b)
    assert step.n == 2 and step.mean == pytest.approx(0.01015)
    assert records.over_all(a, kind="employees").mean == 1
    assert records.over_all(a, kind="students").mean == pytest.approx(1 - 99 / 5_001)
    assert records.over_all({}) is None and records.over_all(a, {7: b[3]}) is None
