"""The loop against a naive one, its repeatability, its checkpoints under a real SIGKILL, and its refusals."""

import copy
import functools
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

import mnist_helpers as mh
from mnist_helpers import training

AUGMENT = mh.Augment(mh.Rotation(10), mh.Translation(0.1))


def train(model, data, epochs=3, scheduler=None, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"batch_size": 32, "progress": False} | options
    return mh.fit(model, data, data, epochs=epochs, optimizer=optimizer,
                  scheduler=scheduler(optimizer) if scheduler else None, **options)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---------------------------------------------------------------- against a naive loop


def test_fit_is_the_naive_loop(tiny, network):
    """One image's loss at a time, sums in Python floats; 100 images in batches of 32 leave a last batch of 4."""
    images, labels = tiny
    model, naive = network().eval(), network()  # in whatever mode it comes, it is trained in training mode
    scheduler = lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5)  # noqa: E731
    torch.manual_seed(7)
    history = train(model, tiny, epochs=2, scheduler=scheduler)

    torch.manual_seed(7)
    optimizer = torch.optim.Adam(naive.parameters(), lr=1e-2)
    decay = scheduler(optimizer)
    shuffler = torch.Generator().manual_seed(torch.randint(2**62, ()).item())
    for epoch in range(2):
        naive.train()
        loss_sum, correct, rates = 0.0, 0, []
        for batch in torch.randperm(100, generator=shuffler).split(32):
            logits = naive((images[batch] / 255 - 0.1307) / 0.3081)
            losses = [F.cross_entropy(row[None], label[None])
                      for row, label in zip(logits, labels[batch], strict=True)]
            optimizer.zero_grad()
            (sum(losses) / len(losses)).backward()
            optimizer.step()
            rates.append(optimizer.param_groups[0]["lr"])
            loss_sum += sum(loss.item() for loss in losses)
            correct += sum(int(row.argmax() == label) for row, label in zip(logits, labels[batch], strict=True))
        assert history["train_loss"][epoch] == pytest.approx(loss_sum / 100, rel=1e-5)
        assert history["train_accuracy"][epoch] == pytest.approx(correct / 100)
        assert history["lr"][epoch] == rates[-1] == 0.01 * 0.5**epoch
        decay.step()
    for ours, theirs in zip(model.state_dict().values(), naive.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_evaluate_weighs_every_image_alike(tiny, network):
    images, labels = tiny
    model = network().eval()
    logits = model((images / 255 - 0.1307) / 0.3081).detach()
    losses = [F.cross_entropy(row[None], label[None]).item() for row, label in zip(logits, labels, strict=True)]
    for batch_size in (1, 33, 1000):
        result = mh.evaluate(model, tiny, batch_size=batch_size)
        assert result.loss == pytest.approx(sum(losses) / 100, rel=1e-5)
        assert (result.correct, result.total) == (int((logits.argmax(1) == labels).sum()), 100)
        torch.testing.assert_close(result.logits, logits)


def test_history_is_one_entry_an_epoch_and_the_last_is_the_models(tiny, network):
    model = network()
    history = train(model, tiny, epochs=3)
    assert all(len(history[name]) == 3 for name in ("train_loss", "val_accuracy", "lr", "seconds"))
    assert len(history["batch_loss"]) == 3 * 4
    result = mh.evaluate(model, tiny)
    assert (history["val_loss"][-1], history["val_accuracy"][-1]) == (result.loss, result.accuracy)
    assert history["val_accuracy"][-1] > 0.5, "it learns"


def test_the_rate_of_an_epoch_is_that_of_its_last_step(tiny, network):
    used = []

    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            used.append(self.param_groups[0]["lr"])
            super().step(closure)

    model = network()
    optimizer = Noting(model.parameters(), lr=0.1)
    history = mh.fit(model, tiny, tiny, epochs=3, optimizer=optimizer, batch_size=32, progress=False,
                     scheduler=lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12), scheduler_every="step")
    assert len(used) == 12 and history["lr"] == used[3::4]


