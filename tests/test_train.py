"""The loop against a naive one; every kind of batches; what ends a training, and what it leaves alone."""

import copy
import csv
import io
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import AUGMENT, in_a_sentence, same, stop_at, train
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler
from tqdm import tqdm

import mnist_helpers as mh
from mnist_helpers import device
from mnist_helpers.data import Split
from mnist_helpers.train import Interrupted, TrainingDiverged, each_step, train_epoch


@pytest.fixture
def split(tiny):
    return Split(*tiny, "MNIST", "train")


@pytest.fixture
def floats(split):
    return TensorDataset(mh.normalize(split.images), split.labels)


# ---------------------------------------------------------------- against a naive loop


def test_fit_is_the_naive_loop(split, network, monkeypatch):
    """One image's loss at a time, sums in Python floats; 100 images in batches of 32 leave a last batch of 4."""
    monkeypatch.setattr(device, "_threads", torch.get_num_threads())
    images, labels = split.images, split.labels
    model, naive = network().eval(), network()  # in eval mode as a whole, it is trained in training mode
    scheduler = lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5)  # noqa: E731
    torch.manual_seed(7)
    history = train(model, split, epochs=2, scheduler=scheduler).history

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


def test_evaluate_weighs_every_image_alike(split, network):
    model = network().eval()
    logits = model((split.images / 255 - 0.1307) / 0.3081).detach()
    losses = [F.cross_entropy(row[None], label[None]).item() for row, label in zip(logits, split.labels, strict=True)]
    for data, options in ((split, {}), (split, {"batch_size": 33}), (DataLoader(split, 7), {}),
                          ((split.images, split.labels), {"batch_size": 1})):
        result = mh.evaluate(model, data, **options)
        assert result.loss == pytest.approx(sum(losses) / 100, rel=1e-5)
        assert (result.correct, result.total) == (int((logits.argmax(1) == split.labels).sum()), 100)
        assert result.accuracy == result.correct / 100 and torch.equal(result.labels, split.labels)
        torch.testing.assert_close(result.logits, logits)


def test_a_run_has_an_entry_an_epoch_and_the_last_is_the_models(split, network):
    model = network()
    run = train(model, split, epochs=3)
    assert run.model is model and not any(module.training for module in model.modules()), "in eval mode"
    assert {len(column) for column in run.history.values()} == {3} and len(run.batch_loss) == 3 * 4
    result = mh.evaluate(model, split)
    assert run.history["val_loss"][-1] == pytest.approx(result.loss)
    assert run.history["val_accuracy"][-1] == result.accuracy > 0.5, "it learns"
    # ... and it is a table, for pandas or a CSV file in a line.
    file = io.StringIO()
    csv.writer(file).writerows([run.history, *zip(*run.history.values(), strict=True)])
    rows = list(csv.DictReader(file.getvalue().splitlines()))
    assert [float(row["val_loss"]) for row in rows] == run.history["val_loss"]


def test_runs_and_evaluations_know_the_network_and_the_images(split, network):
    model = network()
    run = train(model, split, epochs=1)
    test = mh.evaluate(model, split)
    assert test.weights == run.weights and test.split is split and not run.replayed
    assert mh.evaluate(network(), split).weights != run.weights
    card = run.card
    assert (card["parameters"], card["epochs"], card["images"], card["source"]) == (2_018, 1, 100, "MNIST")
    assert card["threads"] == device.threads() and card["precision"] == "float32" and "cpu" in card["device"]
    assert card["versions"]["torch"] and card["seed"] == 0
    ids = [train(network(seed), split, epochs=epochs).id for seed, epochs in ((0, 1), (1, 1), (0, 2))]
    assert ids[0] == run.id and len(set(ids)) == 3 and all(id.startswith("Sequential-s") for id in ids)
    mh.evaluate(model.train(), split)
    model(mh.normalize(split.images))  # a look in train mode moves the batch norms
    assert mh.evaluate(model, split).weights != run.weights


# ---------------------------------------------------------------- schedulers and optimisers


def test_the_rate_of_an_epoch_is_that_of_its_last_step(split, network):
    used = []

    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            used.append(self.param_groups[0]["lr"])
            super().step(closure)

    model = network()
    optimizer = Noting(model.parameters(), lr=0.1)
    run = mh.fit(model, mh.Loader(split, 32), split, epochs=3, optimizer=optimizer,
                 scheduler=each_step(lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12)))
    assert len(used) == 12 and run.history["lr"] == used[3::4]


