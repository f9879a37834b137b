"""Records against the code as it stands: the first steps of each training are taken again and compared."""

import copy
import json
import os
import shutil
from pathlib import Path

import project as small
import pytest
import torch

from mnist_helpers import checkpoint, data, recipe
from mnist_helpers.__main__ import main
from mnist_helpers.course import catalogue, notebooks, processes, records, stamps, verify
from mnist_helpers.course.git import git

RECIPE = """
import torch
from torch import nn
import mnist_helpers as mh

WIDTH = 4 * 2


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(784, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x):
        return self.last(self.norm(self.first(x.flatten(1))).relu())


def train(lr):
    mh.set_seed(SEED)
    images = torch.randint(0, 256, (120, 1, 28, 28), dtype=torch.uint8)
    split = mh.Split(images, torch.arange(120) % 10, "noise", "train", "mnist", mh.data.profile())
    model = Good()
    return mh.fit(model, mh.Loader(split, batch_size=8), None, epochs=1,
                  optimizer=torch.optim.Adam(model.parameters(), lr=lr))


run = train(lr=1e-3)
"""


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A notebook that trains for a moment, with its record and what it kept, of the recipe and of an experiment."""
    small.settle(tmp_path, monkeypatch.setattr)
    path = small.write(tmp_path / "notebooks" / "01_good.ipynb", small.cell("SEED = 5\nCHECKPOINT = 'x.pt'", "parameters"),
                       small.cell("1 / 0"), small.cell(RECIPE, "recipe"), small.cell("train(lr=2e-3)", "experiment"))
    monkeypatch.setattr(processes, "each_in_a_process", lambda function, jobs: ((job, function(*job)) for job in jobs))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    checkpoint.kept_folder().mkdir(parents=True)
    os.environ |= {"MNIST_PROFILE": "full", "MNIST_COLLECT": str(checkpoint.kept_folder())}
    run = notebooks.run_cells(notebooks.tagged(notebooks.read(path), *verify.TRAINING), path.name, seed=0)["run"]
    made = small.record("Good", "01_good", id=run.id, trace=run.batch_loss,
                        card=run.card | {"package": checkpoint.package_digest()})
    records.keep(made, notebooks.recipe_digest(path))
    yield path
    torch.set_num_threads(threads)


def verdicts(path):
    return {verdict.id: verdict.finding for verdict in verify.verify([path]) if not verdict.same}


def one():
    return records.course_records()[0]


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_harmless_change_costs_no_training(course, monkeypatch, capsys):
    edit(course, "WIDTH = 4 * 2", "WIDTH  =  4*2  # a comment")
    assert stamps.stale(one()) is None
    monkeypatch.setattr(checkpoint, "package_digest", lambda: "another")
    assert stamps.stale(one())
    assert main(["verify", "01_good"]) == 0, capsys.readouterr()
    assert stamps.stale(one()) is None and checkpoint.stamps()[one()["id"]]["trace"] == "verified"
    assert [stamp["package"] for stamp in checkpoint.stamps().values()] == ["another"] * 2, "the experiment's, too"


def test_a_seed_that_is_as_recorded_speaks_for_the_others(course, monkeypatch):
    for seed, trace in ((1, "imported"), (2, "differs")):
        records.keep(one() | {"id": f"Good-s{seed}-0", "seed": seed}, notebooks.recipe_digest(course))
        stamps.stamp(f"Good-s{seed}-0", trace=trace, notebook="01_good")
    monkeypatch.setattr(checkpoint, "package_digest", lambda: "another")
    assert not verdicts(course)
    found = checkpoint.stamps()
    assert (found["Good-s1-0"]["package"], found["Good-s1-0"]["trace"]) == ("another", "imported")
    assert found["Good-s2-0"]["package"] != "another"


def test_another_arithmetic_makes_every_run_stale_by_name(course, monkeypatch, capsys):
    step = torch.optim.Adam.step

    def otherwise(self, *arguments):
        self.param_groups[0]["eps"] = 1e-4
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", otherwise)
    assert main(["verify", "01_good"]) == 1
    out, err = capsys.readouterr()
    assert all(path.stem in err for path in checkpoint.kept_folder().iterdir()) and out.count("STALE") == 2
    assert stamps.stale(one()) and verify.not_replayable(course)
    monkeypatch.undo()


@pytest.mark.slow
def test_on_another_processor_the_codes_are_compared(course, tmp_path, monkeypatch, capsys):
    """Losses that no processor here would give do not matter; only what both codes make of them does."""
    root = tmp_path
    shutil.copytree(Path(verify.__file__).parents[1], root / "mnist_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").touch()
    monkeypatch.setattr(recipe, "__file__", str(root / "mnist_helpers" / "recipe.py"))
    monkeypatch.setattr(checkpoint, "package_digest", recipe.package_digest.__wrapped__)  # not kept from call to call
    first = {id: stamp | {"package": checkpoint.package_digest()} for id, stamp in checkpoint.stamps().items()}
    checkpoint.stamps_file().write_text(json.dumps(first), encoding="utf-8")
    for arguments in (["init", "--quiet"], ["add", "mnist_helpers", "notebooks"], ["-c", "user.name=x", "-c", "user.email=x@y.z",
                                                                                  "commit", "--quiet", "-m", "x"]):
        git(root, *arguments)

    edit(root / "mnist_helpers" / "train.py", "optimizer.step()", "None, optimizer.step()")
    assert main(["verify", "--since", "HEAD", "01_good"]) == 0, capsys.readouterr()
    now = checkpoint.stamps()
    assert [stamp["package"] for stamp in now.values()] == [checkpoint.package_digest()]
    assert now != first and all(stamp["trace"] == "verified" for stamp in now.values())

    # Of a commit that the records do not belong to, nothing follows; nor of another arithmetic.
    assert main(["verify", "--since", "HEAD", "01_good"]) == 1 and "does not belong" in capsys.readouterr().out
    checkpoint.stamps_file().write_text(json.dumps(first), encoding="utf-8")
    edit(root / "mnist_helpers" / "train.py", "None, optimizer.step()", "optimizer.step(), optimizer.step()")
    assert main(["verify", "--since", "HEAD", "01_good"]) == 1
    assert "the loss of step 2" in capsys.readouterr().out and checkpoint.stamps() == first
    assert main(["verify", "--since", "nothing", "01_good"]) == 1 and "git rev-parse" in capsys.readouterr().err


def test_nothing_that_differs_is_replayed(course, monkeypatch):
    card = checkpoint.read_kept(next(checkpoint.kept_folder().glob(f"{one()['id']}*")))["card"]
    assert checkpoint.find_kept(one()["id"], card)[0]
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "package_digest", lambda: "another")
        patched.setattr(verify, "difference", lambda *_: "it differs")
        assert verdicts(course) and checkpoint.find_kept(one()["id"], card)[0] is None
    stamps.stamp(one()["id"], trace="differs", notebook="01_good")  # by the very package that is here
    assert checkpoint.find_kept(one()["id"], card)[0] is None


@pytest.mark.parametrize(("old", "new", "said"), [
    ("run = train(lr=1e-3)", "run = train(lr=1e-2)", "0.01"), ("relu", "tanh", "model"), ("WIDTH = 4", "WIDTH = 5", "8"),
    ("run = train(lr=1e-3)", "pass", "0.001"), ("run = train(lr=1e-3)", "1 / 0", "ZeroDivisionError")])
def test_another_recipe_is_named(course, old, new, said):
    edit(course, old, new)
    (finding, *_) = [text for id, text in verdicts(course).items() if id in (one()["id"], "seed 0")]
    assert said in finding and stamps.stale(one())


def test_losses_are_compared_to_the_bit_only_on_the_same_machine(course):
    kept = verify._kept(one()["id"])
    same = [{"id": kept["id"], "card": kept["card"], "losses": kept["batch_loss"]}]
    assert verify.difference(kept, same) is None
    other = copy.deepcopy(same)
    other[0]["card"] |= {"threads": 64, "device": "cpu (elsewhere)"}
    assert verify.agreement(kept, same) == "as recorded, to the bit"
    assert "0.1% of the loss in 20 steps" in (told := verify.agreement(kept, other)) and "cpu (elsewhere)" in told
    for scale, ours, theirs in ((1 + 1e-6, False, True), (1.01, False, False)):
        same[0]["losses"] = other[0]["losses"] = [scale * loss for loss in kept["batch_loss"]]
        assert (verify.difference(kept, same) is None, verify.difference(kept, other) is None) == (ours, theirs)
    other[0]["losses"] = kept["batch_loss"]
    other[0]["card"]["start"]["draws"] += 1
    assert verify.difference(kept, other)


def test_a_notebooks_networks_are_importable(course, tmp_path):
    """They are found by pickle in a fresh process, and compiled by TorchScript, which reads their source."""
    module = notebooks.network("01_good")
    assert module is notebooks.network("Good") is notebooks.network(course) and module.WIDTH == 8
    assert not hasattr(module, "run") and not hasattr(module, "SEED")
    model = notebooks.trained("Good")
    assert not model.training
    images = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(torch.jit.script(model)(images), model(images))
    torch.save(model, tmp_path / "model.bin")
    from mnist_helpers.course import networks

    del __import__("sys").modules[module.__name__]
    again = torch.load(tmp_path / "model.bin", weights_only=False)
    torch.testing.assert_close(again(images), model(images))
    edit(course, "4 * 2", "4 * 3")
    assert notebooks.network("01_good").WIDTH == 12, "the file counts as it stands"
    with pytest.raises(ValueError):
        networks.module_of(tmp_path / "elsewhere.ipynb")


def test_the_lessons_networks_are_those_of_the_catalogue(monkeypatch):
    """Each is there, with the parameters that the catalogue promises, and takes an image."""
    for network in catalogue.networks():
        model = getattr(notebooks.network(network.name), network.name)()
        assert sum(parameter.numel() for parameter in model.parameters()) == network.parameters, network.name
        assert model.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.slow
def test_every_recipe_trains_its_first_steps(mnist_root, monkeypatch):
    """In a process of its own, as the command does it; one lesson stands for all, since each takes ten seconds."""
    path = notebooks.find(["05_under_20k"])[0]
    job = path, path.read_text(encoding="utf-8"), 0
    monkeypatch.setenv("MNIST_ROOT", str(data.default_root()))
    ((_, (traces, error)),) = processes.each_in_a_process(verify.trace, [job])
    assert error is None and [each["card"]["model"] for each in traces] == ["Under20K"] * 21  # and 20 experiments
    for each in traces:
        assert len(each["losses"]) == checkpoint.TRACE_STEPS and each["card"]["threads"] == 1