@pytest.mark.parametrize(("make", "every", "calls"), [
    (lambda optimizer: lr_scheduler.StepLR(optimizer, 1), "epoch", 3),
    (lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12), "step", 12),
])
def test_schedulers_step_every_epoch_or_every_step(tiny, network, make, every, calls):
    schedulers = []
    train(network(), tiny, scheduler=lambda optimizer: schedulers.append(make(optimizer)) or schedulers[0],
          scheduler_every=every)
    assert schedulers[0].last_epoch == calls


def test_a_plateau_scheduler_is_given_the_validation_loss(tiny, network):
    schedulers = []
    history = train(network(), tiny, scheduler=lambda optimizer: schedulers.append(
        lr_scheduler.ReduceLROnPlateau(optimizer)) or schedulers[0])
    assert schedulers[0].best == pytest.approx(min(history["val_loss"]))


def test_without_validation_images_the_weights_are_the_same(tiny, network):
    models, histories = [], []
    for val in (tiny, None):
        mh.set_seed(0)
        models.append(network())
        optimizer = torch.optim.Adam(models[-1].parameters(), lr=1e-2)
        histories.append(mh.fit(models[-1], tiny, val, epochs=2, optimizer=optimizer, batch_size=32, augment=AUGMENT,
                                progress=False))
    assert same(*models)
    assert histories[0]["train_loss"] == histories[1]["train_loss"] and len(histories[1]["train_loss"]) == 2
    assert histories[1]["val_loss"] == histories[1]["val_accuracy"] == []
    assert histories[1]["images"] == len(tiny[1])
    with pytest.raises(ValueError, match="ReduceLROnPlateau follows the validation loss"):
        mh.fit(models[-1], tiny, None, epochs=1, optimizer=optimizer,
               scheduler=lr_scheduler.ReduceLROnPlateau(optimizer))


def test_any_loss_is_trained(tiny, network):
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    model = network()
    history = train(model, tiny, loss_fn=smoothed)
    assert history["val_loss"][-1] == pytest.approx(mh.evaluate(model, tiny, loss_fn=smoothed).loss)
    assert history["val_loss"][-1] > mh.evaluate(model, tiny).loss


def test_only_training_images_are_augmented(tiny, network):
    seen = []

    def augment(images, generator):
        seen.append(len(images))
        return images.float() / 255

    train(network(), tiny, epochs=1, augment=augment)
    assert sum(seen) == 100


def test_nothing_waits_for_the_device_in_an_epoch(tiny, network, monkeypatch):
    """The values of single batches are never read: a fixed number of reads, however many batches there are."""
    reads = []
    for name in ("item", "tolist"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name,
                            lambda tensor, original=original: reads.append(1) or original(tensor))
    counts = []
    for batch_size in (50, 2):
        reads.clear()
        model = network()
        training.train_epoch(model, tiny, optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
                             batch_size=batch_size)
        counts.append(len(reads))
    assert counts[0] == counts[1] < 10


def test_precision_is_that_of_the_forward_pass_in_training_alone(tiny, network):
    model, seen = network(), []
    model[-1].register_forward_hook(lambda layer, inputs, output: seen.append((model.training, output.dtype)))

    def loss_fn(logits, targets):
        assert logits.dtype == torch.float32
        return F.cross_entropy(logits, targets)

    history = train(model, tiny, epochs=1, precision=torch.bfloat16, loss_fn=loss_fn)
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert history["precision"] == "bfloat16" and train(network(), tiny, epochs=1)["precision"] == "float32"