@pytest.mark.parametrize(("make", "calls"), [
    (lambda optimizer: lr_scheduler.StepLR(optimizer, 1), 3),
    (lambda optimizer: each_step(lr_scheduler.StepLR(optimizer, 1)), 12),
    (lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3), 3),
])
def test_schedulers_step_every_epoch_or_every_step(split, network, make, calls):
    schedulers = []
    train(network(), split, scheduler=lambda optimizer: schedulers.append(make(optimizer)) or schedulers[0])
    assert schedulers[0].last_epoch == calls


@pytest.mark.parametrize(("total", "every_step"), [(12, False), (300, False), (11, True), (3, True)])
def test_a_cycle_that_does_not_fit_is_refused_before_the_first_step(split, network, total, every_step):
    model, before = network(), network()
    with pytest.raises(ValueError) as error:
        train(model, split, scheduler=lambda optimizer: (each_step if every_step else lambda same: same)(
            lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=total)))
    assert in_a_sentence(error) and str(total) in str(error.value) and same(model, before)


def test_a_plateau_scheduler_is_given_the_validation_loss(split, network):
    schedulers = []
    history = train(network(), split, scheduler=lambda optimizer: schedulers.append(
        lr_scheduler.ReduceLROnPlateau(optimizer)) or schedulers[0]).history
    assert schedulers[0].best == pytest.approx(min(history["val_loss"]))
    with pytest.raises(ValueError) as error:
        train(network(), split, val=None, scheduler=lr_scheduler.ReduceLROnPlateau)
    assert in_a_sentence(error)


def test_a_tensor_as_rate_is_noted_as_numbers(split, network):
    history = train(network(), split, lr=torch.tensor(0.01),
                    scheduler=lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5)).history
    assert history["lr"] == pytest.approx([0.01, 0.005, 0.0025]) and all(type(rate) is float for rate in history["lr"])


def test_what_the_loop_cannot_do_is_refused_in_a_sentence(split, network):
    model = network()
    for optimizer in (torch.optim.LBFGS(model.parameters()), torch.optim.SGD(network().parameters(), lr=0.1)):
        with pytest.raises(ValueError) as error:
            mh.fit(model, split, split, epochs=1, optimizer=optimizer)
        assert in_a_sentence(error)
    with pytest.raises(ValueError) as error:
        train(model, split, epochs=0)
    assert in_a_sentence(error)


# ---------------------------------------------------------------- batches are the seam


class Decoded(Dataset):
    """As torchvision's datasets: an image and a label, after a transform."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        image, label = self.split[index]
        return (image / 255 - 0.1307) / 0.3081, label


class Stream(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return map(self.dataset.__getitem__, range(len(self.dataset)))


class Unsized:
    """Batches without a length."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        yield from DataLoader(self.dataset, 32)


BROUGHT = {
    "our loader": lambda split, floats: mh.Loader(split, 32),
    "a DataLoader": lambda split, floats: DataLoader(floats, 32, shuffle=True),
    "a DataLoader of a Split with workers": lambda split, floats: DataLoader(split, 32, shuffle=True, num_workers=2),
    "a Split": lambda split, floats: split,
    "a TensorDataset": lambda split, floats: floats,
    "a Subset": lambda split, floats: Subset(floats, range(90)),
    "a Dataset that transforms": lambda split, floats: Decoded(split),
    "a stream": lambda split, floats: DataLoader(Stream(floats), 32),
    "a pair of tensors": lambda split, floats: (split.images, split.labels),
    "a pair of arrays": lambda split, floats: (split.images.numpy(), split.labels.numpy()),
    "int32 labels": lambda split, floats: DataLoader(TensorDataset(split.images, split.labels.int()), 32),
    "uint8 labels of floats": lambda split, floats: TensorDataset(floats.tensors[0], split.labels.byte()),
    "doubles": lambda split, floats: DataLoader(TensorDataset(floats.tensors[0].double(), split.labels), 32),
    "a list of batches": lambda split, floats: list(DataLoader(floats, 32)),
    "a list of two batches": lambda split, floats: list(DataLoader(floats, 50)),
    "batches of arrays": lambda split, floats: [(x.numpy(), y.numpy()) for x, y in DataLoader(floats, 32)],
    "batches without a length": lambda split, floats: Unsized(floats),
}


