"""Going on where a run stopped, to the bit, also after a real SIGKILL; what counts as another recipe; replay."""

import errno
import gc
import importlib.util
import io
import json
import linecache
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import AUGMENT, same, stop_at, train
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    TensorDataset,
    WeightedRandomSampler,
)

import mnist_helpers as mh
from mnist_helpers import checkpoint, data, recipe
from mnist_helpers.checkpoint import CheckpointError
from mnist_helpers.data import Split
from mnist_helpers.train import each_step


@pytest.fixture
def split(tiny):
    return Split(*tiny, "MNIST", "train")


def one_cycle(optimizer, epochs=4):
    return each_step(lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4 * epochs))


SCHEDULERS = [
    None,
    lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5),
    lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 2]),
    one_cycle,
    lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
    lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch),
    lambda optimizer: each_step(lr_scheduler.SequentialLR(optimizer, [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(optimizer, 12)], [4])),
]


def without_seconds(run):
    return {name: column for name, column in run.history.items() if name != "seconds"} | {"steps": run.batch_loss}


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_stopped_run_goes_on_to_the_same_weights(split, network, tmp_path, scheduler):
    """With what was made anew, and as in a notebook, where the cell that calls `fit` is run again."""
    whole = train(network(5), split, epochs=4, scheduler=scheduler, augment=AUGMENT)
    for anew in (True, False):
        torch.manual_seed(5)
        models = [network(5)]
        optimizer = torch.optim.Adam(models[0].parameters(), lr=1e-2)
        arguments = {"optimizer": optimizer, "scheduler": scheduler and scheduler(optimizer),
                     "checkpoint": tmp_path / f"{anew}.pt"}
        hook = optimizer.register_step_post_hook(lambda *_, steps=iter(range(10)): next(steps))  # in the third epoch
        loader = mh.Loader(split, 32, augment=AUGMENT)
        with pytest.raises(StopIteration):
            mh.fit(models[0], loader, split, epochs=4, **arguments)
        hook.remove()
        if anew:
            run = train(network(5), split, epochs=4, scheduler=scheduler, augment=AUGMENT,
                        checkpoint=arguments["checkpoint"])
        else:
            run = mh.fit(models[0], loader, split, epochs=4, **arguments)
        assert same(whole.model, run.model) and without_seconds(whole) == without_seconds(run)
        assert (whole.id, whole.weights) == (run.id, run.weights)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    """A real SIGKILL in the middle of an epoch, in a process of its own; it draws from `random` and NumPy as well."""
    script = Path(__file__).with_name("training_to_kill.py")

    def start(path, weights):
        return subprocess.Popen([sys.executable, script, path, weights], stdout=subprocess.PIPE, text=True)

    whole, process = start("none", tmp_path / "whole.pt"), start(tmp_path / "run.pt", tmp_path / "killed.pt")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # into the next epoch
    process.kill()
    assert process.wait(30) != 0 and not (tmp_path / "killed.pt").exists() and not list(tmp_path.glob(".*part*"))
    process = start(tmp_path / "run.pt", tmp_path / "resumed.pt")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "going on from run.pt" in said
    assert whole.communicate(timeout=120) and whole.returncode == 0
    ours, theirs = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "resumed"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_finished_run_is_not_trained_again(split, network, tmp_path):
    first = train(network(), split, checkpoint=tmp_path / "run.pt")
    again = train(network(), split, checkpoint=tmp_path / "run.pt", after_step=stop_at(1, AssertionError))
    assert same(first.model, again.model) and first.history == again.history and not again.model.training
    with pytest.raises(CheckpointError, match="3 epochs"):
        train(network(), split, epochs=1, checkpoint=tmp_path / "run.pt")


class Noisy(Dataset):
    """Images with noise from the generator that ``noise`` belongs to."""

    def __init__(self, split, noise, generator=None):
        self.split, self.noise, self.generator = split, noise, generator

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        image, label = self.split[index]
        return mh.normalize(image / 255) + self.noise(), label


class Own:
    """Batches with a state of their own."""

    def __init__(self, split):
        self.split, self.epochs = split, 0

    def __iter__(self):
        self.epochs += 1
        yield from DataLoader(self.split[: 32 * self.epochs], 32)


class OwnSampler(Sampler):
    def __init__(self, split):
        self.numbers = list(range(len(split)))

    def __len__(self):
        return len(self.numbers)

    def __iter__(self):
        self.numbers.append(self.numbers.pop(0))
        return iter(list(self.numbers))


class Stream(IterableDataset):
    def __init__(self, split):
        self.split = split

    def __iter__(self):
        return iter([self.split[number] for number in torch.randperm(100)])


def seeded():
    return torch.Generator().manual_seed(3)


def weighted(**options):
    return WeightedRandomSampler(torch.arange(1.0, 101.0), 100, **options)


def noisy(split):
    generator = seeded()
    return DataLoader(Noisy(split, lambda: torch.rand((), generator=generator), generator), 32)


def torch_noise():
    return torch.rand(())