def test_bfloat16_is_fast_only_where_there_are_units_for_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert training.fast_precision(torch.device("cpu")) == torch.bfloat16
    assert training.fast_precision(torch.device("mps")) is None
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert training.fast_precision(torch.device("cpu")) is None
    for capability, precision in (((7, 5), None), ((8, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert training.fast_precision(torch.device("cuda")) == precision


# ---------------------------------------------------------------- repeatability, and what is left alone


def test_same_seed_same_weights_bit_for_bit(tiny, network):
    models = []
    for seed in (3, 3, 4):
        model = network()
        mh.set_seed(seed)
        train(model, tiny, augment=AUGMENT)
        models.append(model)
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_evaluation_leaves_model_and_random_state_as_they_were(tiny, network):
    class Drawing(nn.Module):  # draws even in eval mode
        def forward(self, x):
            return x + 0 * torch.rand(())

    model = nn.Sequential(network(), Drawing()).train()
    model[0][1].eval()  # a frozen batch norm
    before, modes, state = copy.deepcopy(model), [m.training for m in model.modules()], torch.get_rng_state()
    mh.evaluate(model, tiny, augment=AUGMENT)
    assert same(before, model) and modes == [m.training for m in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert mh.evaluate(model, tiny, augment=AUGMENT).loss == mh.evaluate(model, tiny, augment=AUGMENT).loss


def test_modes_are_restored_after_an_error(tiny):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 10)).train()
    with pytest.raises(RuntimeError):
        mh.evaluate(model, tiny)
    assert model.training


# ---------------------------------------------------------------- checkpoints

SCHEDULERS = [
    (None, "epoch"),
    (lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5), "epoch"),
    (lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [1, 2]), "epoch"),
    (lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=16), "step"),
    (lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0), "epoch"),
    (lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch), "epoch"),
    (lambda optimizer: lr_scheduler.SequentialLR(optimizer, [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=4),
                                                             lr_scheduler.CosineAnnealingLR(optimizer, 12)], [4]),
     "step"),
]


class Stop(Exception):
    pass


@pytest.mark.parametrize(("scheduler", "every"), SCHEDULERS)
def test_a_stopped_run_goes_on_to_the_same_weights(tiny, network, tmp_path, scheduler, every, monkeypatch):
    options = {"epochs": 4, "scheduler": scheduler, "scheduler_every": every, "augment": AUGMENT}
    whole = network(5)
    expected = train(whole, tiny, **options)

    original, saves = training._save, []

    def save_then_stop(*args):
        original(*args)
        saves.append(1)
        if len(saves) == 2:
            raise Stop

    monkeypatch.setattr(training, "_save", save_then_stop)
    with pytest.raises(Stop):
        train(network(5), tiny, checkpoint=tmp_path / "run.pt", **options)
    monkeypatch.setattr(training, "_save", original)
    resumed = network(5)
    history = train(resumed, tiny, checkpoint=tmp_path / "run.pt", **options)
    assert same(whole, resumed)
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "batch_loss"):
        assert history[name] == expected[name]


@pytest.mark.parametrize(("scheduler", "every"), SCHEDULERS)
def test_an_interrupted_run_goes_on_with_the_same_optimizer_and_scheduler(tiny, network, tmp_path, scheduler, every):
    """As in a notebook, where the cell that calls `fit` is run again."""
    model, calls = network(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"optimizer": optimizer, "scheduler": scheduler(optimizer) if scheduler else None, "batch_size": 32,
               "scheduler_every": every, "checkpoint": tmp_path / "run.pt", "progress": False}

    def interrupt(logits, targets):
        calls.append(1)
        if len(calls) == 11:  # in the third epoch, validation included
            raise KeyboardInterrupt
        return F.cross_entropy(logits, targets)

    assert mh.fit(model, tiny, tiny, epochs=4, loss_fn=interrupt, **options)["interrupted"]
    assert len(mh.fit(model, tiny, tiny, epochs=4, loss_fn=interrupt, **options)["seconds"]) == 4