@pytest.mark.parametrize("brought", BROUGHT)
def test_whatever_a_pytorch_user_brings_is_trained_and_evaluated(split, floats, network, brought):
    model, before = network(), network()
    data = BROUGHT[brought](split, floats)
    images = 90 if brought == "a Subset" else 100
    run = mh.fit(model, data, data, epochs=2, optimizer=torch.optim.Adam(model.parameters(), lr=1e-2))
    assert not same(model, before) and {len(column) for column in run.history.values()} == {2}
    result, expected = mh.evaluate(model, data), mh.evaluate(model, split[:images])
    assert (result.correct, result.total) == (expected.correct, images)
    assert result.loss == pytest.approx(expected.loss, rel=1e-4)
    assert run.history["val_loss"][-1] == pytest.approx(result.loss, rel=1e-4)
    # A Split, a dataset and a pair come in batches of 64.
    if brought != "a stream":  # which has no length, though its DataLoader has a method for one
        batches = len(data) if isinstance(data, mh.Loader | DataLoader | list) else (
            4 if brought == "batches without a length" else 2)
        assert len(run.batch_loss) == 2 * batches


@pytest.mark.parametrize("batches", [
    lambda floats: [{"image": x, "label": y} for x, y in DataLoader(floats, 32)],
    lambda floats: [(x, y, y) for x, y in DataLoader(floats, 32)],
    lambda floats: [x for x, _ in DataLoader(floats, 32)],
    lambda floats: [],
    lambda floats: DataLoader(floats, 200, drop_last=True),
    lambda floats: DataLoader(Stream(floats), 200, drop_last=True),
    lambda floats: DataLoader(TensorDataset(*(tensor[:0] for tensor in floats.tensors)), 32),
    lambda floats: DataLoader(TensorDataset(255 * floats.tensors[0], floats.tensors[1]), 32),
    lambda floats: 7,
], ids=["dictionaries", "three parts", "one part", "empty list", "all dropped", "empty stream", "no images",
        "floats 0..255", "a number"])
@pytest.mark.parametrize("use", ["train", "validate", "evaluate"])
def test_other_batches_are_refused_in_a_sentence(split, floats, network, batches, use):
    with pytest.raises((TypeError, ValueError)) as error:
        if use == "evaluate":
            mh.evaluate(network(), batches(floats))
        else:
            train(network(), *([batches(floats)] if use == "train" else [split]), epochs=1,
                  val=split if use == "train" else batches(floats))
    assert in_a_sentence(error)


NAMES = [f"class {number}" for number in range(10)]
LABELS = {  # of 100 images: labels that nobody can mean, and a word of the remedy
    "one-hot integers": (lambda labels: F.one_hot(labels, 10), r"labels\.argmax\(1\)"),
    "a column": (lambda labels: labels[:, None], r"labels\[:, 0\]"),
    "names": (lambda labels: [NAMES[label] for label in labels], r"names\.index"),
    "an array of names": (lambda labels: np.array([NAMES[label] for label in labels]), r"names\.index"),
    "ignored ones": (lambda labels: torch.where(torch.arange(100) == 99, -100, labels), "labels >= 0"),
}


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("form", ["a pair", "batches"])
@pytest.mark.parametrize("use", ["train", "evaluate"])
def test_other_labels_are_refused_with_a_remedy(split, floats, network, name, form, use):
    change, remedy = LABELS[name]
    labels = change(split.labels)
    data = (split.images, labels) if form == "a pair" else [
        (floats.tensors[0][at : at + 25], labels[at : at + 25]) for at in range(0, 100, 25)]
    with pytest.raises((TypeError, ValueError), match=remedy) as error:
        if use == "train":
            train(network(), data, val=None, epochs=1)
        else:
            mh.evaluate(network(), data)
    assert in_a_sentence(error)


@pytest.mark.parametrize("labels", [tuple, list, lambda labels: np.array(labels.tolist(), dtype=object)],
                         ids=["a tuple", "a list of tensors", "an array of objects"])
def test_labels_are_numbers_in_any_container(split, network, labels):
    assert mh.evaluate(network(), (split.images, labels(split.labels))).loss == mh.evaluate(network(), split).loss