KEPT = {  # what goes on to the same bit, and says nothing
    "shuffled": lambda split: DataLoader(split, 32, shuffle=True),
    "a generator": lambda split: DataLoader(split, 32, shuffle=True, generator=seeded()),
    "a sampler's generator": lambda split: DataLoader(split, 32, sampler=weighted(generator=seeded())),
    "a sampler without one": lambda split: DataLoader(split, 32, sampler=weighted()),
    "a sampler of batches": lambda split: DataLoader(split, batch_sampler=torch.utils.data.BatchSampler(
        RandomSampler(split, generator=seeded()), 32, False)),
    "workers": lambda split: DataLoader(Noisy(split, torch_noise), 32, shuffle=True, num_workers=2),
    "a dataset's generator": noisy,
    "a list of batches": lambda split: list(DataLoader(split, 32)),
}
NOT_KEPT = {  # what is said of the others
    "workers that stay": (lambda split: DataLoader(
        Noisy(split, torch_noise), 32, num_workers=1, persistent_workers=True), "persistent_workers"),
    "workers in no order": (lambda split: DataLoader(split, 32, num_workers=1, in_order=False), "in_order"),
    "its own class": (Own, "a Own, which may keep"),
    "a generator": (lambda split: (batch for batch in DataLoader(split, 32)), "a generator, which may keep"),
    "its own sampler": (lambda split: DataLoader(split, 32, sampler=OwnSampler(split)), "a OwnSampler, which may keep"),
    "its own stream": (lambda split: DataLoader(Stream(split), 32), "a Stream, which may keep"),
    "NumPy's generator": (lambda split: DataLoader(Noisy(split, lambda: 0, np.random.default_rng(0)), 32),
                          r"draws of dataset\.generator,"),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("validate", [False, True])
def test_the_batches_of_others_go_on_to_the_same_bit(split, network, tmp_path, name, validate):
    make, path = KEPT[name], tmp_path / "run.pt"

    def once(epochs, **options):
        loader = make(split)  # as in the next process: nothing is left of the one that was stopped
        data, val = (mh.Loader(split, 32), loader) if validate else (loader, None)
        model = network()
        torch.manual_seed(5)
        run = train(model, data, val=val, epochs=epochs, **options)
        return run

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*may differ")
        whole = once(3)
        with pytest.raises(KeyboardInterrupt):
            once(3, checkpoint=path, after_step=stop_at(6))  # in the second epoch
        again = once(3, checkpoint=path)
    assert same(whole.model, again.model) and without_seconds(whole) == without_seconds(again)


@pytest.mark.parametrize("name", NOT_KEPT)
@pytest.mark.parametrize("validate", [False, True])
def test_a_training_that_cannot_go_on_to_the_same_bit_says_so_once(split, network, tmp_path, name, validate):
    make, reason = NOT_KEPT[name]
    path = tmp_path / "run.pt"
    for epochs in (1,) if name == "a generator" else (1, 2):  # also where it goes on; a generator yields batches once
        loader = make(split)
        data, val = (mh.Loader(split, 32), loader) if validate else (loader, None)
        model = network()
        torch.manual_seed(5)
        with pytest.warns(UserWarning, match=f"may differ.*{'validation' if validate else 'training'}.*{reason}") as said:
            mh.fit(model, data, val, epochs=epochs, optimizer=torch.optim.Adam(model.parameters()),
                   checkpoint=path)
        said = [each for each in said if "may differ" in str(each.message)]
        assert len(said) == 1 and said[0].filename == __file__
        with warnings.catch_warnings():  # and nothing without a checkpoint
            warnings.filterwarnings("error", message=".*may differ")
            train(network(), make(split), val=None, epochs=1)


def test_a_validation_loader_that_draws_goes_on_too(split, network, tmp_path):
    def once(**options):
        model = network()
        torch.manual_seed(5)
        return train(model, split, val=mh.Loader(split, 32, augment=AUGMENT), **options)

    whole = once()
    with pytest.raises(KeyboardInterrupt):
        once(checkpoint=tmp_path / "run.pt", after_step=stop_at(6))
    again = once(checkpoint=tmp_path / "run.pt")
    assert same(whole.model, again.model) and without_seconds(whole) == without_seconds(again)


def test_a_checkpoint_of_release_1_goes_on(split, network, tmp_path):
    """It kept the state of the training loader's generator alone, as a tensor."""
    path = tmp_path / "run.pt"
    whole = train(network(), split)
    with pytest.raises(KeyboardInterrupt):
        train(network(), split, checkpoint=path, after_step=stop_at(6))
    content = torch.load(path, weights_only=True)
    rewrite(path, content | {"generator": content["generator"]["training.generator"]})
    again = train(network(), split, checkpoint=path)
    assert same(whole.model, again.model) and without_seconds(whole) == without_seconds(again)


def test_a_generator_that_is_made_later_is_named(split, network, tmp_path):
    class Late(Noisy):
        def __getitem__(self, index):
            if index == 99:  # the first look at 32 images does not make it
                self.generator = self.generator or seeded()
            return super().__getitem__(index)

    path = tmp_path / "run.pt"
    train(network(), DataLoader(Late(split, lambda: 0), 32), val=None, epochs=1, checkpoint=path)
    with pytest.warns(UserWarning, match=r"training\.dataset\.generator .* made after the start"):
        train(network(), DataLoader(Late(split, lambda: 0), 32), val=None, epochs=2, checkpoint=path)


SHORT = """import sys, torch
from torch import nn
import mnist_helpers as mh
path, epochs = sys.argv[1], int(sys.argv[2])
mh.set_seed(0)
images = torch.arange(64 * 784).remainder(251).to(torch.uint8).view(64, 1, 28, 28)
model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10), nn.Dropout(0.1))
optimizer = torch.optim.Adam(model.parameters())
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
data = mh.Loader((images, torch.arange(64) % 10), 32, augment=mh.Augment(mh.Rotation(10)))
run = mh.fit(model, data, None, epochs=epochs, optimizer=optimizer, scheduler=scheduler, checkpoint=path)
print(torch.__version__, len(run.batch_loss))"""


def test_a_checkpoint_goes_on_under_another_pytorch_and_back(tmp_path):
    """``MNIST_OTHER_PYTHON`` is the Python of an environment with another version, such as the oldest allowed."""
    if not (other := os.environ.get("MNIST_OTHER_PYTHON")):
        pytest.skip("needs a second environment: set MNIST_OTHER_PYTHON to its Python")
    seen = []
    for epochs, python in ((1, sys.executable), (2, other), (3, sys.executable)):
        done = subprocess.run([python, "-c", SHORT, tmp_path / "run.pt", str(epochs)], capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": str(Path(mh.__file__).parents[1])})
        assert done.returncode == 0, done.stderr
        version, steps = done.stdout.splitlines()[-1].split()
        seen.append(version)
        assert int(steps) == 2 * epochs and ("going on" in done.stdout) == (epochs > 1)
    assert seen[0] == seen[2] != seen[1]


def test_a_checkpoint_of_torch_2_6_goes_on(split, network, tmp_path):
    """Its schedulers have ``verbose`` in their state, and lack a mark that later ones have."""
    path = tmp_path / "run.pt"
    whole = train(network(), split, scheduler=SCHEDULERS[1])
    with pytest.raises(KeyboardInterrupt):
        train(network(), split, checkpoint=path, scheduler=SCHEDULERS[1], after_step=stop_at(6))
    content = torch.load(path, weights_only=True)
    state = {name: value for name, value in content["scheduler"].items() if name != "_is_initial"}
    rewrite(path, content | {"scheduler": state | {"verbose": False}})
    again = train(network(), split, checkpoint=path, scheduler=SCHEDULERS[1])
    assert same(whole.model, again.model) and without_seconds(whole) == without_seconds(again)

    del state["last_epoch"]
    rewrite(path, content | {"scheduler": state})
    with pytest.raises(CheckpointError, match="scheduler has other parts"):
        train(network(), split, checkpoint=path, scheduler=SCHEDULERS[1])


def test_checkpoints_are_written_in_one_step_and_hold_plain_data_only(split, network, tmp_path, monkeypatch):
    """Loading them cannot run code that somebody put into them."""
    path, seen, replace = tmp_path / "run.pt", [], os.replace

    def watch(temporary, target):
        seen.append(torch.load(temporary, weights_only=True)["history"]["val_accuracy"])
        assert (Path(target) == path and len(seen) == 1) or torch.load(path, weights_only=True)
        replace(temporary, target)

    monkeypatch.setattr(os, "replace", watch)
    run = train(network(), split, checkpoint=path, scheduler=SCHEDULERS[1])
    assert [len(each) for each in seen] == [1, 2, 3]
    assert torch.load(path, weights_only=True)["history"] == run.history
    assert {each.name for each in tmp_path.iterdir()} <= {path.name, f".{path.name}.lock"}


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: b"not a checkpoint",
                                    lambda content: content[:-100], "flipped", "another file of PyTorch's"])