def test_a_group_of_other_options_is_another_recipe(tiny, network, tmp_path):
    def run(**group):
        model = network()
        optimizer = torch.optim.SGD([{"params": model.parameters(), **group}], lr=0.1)
        mh.fit(model, tiny, tiny, epochs=1, optimizer=optimizer, checkpoint=tmp_path / "run.pt", progress=False)

    run(weight_decay=0.1)
    run(weight_decay=0.1)
    for change in ({"weight_decay": 0.2}, {"weight_decay": 0.1, "lr": 0.2}):
        with pytest.raises(mh.training.CheckpointError, match="optimizer"):
            run(**change)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    """A real SIGKILL in the middle of an epoch, in a process of its own."""
    script = Path(__file__).with_name("training_to_kill.py")

    def start(checkpoint, weights):
        return subprocess.Popen([sys.executable, script, checkpoint, weights], stdout=subprocess.PIPE, text=True)

    assert start("none", tmp_path / "whole.pt").wait(120) == 0
    process = start(tmp_path / "run.pt", tmp_path / "killed.pt")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # into the next epoch
    process.kill()
    assert process.wait(30) != 0 and not (tmp_path / "killed.pt").exists()
    process = start(tmp_path / "run.pt", tmp_path / "resumed.pt")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "going on from run.pt" in said
    whole, resumed = torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "resumed.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_finished_run_is_not_trained_again(tiny, network, tmp_path):
    first = network()
    train(first, tiny, checkpoint=tmp_path / "run.pt")
    again = network()
    history = train(again, tiny, checkpoint=tmp_path / "run.pt")
    assert same(first, again) and len(history["seconds"]) == 3


@pytest.mark.parametrize(("change", "named"), [
    ({"batch_size": 16}, "batch_size: 32 there, 16 here"),
    ({"augment": AUGMENT}, "augmentation: None there"),
    ({"scheduler": lambda optimizer: lr_scheduler.StepLR(optimizer, 2)}, "scheduler: NoneType"),
    ({"loss_fn": F.multi_margin_loss}, "loss: cross_entropy there, multi_margin_loss here"),
    ({"normalize": torch.Tensor.float}, "normalization: normalize there, float here"),
    ({"precision": torch.bfloat16}, "precision: torch.float32 there, torch.bfloat16 here"),
    ({"epochs": 1}, "3 epochs, and 1 were asked for"),
])
def test_a_checkpoint_of_another_recipe_is_refused_by_name(tiny, network, tmp_path, change, named):
    train(network(), tiny, checkpoint=tmp_path / "run.pt")
    kept = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(mh.training.CheckpointError, match=named):
        train(network(), tiny, checkpoint=tmp_path / "run.pt", **change)
    assert (tmp_path / "run.pt").read_bytes() == kept


def test_the_recipe_does_not_depend_on_addresses_and_knows_milestones(tiny, network):
    def recipe(milestones):
        model = network()
        optimizer = torch.optim.Adam(model.parameters())
        return training._recipe(
            model=model, optimizer=optimizer, scheduler=lr_scheduler.MultiStepLR(optimizer, milestones),
            scheduler_every="epoch", loss_fn=functools.partial(F.cross_entropy, label_smoothing=0.1), batch_size=8,
            augment=lambda images, generator: images, normalize=mh.normalize, precision=None, train=tiny, val=None)

    assert "0x" not in str(recipe([1, 2]))
    assert recipe([1, 2]) == recipe([1, 2]) != recipe([1, 3])