@pytest.mark.parametrize("form", ["a pair", "batches"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_probabilities_as_labels_are_trained_on_and_counted_at_the_largest(split, floats, network, form, kind):
    soft = (0.9 * F.one_hot(split.labels, 10) + 0.01).to(kind)
    data = (split.images, soft) if form == "a pair" else DataLoader(TensorDataset(floats.tensors[0], soft), 32)
    run = train(network(), data, val=data, epochs=1)
    result, hard = mh.evaluate(run.model, data), mh.evaluate(run.model, split)
    assert result.correct == hard.correct and result.labels.dtype == torch.float32
    assert result.loss == pytest.approx(F.cross_entropy(hard.logits, soft.float()).item(), rel=1e-4)


def test_doubles_are_trained_on_as_floats(split, floats, network):
    images, models = floats.tensors[0], [network(), network()]
    for model, data in zip(models, ((images, split.labels), (images.double().numpy(), split.labels)), strict=True):
        torch.manual_seed(7)
        train(model, data, val=None, epochs=1)
    assert same(*models)


def test_a_dataset_without_images_and_one_without_batches_are_refused(floats, network):
    for data, remedy in ((TensorDataset(*(tensor[:0] for tensor in floats.tensors)), "no images"),
                         (Stream(floats), r"DataLoader\(data")):
        for use in (lambda data: train(network(), data, val=None, epochs=1), lambda data: mh.evaluate(network(), data)):
            with pytest.raises(ValueError, match=remedy) as error:
                use(data)
            assert in_a_sentence(error)


def test_labels_beyond_the_first_batch_and_floats_for_classes_are_seen_before_the_first_step(split, network):
    late = torch.where(torch.arange(100) == 99, 10, split.labels)
    for labels, remedy in ((late, "a label is 10"), (split.labels.float(), r"labels\.long\(\)")):
        with pytest.raises(ValueError, match=remedy) as error:
            train(network(), (split.images, labels), val=None, epochs=1)
        assert in_a_sentence(error)


class Once:
    """Gives its only iterator away again and again."""

    def __init__(self, batches):
        self.batches = iter(batches)

    def __iter__(self):
        return self.batches


def test_a_generator_that_is_used_up_is_said_to_be(floats, network):
    for validate in (False, True):  # before the first epoch, and not after it
        generator, other = (batch for batch in DataLoader(floats, 32)), list(DataLoader(floats, 32))
        with pytest.raises(ValueError, match="once, and 2 epochs") as error:
            train(network(), *((other,) if validate else (generator,)), val=generator if validate else None, epochs=2)
        assert in_a_sentence(error) and len(list(generator)) == 4
    with pytest.raises(ValueError, match="was used up") as error:
        train(network(), Once(DataLoader(floats, 32)), val=None, epochs=2)
    assert in_a_sentence(error)
    generator = (batch for batch in DataLoader(floats, 32))
    assert len(train(network(), generator, val=None, epochs=1).batch_loss) == 4


@pytest.mark.parametrize(("make", "seen"), [
    (lambda floats: DataLoader(floats, 32, shuffle=True), 100),
    (lambda floats: DataLoader(floats, 32, shuffle=True, drop_last=True), 96),
    (lambda floats: DataLoader(floats, 32, sampler=WeightedRandomSampler(torch.arange(1.0, 101.0), 150)), 150),
])
def test_means_are_over_the_images_that_were_seen(floats, network, make, seen):
    last, steps = [], []

    def loss_fn(logits, targets):
        loss = F.cross_entropy(logits, targets)
        last[:] = [len(targets), loss.item() * len(targets), int((logits.argmax(1) == targets).sum())]
        return loss

    history = train(network(), make(floats), val=floats, epochs=1, loss_fn=loss_fn,
                    after_step=lambda number: steps.append(tuple(last))).history
    images, loss, correct = map(sum, zip(*steps, strict=True))
    assert images == seen
    assert history["train_loss"] == [pytest.approx(loss / seen, rel=1e-5)]
    assert history["train_accuracy"] == [pytest.approx(correct / seen)]


def test_validation_images_are_normalised_as_the_training_images_are(split, network):
    for normalize in (False, lambda images: images * 4 - 2):
        model = network()
        history = train(model, split, epochs=2, normalize=normalize).history
        inputs = normalize(split.images / 255) if normalize else split.images / 255
        expected = F.cross_entropy(model(inputs), split.labels).item()
        assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_only_training_images_are_augmented(split, network):
    seen = []

    def augment(images, generator):
        seen.append(len(images))
        return images

    train(network(), split, epochs=1, augment=augment)
    assert sum(seen) == 100


def test_without_validation_images_the_weights_are_the_same(split, network):
    models, histories = [], []
    for val in (split, None):
        mh.set_seed(0)
        models.append(network())
        histories.append(train(models[-1], split, val=val, epochs=2, augment=AUGMENT).history)
    assert same(*models)
    assert histories[0]["train_loss"] == histories[1]["train_loss"] and len(histories[1]["train_loss"]) == 2
    assert set(histories[0]) - set(histories[1]) == {"val_loss", "val_accuracy"}


def test_any_loss_is_trained(split, network):
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.1)
    model = network()
    history = train(model, split, loss_fn=smoothed).history
    assert history["val_loss"][-1] == pytest.approx(mh.evaluate(model, split, loss_fn=smoothed).loss)
    assert history["val_loss"][-1] > mh.evaluate(model, split).loss


# ---------------------------------------------------------------- precision, modes, hooks


@pytest.mark.parametrize("foreign", [False, True])
def test_precision_is_that_of_the_batches_in_training_alone(split, network, foreign):
    model, seen = network(), []
    model[-1].register_forward_hook(lambda layer, inputs, output: seen.append((model.training, output.dtype)))

    def loss_fn(logits, targets):
        assert logits.dtype == torch.float32
        return F.cross_entropy(logits, targets)

    data = DataLoader(TensorDataset(mh.normalize(split.images).bfloat16(), split.labels), 32) if foreign else split
    train(model, data, val=split, epochs=1, loss_fn=loss_fn, **({} if foreign else {"precision": torch.bfloat16}))
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_frozen_batch_norm_stays_frozen(split, network):
    for frozen in (True, False):
        model = network().train()
        if frozen:
            model[1].eval()
        train(model, split, epochs=2)
        assert torch.equal(model[1].running_mean, network()[1].running_mean) == frozen
        assert not torch.equal(model[0].weight, network()[0].weight)


def test_after_epoch_sees_the_run_and_may_end_it(split, network):
    seen = []

    def stop(run):
        seen.append((len(run.history["val_loss"]), run.model))
        return len(seen) == 2

    model = network()
    run = train(model, split, epochs=5, after_epoch=stop)
    assert seen == [(1, model), (2, model)] and {len(column) for column in run.history.values()} == {2}
    assert len(train(network(), split, epochs=2, after_epoch=lambda run: "no").history["lr"]) == 2


def test_after_step_is_called_after_each_step(split, network):
    steps, model = [], network()
    loss, accuracy, losses = train_epoch(
        model, mh.Loader(split, 32), optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        after_step=lambda: steps.append(model[-1].weight.detach().clone()))
    assert len(steps) == len(losses) == 4 and not torch.equal(steps[0], steps[1])
    assert loss == pytest.approx(sum(each * size for each, size in zip(losses, (32, 32, 32, 4), strict=True)) / 100)


def test_a_compiled_model_is_not_compiled_again_each_epoch(split, network):
    """Counted by a backend of our own, which needs no C++ compiler."""
    def compilations(epochs):
        compiled = []
        torch._dynamo.reset()
        model = torch.compile(network(), backend=lambda graph, inputs: compiled.append(1) or graph.forward)
        train(model, split, epochs=epochs)
        return len(compiled)

    assert compilations(1) == compilations(4) > 0


# ---------------------------------------------------------------- repeatability, and what is left alone


def test_same_seed_same_weights_bit_for_bit(split, network):
    models = []
    for seed in (3, 3, 4):
        model = network()
        mh.set_seed(seed)
        train(model, split, augment=AUGMENT)
        models.append(model)
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_augmentation_by_random_and_numpy_repeats_too(split, network):
    def augment(images):
        return images.roll(random.randint(-3, 3), 3) + np.random.randint(0, 9)

    models = []
    for seed in (3, 3, 4):
        model = network()
        mh.set_seed(seed)
        models.append(model)
        train(model, split, augment=augment)
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_evaluation_leaves_model_and_random_state_as_they_were(split, network):
    class Drawing(nn.Module):  # draws even in eval mode
        def forward(self, x):
            return x + 0 * torch.rand(()) + 0 * random.random() + 0 * np.random.rand()

    model = nn.Sequential(network(), Drawing()).train()
    model[0][1].eval()  # a frozen batch norm
    before, modes = copy.deepcopy(model), [m.training for m in model.modules()]
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    mh.evaluate(model, split, augment=AUGMENT)
    assert same(before, model) and modes == [m.training for m in model.modules()]
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))