def test_a_damaged_checkpoint_is_named_and_kept(split, network, tmp_path, damage):
    path = tmp_path / "run.pt"
    train(network(), split, epochs=1, checkpoint=path)
    if damage == "flipped":
        content = path.read_bytes()
        weights = train(network(), split, epochs=1).model[0].weight.detach().numpy().tobytes()
        assert content.count(weights) == 1
        path.write_bytes(content.replace(weights, weights[:-1] + bytes([weights[-1] ^ 1])))
    elif callable(damage):
        path.write_bytes(damage(path.read_bytes()))
    else:
        torch.save(network().state_dict(), path)
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"run\.pt"):
        train(network(), split, checkpoint=path)
    assert path.read_bytes() == content


def rewrite(path, content):
    """Save other content in a checkpoint's form, its digest too."""
    content.pop("digest", None)
    torch.save(content | {"digest": checkpoint.digest(content)}, path)


def changes():
    """What can be wrong with the structure of a checkpoint: each part missing, of another type, or empty."""
    for name in ("model", "optimizer", "scheduler", "start", "recipe", "history", "batch_loss", "generator", "random_state"):
        yield f"no {name}", lambda content, name=name: content.pop(name)
        yield f"{name} is a number", lambda content, name=name: content.update({name: 7})
        yield f"{name} is empty", lambda content, name=name: content.update({name: {}})
    yield "no weight", lambda content: content["model"].popitem()
    yield "a weight of another shape", lambda content: content["model"].update({"0.weight": torch.zeros(3)})
    yield "no epochs", lambda content: content["history"].pop("seconds")
    yield "a short history", lambda content: content["history"]["lr"].pop()
    yield "text in the history", lambda content: content["history"].update({"lr": ["a"] * 2})
    yield "no groups", lambda content: content["optimizer"].update({"param_groups": []})
    yield "a state of no generator", lambda content: content["random_state"].update({"cpu": torch.zeros(3, dtype=torch.uint8)})


