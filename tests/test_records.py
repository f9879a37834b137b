"""Records: what belongs together stays together, and what is no record is never believed."""

import json
from types import SimpleNamespace

import pytest
import torch

from mnist_helpers import checkpoint, data
from mnist_helpers.course import records, stamps

CARD = {"model": "Under20K", "parameters": 18_422, "seed": 3, "images": 100, "dataset": "mnist", "profile": "quick"}


def run(weights="w"):
    return SimpleNamespace(card=CARD, id="Under20K-s3-0", weights=weights, replayed=False, batch_loss=[2.0, 1.0],
                           history={"seconds": [1.0], "val_accuracy": [0.5]})


def evaluation(name="test", weights="w", profile="quick"):
    labels = torch.tensor([1, 2, 3, 4])
    split = data.Split(torch.zeros(4, 1, 28, 28), labels, "MNIST", name, "mnist", profile)
    logits = torch.eye(10)[torch.tensor([1, 2, 3, 9])]
    return SimpleNamespace(split=split, weights=weights, accuracy=0.75, correct=3, total=4, loss=1.0, logits=logits,
                           labels=labels)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "project_root", lambda: tmp_path)
    monkeypatch.setattr(checkpoint, "project_root", lambda: tmp_path)
    monkeypatch.setattr(stamps, "recipe_now", lambda notebook: "recipe")
    monkeypatch.delenv("MNIST_COLLECT", raising=False)
    monkeypatch.delenv("MNIST_CHECK", raising=False)
    return tmp_path / "results"


def test_a_record_says_what_the_run_came_to(results):
    made = records.record(run(), evaluation(), evaluation("train"))
    assert (made["notebook"], made["seed"], made["epochs"], made["trace"]) == ("05_under_20k", 3, 1, [2.0, 1.0])
    assert made["mistakes"] == {"3": 9} and made["augmented_train_accuracy"] == 0.75
    assert not results.exists(), "a quick run is recorded nowhere"


@pytest.mark.parametrize("arguments", [
    (run(), evaluation("train")), (run(), evaluation("val")), (run(), evaluation(weights="other")),
    (run("other"), evaluation()), (run(), evaluation(), evaluation("test")),
    (run(), evaluation(), evaluation("train", weights="other")), (run(), evaluation(profile="full"))])
def test_what_does_not_belong_together_is_refused(arguments):
    with pytest.raises(ValueError):
        records.record(*arguments)


def test_the_floor_is_checked_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("MNIST_CHECK", "1")
    with pytest.raises(AssertionError, match="Under20K"):
        records.record(run(), evaluation())  # 75 % is below the floor of the quick profile


def full(seed=0, **more):
    return records.record(run(), evaluation()) | {"profile": "full", "id": f"Under20K-s{seed}-0", "seed": seed,
                                                  "epochs": 20, "val_curve": [0.5] * 20,
                                                  "card": {"package": checkpoint.package_digest()}} | more


def test_a_learners_runs_never_count_as_the_courses(results):
    records.append(full(), records.mine_file())
    assert records.by_seed() == {}
    records.keep(full())
    assert list(records.by_seed()) == ["Under20K"]


def test_the_first_record_of_a_seed_counts_unless_it_is_stale():
    records.keep(full(seconds=1.0))
    records.append(full(seconds=2.0), records.runs_file())
    assert records.by_seed()["Under20K"][0]["seconds"] == 1.0
    stamps.stamp("Under20K-s0-0", trace="differs", notebook="05_under_20k")
    records.keep(full(seconds=3.0, id="Under20K-s0-1"))
    assert records.by_seed()["Under20K"][0]["seconds"] == 3.0


@pytest.mark.parametrize("change", [{"test_accuracy": 5.0}, {"test_accuracy": float("nan")}, {"test_correct": 4},
                                    {"mistakes": {}}, {"seconds": float("inf")}, {"epochs": "20"}])
def test_impossible_values_are_refused(change):
    with pytest.raises(ValueError):
        records.append(full(**change), records.runs_file())


def test_a_torn_line_takes_no_other_with_it(capsys):
    records.keep(full())
    with open(records.runs_file(), "a", encoding="utf-8") as file:
        file.write('\n\n{"half": ')
    records.keep(full(seed=1))
    assert sorted(records.by_seed()["Under20K"]) == [0, 1]
    assert json.loads(records.runs_file().read_text(encoding="utf-8").splitlines()[0])["seed"] == 0