def test_evaluations_draws_are_fixed_by_its_seed(split, network):
    model = network()
    losses = [mh.evaluate(model, split, augment=AUGMENT, seed=seed).loss for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[0] == mh.evaluate(model, split, augment=AUGMENT).loss
    with pytest.raises(ValueError) as error:
        mh.evaluate(model, DataLoader(split, 32), augment=AUGMENT)
    assert in_a_sentence(error)


def test_evaluating_on_a_loader_leaves_its_order_to_the_training(split, network):
    batches = mh.Loader(split, 32, generator=torch.Generator().manual_seed(0))
    first = mh.Loader(split, 32, generator=torch.Generator().manual_seed(0))
    mh.evaluate(network(), batches)
    assert torch.equal(next(iter(batches))[1], next(iter(first))[1])


def test_modes_are_restored_after_an_error(split):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 10)).train()
    with pytest.raises(RuntimeError):
        mh.evaluate(model, split)
    assert model.training


# ---------------------------------------------------------------- things that go wrong


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch(split, network):
    for number in (7, 8):  # in the middle of the second epoch, and its last step
        steps = [0]

        def loss_fn(logits, targets, steps=steps, number=number):
            return F.cross_entropy(logits, targets) * (float("nan") if steps[-1] == number - 1 else 1)

        with pytest.raises(TrainingDiverged, match=f"nan in batch {number - 4}.* epoch 2") as error:
            train(network(), split, loss_fn=loss_fn, after_step=steps.append)
        assert {len(column) for column in error.value.history.values()} == {1}