@pytest.mark.parametrize("signed", [False, True])
def test_a_crafted_checkpoint_is_one_kind_of_error_and_changes_nothing(split, network, tmp_path, signed):
    """With the digest of the content that was there, and with one of its own."""
    path = tmp_path / "run.pt"
    train(network(), split, epochs=2, checkpoint=path, scheduler=SCHEDULERS[1])
    whole = path.read_bytes()
    for name, change in changes():
        content = torch.load(io.BytesIO(whole), weights_only=True)
        change(content)
        if signed:
            rewrite(path, content)
        else:
            torch.save(content, path)
        model, before = network(), path.read_bytes()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=r"run\.pt"):
            train(model, split, epochs=3, checkpoint=path, scheduler=SCHEDULERS[1])
            pytest.fail(f"{name}: believed")
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items()), name
        assert path.read_bytes() == before


class Touch:
    """A pickle of it creates a file where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(split, network, tmp_path):
    path, mark = tmp_path / "run.pt", tmp_path / "executed"
    for content in (Touch(mark), {"model": Touch(mark)}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="other objects") as refused:
            train(network(), split, checkpoint=path)
        assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(CheckpointError):
            train(network(), split, checkpoint=path)
    torch.jit.save(torch.jit.script(network()), path)
    with pytest.raises(CheckpointError):
        train(network(), split, checkpoint=path)
    assert not mark.exists()


def test_a_bomb_is_not_unpacked(split, network, tmp_path):
    with zipfile.ZipFile(tmp_path / "run.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(CheckpointError, match="compressed"):
        train(network(), split, checkpoint=tmp_path / "run.pt")


def test_a_full_disk_costs_no_epoch_and_the_next_one_is_written(split, network, tmp_path, monkeypatch):
    path, fsync, calls = tmp_path / "run.pt", os.fsync, []

    def full_at_first(file):
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full_at_first)
    with pytest.warns(UserWarning, match=r"after epoch 2.*run\.pt.*No space left"):
        run = train(network(), split, epochs=3, checkpoint=path)
    assert len(run.history["seconds"]) == 3 and not list(tmp_path.glob("*.part*")) + list(tmp_path.glob(".*.part*"))
    assert torch.load(path, weights_only=True)["history"] == run.history
    assert same(run.model, train(network(), split, epochs=3).model)


def test_an_interrupt_while_it_is_written_is_an_interrupt(split, network, tmp_path, monkeypatch):
    path, save = tmp_path / "run.pt", torch.save
    train(network(), split, epochs=1, checkpoint=path)

    def stopped(content, file):
        save(content, file)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(mh.train.Interrupted) as stop:
        train(network(), split, epochs=3, checkpoint=path)
    assert len(stop.value.run.history["seconds"]) == 2 and not list(tmp_path.glob(".*.part"))
    monkeypatch.undo()
    assert same(train(network(), split, epochs=3, checkpoint=path).model, train(network(), split, epochs=3).model)


def test_a_place_where_nothing_can_be_written_is_named_before_the_first_epoch(split, network, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file" / "run.pt", "~nosuchuser/run.pt" if os.name == "posix" else tmp_path / "file" / "x"):
        with pytest.raises(CheckpointError, match="another path"):
            train(network(), split, checkpoint=path, after_step=stop_at(1, AssertionError))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    train(network(), split, epochs=1, checkpoint="~/new/run.pt")
    assert (tmp_path / "new" / "run.pt").is_file()


def test_a_second_process_is_refused_by_name_and_the_same_one_may_come_again(split, network, tmp_path):
    path = tmp_path / "run.pt"
    with filelock.FileLock(tmp_path / ".run.pt.lock", is_singleton=False), (  # as another process
            pytest.raises(CheckpointError, match=r"run\.pt is in use")):
        train(network(), split, checkpoint=path, after_step=stop_at(1, AssertionError))
    with pytest.raises(KeyboardInterrupt) as stop:
        train(network(), split, checkpoint=path, after_step=stop_at(5))
    train(network(), split, epochs=1, checkpoint=path)  # though what was raised still holds the first one's frames
    del stop
    gc.collect()
    with filelock.FileLock(tmp_path / ".run.pt.lock", is_singleton=False, timeout=0):
        pass  # it was let go


# ---------------------------------------------------------------- another recipe


def refused(first, second, path, named):
    """The second call of `fit` with the checkpoint of the first is refused by name, and the file stays."""
    first()
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=f"(?i){named}.*there, .* here"):
        second()
    assert path.read_bytes() == content


def smoothed(logits, targets, strength=0.1):
    return F.cross_entropy(logits, targets, label_smoothing=strength)


@pytest.mark.parametrize(("options", "changed", "named"), [
    ({}, {"batch_size": 16}, "training batches: 32"),
    ({}, {"drop_last": True}, "training batches"),
    ({}, {"shuffle": False}, "training batches"),
    ({}, {"augment": AUGMENT}, "training augmentation"),
    ({"augment": AUGMENT}, {"augment": mh.Augment(mh.Rotation(10), mh.Translation(0.2))}, "training augmentation"),
    ({}, {"normalize": torch.Tensor.sqrt}, "training normalization"),
    ({}, {"normalize": False}, "training normalization"),
    ({}, {"precision": torch.bfloat16}, "precision"),
    ({}, {"lr": 0.02}, "optimizer"),
    ({}, {"val": None}, "validation images"),
    ({}, {"loss_fn": F.multi_margin_loss}, "loss"),
    ({"loss_fn": nn.CrossEntropyLoss()}, {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1)}, "loss"),
    ({"loss_fn": nn.CrossEntropyLoss()}, {"loss_fn": nn.CrossEntropyLoss(weight=torch.ones(10))}, "loss"),
    ({"loss_fn": nn.CrossEntropyLoss(weight=torch.ones(10))},
     {"loss_fn": nn.CrossEntropyLoss(weight=torch.arange(1.0, 11))}, "loss"),
    ({"loss_fn": lambda logits, targets: smoothed(logits, targets, 0.1)},
     {"loss_fn": lambda logits, targets: smoothed(logits, targets, 0.2)}, "loss"),
    ({}, {"scheduler": SCHEDULERS[1]}, "scheduler"),
    ({"scheduler": SCHEDULERS[1]}, {"scheduler": lambda optimizer: each_step(SCHEDULERS[1](optimizer))}, "scheduler"),
    ({"scheduler": SCHEDULERS[1]}, {"scheduler": lambda optimizer: lr_scheduler.StepLR(optimizer, 2)}, "scheduler"),
    ({"scheduler": SCHEDULERS[2]}, {"scheduler": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 3])},
     "scheduler"),
    ({"scheduler": SCHEDULERS[5]},
     {"scheduler": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.8**epoch)}, "scheduler"),
], ids=lambda value: value if isinstance(value, str) else ", ".join(value))
def test_another_recipe_is_refused_by_name(split, network, tmp_path, options, changed, named):
    path = tmp_path / "run.pt"
    refused(lambda: train(network(), split, epochs=1, checkpoint=path, **options),
            lambda: train(network(), split, epochs=1, checkpoint=path, **options | changed), path, named)


def test_another_model_seed_image_or_device_is_refused_by_name(split, network, tmp_path):
    path = tmp_path / "run.pt"
    other_labels = Split(split.images, split.labels.roll(1))
    other_images = Split(split.images.flip(3), split.labels)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    for changed, named in (
            (lambda: train(network(1), split, checkpoint=path), "seed"),
            (lambda: train(network(), other_labels, val=split, checkpoint=path), "training images"),
            (lambda: train(network(), other_images, val=split, checkpoint=path), "training images"),
            (lambda: train(network(), split, val=other_labels, checkpoint=path), "validation images"),
            (lambda: train(network(), split, val=other_images, checkpoint=path), "validation images"),
            (lambda: train(flat, split, checkpoint=path), "model")):
        path.unlink(missing_ok=True)
        refused(lambda: train(network(), split, epochs=1, checkpoint=path), changed, path, named)
    content = torch.load(path, weights_only=True)
    content["recipe"]["device"] = "cuda"  # as if it had been made there
    rewrite(path, content)
    with pytest.raises(CheckpointError, match="device: cuda there, cpu here"):
        train(network(), split, checkpoint=path)


@pytest.mark.parametrize("make", [
    lambda images, labels: DataLoader(TensorDataset(mh.normalize(images), labels), 50),
    lambda images, labels: DataLoader(Split(images, labels), 50),
    lambda images, labels: (images, labels)])
def test_other_validation_images_of_the_same_number_are_refused_however_they_come(split, network, tmp_path, make):
    path = tmp_path / "run.pt"
    refused(lambda: train(network(), split, val=make(split.images, split.labels), epochs=1, checkpoint=path),
            lambda: train(network(), split, val=make(split.images.flip(3), split.labels), epochs=1, checkpoint=path),
            path, "validation images")


@pytest.mark.parametrize(("kind", "options", "changed"), [
    (torch.optim.SGD, {"weight_decay": 0.1}, {"weight_decay": 0.2}),
    (torch.optim.SGD, {}, {"lr": 0.2}),
    (torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.5}),
    (torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {}, {"betas": (0.9, 0.9)}),
    (torch.optim.Adam, {}, {"eps": 1e-6}),
])
@pytest.mark.parametrize("in_group", [True, False])
def test_other_options_of_the_optimizer_are_another_recipe(split, network, tmp_path, kind, options, changed, in_group):
    def run(given):
        model, groups = network(), {"lr": 0.1} | given
        optimizer = kind([{"params": model.parameters(), **groups}]) if in_group else (
            kind(model.parameters(), **groups))
        mh.fit(model, mh.Loader(split, 32), None, epochs=1, optimizer=optimizer, checkpoint=tmp_path / "run.pt")

    run(options)
    run(options)
    refused(lambda: None, lambda: run(options | changed), tmp_path / "run.pt", "optimizer")


# ---------------------------------------------------------------- edited code

CODE = """
import torch
from torch import nn
import mnist_helpers as mh
STRENGTH = 0.05