def test_a_checkpoint_of_another_model_seed_or_data_is_refused_by_name(tiny, network, tmp_path):
    path = tmp_path / "run.pt"
    train(network(), tiny, checkpoint=path)
    images, labels = tiny
    with pytest.raises(mh.training.CheckpointError, match="seed: 0 there, 1 here"):
        train(network(1), tiny, checkpoint=path)
    with pytest.raises(mh.training.CheckpointError, match="training images: 100"):
        train(network(), (images, labels.roll(1)), checkpoint=path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(mh.training.CheckpointError, match="model: Sequential"):
        train(other, tiny, checkpoint=path)


def test_a_checkpoint_with_validation_is_not_continued_without(tiny, network, tmp_path):
    train(network(), tiny, checkpoint=tmp_path / "run.pt")
    model = network()
    with pytest.raises(mh.training.CheckpointError, match="validation images: 100 there, none here"):
        mh.fit(model, tiny, None, epochs=3, optimizer=torch.optim.Adam(model.parameters(), lr=1e-2), batch_size=32,
               progress=False, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named_and_kept(tiny, network, tmp_path, content):
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(mh.training.CheckpointError, match=r"run.pt is not a checkpoint .* or is damaged"):
        train(network(), tiny, checkpoint=path)
    assert path.read_bytes() == content


def test_checkpoints_hold_plain_data_only(tiny, network, tmp_path):
    """Loading them cannot run code that somebody put into them."""
    train(network(), tiny, checkpoint=tmp_path / "run.pt", scheduler=SCHEDULERS[1][0])
    assert torch.load(tmp_path / "run.pt", weights_only=True)["history"]["val_accuracy"]


# ---------------------------------------------------------------- things that go wrong


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch(tiny, network):
    calls = []

    def loss_fn(logits, targets):
        if logits.requires_grad:
            calls.append(1)
        return F.cross_entropy(logits, targets) * (float("nan") if len(calls) == 4 + 3 else 1)

    with pytest.raises(mh.training.TrainingDiverged, match=r"nan in batch 3 of 4, in epoch 2. Try a smaller") as error:
        train(network(), tiny, loss_fn=loss_fn)
    assert len(error.value.history["seconds"]) == 1


def test_a_keyboard_interrupt_returns_the_history_so_far(tiny, network, capsys):
    calls = []

    def augment(images, generator):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return images

    history = train(network(), tiny, augment=augment)
    assert history["interrupted"] and len(history["val_loss"]) == 1
    assert "1 epochs completed before" in capsys.readouterr().out


def test_senseless_arguments_are_refused(tiny, network):
    images, labels = tiny
    for change, message in (({"epochs": 0}, "at least 1"), ({"batch_size": 0}, "at least 1"),
                            ({"scheduler_every": "batch"}, "'epoch' or 'step', not 'batch'")):
        with pytest.raises(ValueError, match=message):
            train(network(), tiny, **change)
    with pytest.raises(ValueError, match="100 images but 99 labels"):
        train(network(), (images, labels[1:]))
    with pytest.raises(ValueError, match="no images"):
        mh.evaluate(network(), (images[:0], labels[:0]))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no 'tpu' device here; use one of .*cpu"):
        mh.get_device("tpu")
    assert mh.get_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_on_cuda(tiny, network):
    model = network().cuda()
    history = train(model, tiny, augment=AUGMENT, epochs=5)
    assert history["val_accuracy"][-1] > 0.5 and "cuda" in history["device"]


def test_one_bar_an_epoch_shows_loss_and_accuracy(tiny, network, capsys):
    train(network(), tiny, epochs=2, progress=True)
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().out.strip().split("\n")]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("100%" in line and "loss" in line and "accuracy" in line and "validation" in line for line in lines)


# ---------------------------------------------------------------- speed, as counts that no busy machine changes


class Operations(TorchDispatchMode):
    """Counts every operation PyTorch runs inside, by name; ``aten._local_scalar_dense`` waits for the device."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.counts[str(operation.overloadpacket)] += 1
        return operation(*arguments, **keywords or {})


def operations(network, tiny, batch_size, repeats=1):
    images, labels = (tensor.repeat(repeats, *[1] * (tensor.ndim - 1)) for tensor in tiny)
    augment = mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(15), mh.Translation(0.1), mh.Brightness(0.2))
    model = network()
    with Operations() as inside:
        # SGD, since Adam reads its own step counts, which stay on the CPU.
        training.train_epoch(model, (images, labels), optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
                             batch_size=batch_size, augment=augment)
    return inside.counts


def test_an_epoch_does_not_wait_for_the_device_batch_by_batch(network, tiny, monkeypatch):
    """... nor block by block: with as many blocks as batches, each is gathered and augmented anew."""
    monkeypatch.setattr(training, "BLOCK_IMAGES", 20)
    few, many = operations(network, tiny, 20), operations(network, tiny, 20, repeats=4)
    waits = [sum(counts[f"aten.{name}"] for name in ("_local_scalar_dense", "nonzero", "equal"))
             for counts in (few, many)]
    assert waits[0] == waits[1] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="waiting for a GPU takes a GPU: PyTorch counts it on CUDA")
def test_an_epoch_does_not_wait_for_a_gpu_batch_by_batch(network, tiny, monkeypatch):
    monkeypatch.setattr(training, "BLOCK_IMAGES", 20)
    waits = []
    for repeats in (1, 4):
        split = [tensor.repeat(repeats, *[1] * (tensor.ndim - 1)).cuda() for tensor in tiny]
        model = network().cuda()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                training.train_epoch(model, split, batch_size=20, augment=AUGMENT, precision=torch.bfloat16,
                                     optimizer=torch.optim.Adam(model.parameters(), fused=True))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("called a synchronizing CUDA operation" in str(each.message) for each in said))
    assert waits[0] == waits[1] > 0


def test_without_a_bar_nothing_is_read_for_one(network, tiny, monkeypatch):
    monkeypatch.setattr(training, "REFRESH_SECONDS", -1)  # else once in half a second
    counts = []
    for progress in (False, True):
        model = network()
        with Operations() as inside:
            mh.fit(model, tiny, None, epochs=1, batch_size=10, progress=progress,
                   optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
        counts.append(inside.counts["aten._local_scalar_dense"])
    assert counts[1] > counts[0] + 10


def test_no_work_is_done_image_by_image(network, tiny):
    """A batch of twice the size takes the same operations, each on more images."""
    assert operations(network, tiny, 20) == operations(network, tiny, 40, repeats=2)


def test_images_are_gathered_and_resampled_once_for_many_batches(network, tiny, monkeypatch):
    for block_images, blocks in ((1024, 1), (40, 3), (10, 5)):  # of 100 images in batches of 20
        monkeypatch.setattr(training, "BLOCK_IMAGES", block_images)
        counts = operations(network, tiny, 20)
        assert counts["aten.grid_sampler_2d"] == blocks
        assert counts["aten.index"] == 2 * blocks  # the images and their labels


def test_blocks_change_nothing(network, tiny, monkeypatch):
    """Not a bit of the weights, also with a last batch and a last block that are smaller than the others."""
    models = []
    for block_images in (1, 64, 1024):
        monkeypatch.setattr(training, "BLOCK_IMAGES", block_images)
        models.append(network())
        mh.set_seed(0)
        train(models[-1], tiny, augment=AUGMENT, batch_size=32)
    assert same(models[0], models[1]) and same(models[0], models[2])


def test_a_function_as_augmentation_is_given_one_batch_after_another(network, tiny):
    sizes = []

    def augment(images, generator):
        sizes.append(len(images))
        return images

    train(network(), tiny, epochs=1, augment=augment, batch_size=32)
    assert sizes == [32, 32, 32, 4]


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_batch_norms_that_share_cache_lines_are_fed_contiguous_images(tiny, two_threads, monkeypatch):
    """... and gradients, in training on several threads, and hand on channels-last ones; to the same weights, and not
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
        training.train_epoch(model, tiny, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
        assert all(handed_on.values())
        during = dict(fed)
        assert gradients == during
        model(torch.zeros(2, 1, 28, 28))
        return model, during, fed

    compute = F.batch_norm
    one, during, _ = trained(threads=1)
    assert during == {8: False, 16: False, 20: False}
    two, during, afterwards = trained(threads=2)
    assert during == {8: True, 16: False, 20: True}
    assert afterwards == {8: False, 16: False, 20: False}
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
    training.train_epoch(model, tiny, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    assert sum(calls) == 100 and norm.forward is forward


@pytest.mark.skipif(sys.platform != "linux", reason="how the C library keeps memory is set with glibc's `mallopt`")
def test_freed_memory_is_kept_for_the_next_step():
    """Sixteen blocks of 4 MB, taken and freed again and again: only the first time do they cost page faults."""
    script = """
import resource, torch
from mnist_helpers import training
training.keep_freed_memory()
faults = []
for step in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2**20) for _ in range(16)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[4:]))
"""
    # Without: 16,384 for each of the four steps that are counted, unless something happens to lie above the blocks.
    assert int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout) < 3_000
