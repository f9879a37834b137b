"""The two ladders between the published versions: parameters by hand, one change a rung, and a file that goes on."""

import inspect
import json
import sys
from types import SimpleNamespace

import pytest
import torch

import mnist_helpers as mh
from benchmarks import ladder
from mnist_helpers import data, files
from mnist_helpers.course import catalogue, notebooks
from mnist_helpers.layers import count_parameters


@pytest.fixture
def dataset(tiny, monkeypatch, tmp_path):
    """A tiny dataset that says it is MNIST, without test images, in a project of its own."""
    monkeypatch.setattr(data, "project_root", lambda: tmp_path)
    split = data.Split(*tiny)
    made = SimpleNamespace(name="mnist", profile="full", train=split, val=split)
    monkeypatch.setattr(ladder.mh, "load_mnist", lambda verbose: made)
    return made


def at(name, number):
    """The configuration of a place on a ladder."""
    (config,) = [config for config, places in ladder.rungs() if [name, number] in [place[:2] for place in places]]
    return config


def last(name):
    return max(number for _, places in ladder.rungs() for place, number, _ in places if place == name)


def differing(a, b):
    return {key for key in ladder.FIRST if a[key] != b[key]}


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(("config", "parameters"), [
    # convolutions with biases, two for each channel of a batch norm, and the two dense layers
    (ladder.FIRST, (72 + 8) + 16 + (8 * 16 * 9 + 16) + (784 * 32 + 32) + (32 * 10 + 10)),
    (ladder.FIRST | {"norm": "every"}, 26_714 + 32),
    (ladder.FINAL, 192 + 4_704 + 18_624 + 1_495 + 240),
    (ladder.FINAL | {"pooling": "max"}, 192 + 4_704 + 18_624 + (3_136 * 23 + 23) + 240),
    (ladder.FINAL | {"channels": [8, 16]}, 96 + 1_168 + 32 + (16 * 23 + 23) + 240),
])
def test_the_parameters_by_hand(config, parameters):
    model = ladder.Net(config)
    assert count_parameters(model) == parameters
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_the_first_version_is_over_its_own_budget():
    assert count_parameters(ladder.Net(ladder.FIRST)) == 26_714
    assert count_parameters(ladder.Net(ladder.FINAL)) == catalogue.network("TwoLinear").parameters == 25_255


def first_version():
    """The class of the notebook, which has no recipe of its own and so is no importable network."""
    (cell,) = [cell for cell in notebooks.read(notebooks.find(["six_changes"])[0]).cells
               if cell.cell_type == "code" and cell.source.startswith("class FirstVersion")]
    made = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    exec(cell.source, made)
    return made["FirstVersion"]


@pytest.mark.parametrize(("config", "network"), [
    (ladder.FIRST, first_version), (ladder.FINAL, lambda: type(mh.network("TwoLinear")))], ids=["first", "final"])
def test_the_versions_are_those_of_the_notebooks(config, network):
    """The same weights from the same seed, and the same outputs."""
    torch.manual_seed(0)
    ours = ladder.Net(config).eval()
    torch.manual_seed(0)
    theirs = network()().eval()
    images = torch.rand(4, 1, 28, 28)
    assert [value.shape for value in ours.parameters()] == [value.shape for value in theirs.parameters()]
    assert torch.allclose(ours(images), theirs(images), atol=1e-6)


# ---------------------------------------------------------------- rungs


def test_each_rung_differs_from_the_one_below_in_one_thing():
    assert at("up", 0) == ladder.FIRST and at("up", last("up")) == ladder.FINAL
    steps = [differing(at("up", number), at("up", number - 1)) for number in range(1, last("up") + 1)]
    assert [len(step) for step in steps] == [1] * len(ladder.CHANGES)
    assert set.union(*steps) == set(ladder.FIRST), "each thing is changed once"


def test_each_change_is_left_out_of_the_final_version_once():
    assert at("down", 0) == ladder.FINAL and last("down") == len(ladder.CHANGES)
    for number, (name, change) in enumerate(ladder.CHANGES.items(), start=1):
        config = at("down", number)
        assert differing(config, ladder.FINAL) == set(change)
        assert all(config[key] == ladder.FIRST[key] for key in change)
        assert ["down", number, name] in [place for known, places in ladder.rungs() for place in places
                                          if known == config]