class Block(nn.Module):
    def forward(self, x):
        return torch.relu(x)  # kept positive

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Conv2d(1, width, 5, stride=4)
        self.last = nn.Linear(width * 36, 10)
        self.block = Block()

    def forward(self, x):
        '''From images to logits.'''
        x = self.block(self.first(x))
        return self.last(x.flatten(1))

class Mine(Net):
    pass

def shifted(images):
    return images + 0.1

def augment(images, generator):
    noise = torch.rand(images.shape, generator=generator)
    return shifted(images / 255 + STRENGTH * noise).clamp(0, 1)

class Noise:
    def draw(self, n, generator, device):
        return torch.rand(n, generator=generator, device=device)

    def apply(self, images, draws):
        return images * (1 - 0.1 * draws.view(-1, 1, 1, 1))

    def __repr__(self):
        return "Noise()"

def loss(logits, targets):
    return nn.functional.cross_entropy(logits, targets)
"""


def cell(source, number=[0]):  # noqa: B006
    """Run source as a notebook does its cells: in `__main__`, from a file that only `linecache` knows."""
    number[0] += 1
    name, space = f"ipykernel_1/{number[0]}.py", {"__name__": "__main__"}
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    exec(compile(source, name, "exec"), space)
    return space


def module(source):
    """Run source as a file that is imported."""
    path = Path(tempfile.mkdtemp()) / "net.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("net", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return vars(loaded)


def train_code(space, split, path, net="Net"):
    torch.manual_seed(0)
    train(space[net](), split, epochs=1, checkpoint=path, loss_fn=space["loss"],
          augment=space["augment"] if net == "Net" else mh.Augment(space["Noise"]()))


EDITS = {
    "forward": ("self.block(self.first(x))", "self.block(self.first(x)) * 1", "model", "Net"),
    "a block's forward": ("torch.relu(x)", "torch.tanh(x)", "model", "Net"),
    "another argument": ("width=8", "width=9", "model", "Net"),
    "an inherited forward": ("self.block(self.first(x))", "self.block(self.first(x)) * 1", "model", "Mine"),
    "the augmentation": ("images / 255 + ", "images / 255 - ", "augmentation", "Net"),
    "a constant of the augmentation": ("STRENGTH = 0.05", "STRENGTH = 0.06", "augmentation", "Net"),
    "a function that the augmentation calls": ("images + 0.1", "images + 0.2", "augmentation", "Net"),
    "a transform in an Augment": ("1 - 0.1 *", "1 - 0.2 *", "augmentation", "Mine"),
    "the loss": ("cross_entropy(logits, targets)", "cross_entropy(logits, targets) * 2", "loss", "Net"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edited_code_is_another_recipe(split, tmp_path, edit):
    old, new, named, net = EDITS[edit]
    assert CODE.count(old) == 1
    refused(lambda: train_code(cell(CODE), split, tmp_path / "run.pt", net),
            lambda: train_code(cell(CODE.replace(old, new)), split, tmp_path / "run.pt", net),
            tmp_path / "run.pt", named)


@pytest.mark.parametrize("where", [cell, module])
def test_comments_spaces_and_docstrings_are_not(split, tmp_path, where, capsys):
    edited = CODE.replace("# kept positive", "").replace("        '''From images to logits.'''\n", "# Net\n").replace(
        "torch.relu(x)", "torch.relu(\n            x,\n        )").replace(
        "class Net", "\n\n# The network\nclass Net").replace("noise = ", "noise  =  ")
    train_code(where(CODE), split, tmp_path / "run.pt")
    train_code(where(edited), split, tmp_path / "run.pt")
    assert "going on from run.pt: 1 of 1" in capsys.readouterr().out


def test_code_without_a_source_is_told_from_other_code_all_the_same(split, tmp_path):
    def where(source):
        exec(source, space := {"__name__": "__main__"})
        return space

    path = tmp_path / "run.pt"
    train_code(where(CODE), split, path)
    train_code(where(CODE), split, path)
    refused(lambda: None, lambda: train_code(where(CODE.replace("torch.relu(x)", "torch.tanh(x)")), split, path), path,
            "model")


def test_a_word_that_pytorch_adds_to_a_repr_changes_nothing(split, network, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run.pt"
    loss_fn = nn.CrossEntropyLoss()
    whole = train(network(), split, epochs=2, loss_fn=loss_fn)
    train(network(), split, epochs=1, checkpoint=path, loss_fn=loss_fn)
    told = nn.Conv2d.extra_repr
    monkeypatch.setattr(nn.Conv2d, "extra_repr", lambda self: told(self) + ", new=True")
    monkeypatch.setattr(nn.BatchNorm2d, "extra_repr", lambda self: "")
    run = train(network(), split, epochs=2, checkpoint=path, loss_fn=loss_fn)
    assert "going on from run.pt: 1 of 2" in capsys.readouterr().out and same(whole.model, run.model)


def test_the_recipe_is_the_same_in_another_process(tmp_path):
    """It has no addresses, and does not depend on how a process hashes its strings."""
    script = f"""