@pytest.mark.parametrize("validated", [True, False])
def test_weights_spoilt_by_the_last_step_of_an_epoch_are_not_saved(split, network, tmp_path, validated):
    """The loss of that step is finite: it was computed before."""
    class Spoils(torch.optim.SGD):
        steps, spoilt = 0, 8

        def step(self, closure=None):
            super().step(closure)
            self.steps += 1
            if self.steps == self.spoilt:
                self.param_groups[0]["params"][0].data.fill_(float("nan"))

    def run(spoilt, epochs=3):
        model = network()
        optimizer = Spoils(model.parameters(), lr=0.1)
        optimizer.spoilt = spoilt
        return mh.fit(model, mh.Loader(split, 32), split if validated else None, epochs=epochs, optimizer=optimizer,
                      checkpoint=tmp_path / "run.pt")

    with pytest.raises(TrainingDiverged, match="epoch 2") as error:
        run(8)
    assert {len(column) for column in error.value.history.values()} == {1}
    run(0)
    assert all(np.isfinite(run(0).history["train_loss"])), "it goes on from the first epoch"


def test_an_interrupt_is_raised_again_with_the_run_so_far(split, network, tmp_path):
    for path in (None, tmp_path / "run.pt"):
        with pytest.raises(KeyboardInterrupt) as error:
            train(network(), split, checkpoint=path, after_step=stop_at(6))
        assert isinstance(error.value, Interrupted)
        assert {len(column) for column in error.value.run.history.values()} == {1}
    assert (tmp_path / "run.pt").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_trains_on_cuda(split, network):
    run = train(network().cuda(), split, augment=AUGMENT, epochs=5)
    assert run.history["val_accuracy"][-1] > 0.5 and "cuda" in run.card["device"]


# ---------------------------------------------------------------- the bar


def test_one_bar_an_epoch_shows_loss_and_accuracy(split, network, capsys, monkeypatch):
    train(network(), split, epochs=2)
    lines = [line.rpartition("\r")[2] for line in capsys.readouterr().out.strip().split("\n")]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("100%" in line and line.count("loss") + line.count("val") >= 2 for line in lines)


def test_without_a_bar_nothing_is_read_for_one(split, network, monkeypatch):
    """... and with one, the values of single batches are read twice a second, however many there are."""
    reads = []
    for name in ("item", "tolist"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, original=original: reads.append(1) or original(tensor))

    def counted(batch_size, refresh):
        monkeypatch.setattr("mnist_helpers.train.REFRESH_SECONDS", refresh)
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        reads.clear()
        mh.fit(model, mh.Loader(split, batch_size), None, epochs=1, optimizer=optimizer)
        return len(reads)

    assert counted(50, refresh=60) == counted(2, refresh=60) < counted(2, refresh=-1) - 40
    monkeypatch.setattr("mnist_helpers.train.Bar", lambda *_: tqdm(disable=True))  # as TQDM_DISABLE=1 does
    assert counted(2, refresh=-1) == counted(2, refresh=60)