def test_a_guess_differs_from_the_first_version_in_one_thing():
    assert all(len(differing(at("guess", number), ladder.FIRST)) == 1 for number in range(1, last("guess") + 1))


def test_what_stands_on_two_ladders_is_trained_once():
    digests = [ladder.digest(config) for config, _ in ladder.rungs()]
    assert len(set(digests)) == len(digests)
    assert sum(len(places) for _, places in ladder.rungs()) == 2 * (len(ladder.CHANGES) + 1) + len(ladder.GUESSES) + 1


def test_the_digest_follows_the_configuration_and_the_code(monkeypatch):
    before = ladder.digest(ladder.FIRST)
    assert ladder.digest(ladder.FIRST | {"batch": 1}) != before
    source = inspect.getsource
    monkeypatch.setattr(ladder.inspect, "getsource", lambda part: source(part) + "\nx = 1\n")
    assert ladder.digest(ladder.FIRST) != before


# ---------------------------------------------------------------- runs


def test_a_seed_is_a_run_that_can_be_repeated(dataset):
    first, second, other = (ladder.measured(ladder.FIRST, [], seed, dataset) for seed in (100, 100, 101))
    assert first["train_loss"] == second["train_loss"] != other["train_loss"]
    assert first["val_accuracy"] == second["val_accuracy"]


def test_the_command_goes_on_where_it_stopped(dataset, monkeypatch, capsys):
    """Seed by seed; what is in the file stays and is not trained again."""
    rungs = ladder.rungs()[:2]
    monkeypatch.setattr(ladder, "rungs", lambda: rungs)
    monkeypatch.setattr(sys, "argv", ["ladder", "--seeds", "2"])
    train, trained = ladder.train, []

    def stopped(config, seed, dataset):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((seed, config))
        return train(config, seed, dataset)

    monkeypatch.setattr(ladder, "train", stopped)
    monkeypatch.setattr(ladder, "digest", lambda config: json.dumps(config))  # train's source is replaced
    with pytest.raises(KeyboardInterrupt):
        ladder.main()
    before = ladder.ladder_file().read_bytes()
    assert [seed for seed, _ in trained] == [100, 100, 101] and len(before.splitlines()) == 3
    trained.clear()
    ladder.main()
    assert trained == [(101, rungs[1][0])]
    assert ladder.ladder_file().read_bytes().startswith(before)
    assert ladder.missing(2) == [] and len(ladder.missing(3)) == 2
    records = files.read_records(ladder.ladder_file(), {"places", "seed", "config", "val_accuracy", "val_loss",
                                                        "train_loss", "torch", "device", "threads", "recipe"})
    assert [(record["seed"], record["config"]) for record in records] == [
        (seed, config) for seed in (100, 101) for config, _ in rungs]


def test_a_run_that_diverged_is_a_record(dataset, monkeypatch):
    def diverged(config, seed, dataset):
        raise ladder.mh.train.TrainingDiverged("the loss became nan", {})

    monkeypatch.setattr(ladder, "train", diverged)
    monkeypatch.setattr(ladder, "digest", lambda config: "known")
    record = ladder.measured(ladder.FIRST, [], 100, dataset)
    assert record["val_accuracy"] is None and "nan" in record["diverged"]


# ---------------------------------------------------------------- the file of the course


def test_the_file_holds_each_run_once_and_no_other_recipe():
    records = files.read_records(ladder.ladder_file())
    seeds = {record["seed"] for record in records}
    assert min(seeds) == ladder.FIRST_SEED and seeds == set(range(min(seeds), max(seeds) + 1))
    runs = [(record["recipe"], record["seed"]) for record in records]
    assert len(set(runs)) == len(runs)
    now = {ladder.digest(config): [list(place) for place in places] for config, places in ladder.rungs()}
    assert all(record["places"] == now[record["recipe"]] for record in records)
    assert all(0.1 < record["val_accuracy"] <= 1 and record["threads"] == 1 for record in records)