import functools, torch, mnist_helpers as mh
import torch.nn.functional as F
from mnist_helpers.data import Split
{CODE}
torch.manual_seed(0)
split = Split(torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.arange(8))
model = Net()
optimizer = torch.optim.Adam(model.parameters())
loader = mh.Loader(split, augment=lambda images: images if "a" in {{"a", "b", "c"}} else None)
run = mh.fit(model, loader, split, epochs=1, optimizer=optimizer,
             scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9),
             loss_fn=functools.partial(F.cross_entropy, label_smoothing=0.1))
import json, sys
json.dump(run.card["recipe"], open(sys.argv[1], "w"))
"""
    for seed in "12":
        subprocess.run([sys.executable, "-c", script, tmp_path / seed], check=True, env=os.environ | {
            "PYTHONHASHSEED": seed}, capture_output=True)
    told = [(tmp_path / seed).read_text() for seed in "12"]
    assert told[0] == told[1] and "0x" not in told[0]


# ---------------------------------------------------------------- replay


@pytest.fixture
def recorded(split, network, tmp_path, monkeypatch):
    """``start(profile, **changes)`` trains in a profile; what the full one makes is kept and stamped."""
    monkeypatch.setattr(checkpoint, "project_root", lambda: tmp_path)
    monkeypatch.delenv("MNIST_COLLECT", raising=False)

    def start(profile, seed=0, images=split.images, model=None, **changes):
        data = Split(images, split.labels, "MNIST", "train", "mnist", profile)
        return train(model or network(seed), data, **{"augment": AUGMENT, "epochs": 2} | changes)

    run = start("full")
    (tmp_path / "results" / "kept").mkdir(parents=True)
    checkpoint.keep(run, checkpoint.kept_folder())
    stamp = {"recipe": "", "package": checkpoint.package_digest(), "trace": "recorded"}
    (tmp_path / "results" / "stamps.json").write_text(json.dumps({run.id: stamp}))
    return run, start


def test_a_replay_is_the_recorded_training(recorded, split, capsys, monkeypatch):
    run, start = recorded
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.delattr("mnist_helpers.train.train_epoch")  # nothing is trained
        again = start("recorded")
    said = capsys.readouterr().out
    assert again.replayed and not run.replayed and said.count("\n") == 1
    assert said.startswith("replayed: 2 epochs, ") and f": loss {run.history['train_loss'][-1]:.4f}, " in said
    assert same(run.model, again.model) and (run.id, run.weights) == (again.id, again.weights)
    assert again.history == run.history and again.batch_loss == pytest.approx(run.batch_loss)
    ours, theirs = (mh.evaluate(each.model, split) for each in (run, again))
    assert torch.equal(ours.logits, theirs.logits) and ours.weights == theirs.weights == again.weights
    assert not start("full").replayed


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.once = nn.Linear(784, 784)
        self.again, self.last = self.once, nn.Linear(784, 10)

    def forward(self, x):
        return self.last(self.again(self.once(x.flatten(1)).relu()).relu())


def test_a_layer_used_in_two_places_is_kept_and_replayed(recorded):
    """safetensors refuses two names for one memory."""
    _, start = recorded
    mh.set_seed(0)
    run = start("full", model=Tied())
    weights = checkpoint.read_kept(checkpoint.keep(run, checkpoint.kept_folder()))["weights"]
    assert torch.equal(weights["once.weight"], weights["again.weight"]) and len(weights) == 6
    fresh = Tied()
    fresh.load_state_dict(weights)
    assert same(fresh, run.model) and fresh.once is fresh.again


@pytest.mark.parametrize("change", [
    {"epochs": 1}, {"seed": 1}, {"lr": 0.02}, {"augment": None}, {"batch_size": 16}, {"scheduler": SCHEDULERS[1]},
    {"images": torch.zeros(100, 1, 28, 28, dtype=torch.uint8)}, {"val": None}], ids=lambda change: ", ".join(change))
def test_another_training_is_not_replayed_and_says_why(recorded, change, capsys):
    capsys.readouterr()
    assert not recorded[1]("recorded", **change).replayed
    said = capsys.readouterr().out.partition("epoch 1/")[0]
    named = {"lr": "optimizer", "batch_size": "batches", "images": "training images", "val": "validation images"}
    assert named.get(*change, *change) in said


def test_other_starting_weights_other_draws_and_an_old_package_are_not_replayed(recorded, network, capsys, monkeypatch):
    run, start = recorded
    other = network()
    other[0].weight.data[0] = 0
    torch.manual_seed(0)
    assert not start("recorded", model=other).replayed
    model = network()
    torch.rand(1)  # the images come in another order
    assert not start("recorded", model=model).replayed
    monkeypatch.setattr(checkpoint, "package_digest", lambda: "other")
    assert not start("recorded").replayed
    assert capsys.readouterr().out.count("training, since") == 3


@pytest.mark.parametrize("damage", ["a part", "other weights", "a digit of the history", "a neighbour"])
def test_damaged_weights_are_never_replayed_silently(recorded, damage):
    run, start = recorded
    (path,) = checkpoint.kept_folder().iterdir()
    content = path.read_bytes()
    if damage == "a part":
        path.write_bytes(content[:100])
    elif damage == "other weights":
        path.write_bytes(content[:-400] + bytes(400))
    elif damage == "a digit of the history":
        accuracy = json.dumps(run.history["val_accuracy"][-1]).encode()
        assert content.count(accuracy) == 1
        path.write_bytes(content.replace(accuracy, accuracy[:-1] + (b"3" if accuracy[-1:] != b"3" else b"4")))
    else:
        path.write_bytes(content[:100])
        path.rename(path.with_name("Sequential-s0-00000000.safetensors"))
    assert not start("recorded").replayed


def test_what_is_collected_is_what_is_kept_and_a_trace_is_its_first_losses(recorded, tmp_path, monkeypatch):
    run, start = recorded
    monkeypatch.setenv("MNIST_COLLECT", str(tmp_path / "collected"))
    (tmp_path / "collected").mkdir()
    start("full")
    kept = checkpoint.read_kept(tmp_path / "collected" / f"{run.id}.safetensors")
    assert kept["batch_loss"] == pytest.approx(run.batch_loss) and set(kept["history"]) == set(run.history)
    assert all(torch.equal(kept["weights"][name], value) for name, value in run.model.state_dict().items())
    monkeypatch.setattr(checkpoint, "TRACE_STEPS", 3)
    for precision in (None, torch.bfloat16):
        whole = start("full", precision=precision)
        traced = start("trace", precision=precision)
        content = json.loads((tmp_path / "collected" / f"{whole.id}.trace.json").read_text())
        assert content["losses"] == traced.batch_loss == whole.batch_loss[:3]
    assert checkpoint.TRACE_STEPS == 3


def test_a_trace_ends_with_the_kept_weights_of_its_run(recorded, monkeypatch):
    """A pupil's first losses depend on its teacher, of which the trace takes a few steps only."""
    run, start = recorded
    monkeypatch.setattr(checkpoint, "TRACE_STEPS", 3)
    traced = start("trace")
    assert same(traced.model, run.model) and not traced.model.training
    assert not same(start("trace", lr=0.02).model, run.model), "nothing of that run is kept"


def test_the_kept_files_of_the_course_are_what_they_were(recorded):
    """Those with a digest inside, and those with one beside them."""
    folder = data.project_root() / "results" / "kept"
    beside = json.loads((folder / "digests.json").read_text(encoding="utf-8"))
    for path in sorted(folder.glob("*.safetensors"))[::7]:
        checkpoint.read_kept(path)
    name = next(name for name in beside if (folder / f"{name}.safetensors").is_file())
    content = (folder / f"{name}.safetensors").read_bytes()
    kept = checkpoint.kept_folder() / f"{name}.safetensors"
    kept.write_bytes(content)
    (kept.parent / "digests.json").write_text(json.dumps(beside))
    checkpoint.read_kept(kept)
    kept.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(CheckpointError, match=name):
        checkpoint.read_kept(kept)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', '{"a": {}}'])
def test_damaged_stamps_are_named(recorded, text):
    checkpoint.stamps_file().write_text(text)
    with pytest.raises(ValueError, match=r"stamps\.json is damaged"):
        checkpoint.stamps()


def test_the_digest_of_nothing_is_a_digest():
    assert recipe.syntax("") == recipe.syntax("# a comment\n") != recipe.syntax("x = 1")


def test_a_global_that_is_only_called_like_an_attribute_is_no_part_of_a_recipe(network):
    scope = {"nn": nn, "high": 1.0}
    exec("class Net(nn.Module):\n    def forward(self, x):\n        return self.high(x)", scope)
    told = recipe.told_model(scope["Net"]())
    scope["high"] = 2.0
    assert recipe.told_model(scope["Net"]()) == told
