"""The search behind the challenges: lines of layers counted by hand, and trials on a tiny dataset."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

import mnist_helpers as mh
from benchmarks import search
from mnist_helpers import data
from mnist_helpers.augment import warp
from mnist_helpers.course import networks, notebooks, tables
from mnist_helpers.layers import count_parameters

TRIAL = {"net": "c5s2-4 P flat", "epochs": 1, "batch": 50}
TEACHER = {"net": "c5s2-4 gap", "activation": "gelu", "epochs": 1, "batch": 50}


@pytest.fixture
def dataset(tiny, monkeypatch, tmp_path):
    """A tiny dataset that says it is MNIST, without test images, in a project of its own."""
    for module in (data,):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    split = data.Split(*tiny)
    return SimpleNamespace(name="mnist", profile="full", train=split, val=split)


@pytest.mark.parametrize(("line", "parameters"), [
    # weights without biases, two for each channel of a batch norm, and the classifier's with its biases
    ("c3-8 P gap", 72 + 16 + 90),
    ("c5s2-4 d3 l1-6 P flat", 100 + 8 + 36 + 8 + 24 + 6 * 49 * 10 + 10),
    ("c3-8 c3-8 = P gap", 72 + 16 + 576 + 16 + 16 + 90),
    ("c3-8 c3-8 + = + P gap", 72 + 16 + 576 + 16 + 16 + 90),
    ("c3-8 l3g8-8 c1-8 = P gap", 72 + 16 + 72 + 64 + 16 + 16 + 90),
    ("c3-8P c3-8P flat", 72 + 16 + 576 + 16 + 8 * 49 * 10 + 10),
    ("v3-4 c3g2-8 D.1 P P flat", 36 + 8 + 144 + 16 + 8 * 36 * 10 + 10),
])
def test_a_line_of_layers_has_its_parameters(line, parameters):
    model = search.network(line)
    assert count_parameters(model) == parameters
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_an_equals_sign_repeats_a_separable_pair_whole():
    for line, kernels in (("c3-8 c3-8 = gap", [3, 3, 3]), ("c3-8 l3g8-8 c1-8 = gap", [3, 3, 1, 3, 1])):
        convolutions = [layer for layer in search.network(line) if isinstance(layer, torch.nn.Conv2d)]
        assert [layer.kernel_size[0] for layer in convolutions] == kernels
        assert convolutions[-1] is convolutions[-1 - kernels[::-1].index(kernels[-1], 1)]


def test_a_plus_adds_the_input_of_the_layer_before():
    first, residual = search.network("c3-8 c3-8 + gap").eval()[:3], search.network("c3-8 c3-8 + gap").eval()[3]
    x = first(torch.rand(2, 1, 28, 28))
    assert torch.equal(residual(x), x + residual.layers(x)) and isinstance(residual.layers[0], torch.nn.Conv2d)


def test_straightened_digits_stand_upright_in_the_middle():
    """By scipy's centre of mass and numpy's weighted covariance, whichever way they were sheared and moved before."""
    (digits, _), _ = data.digits_sample()
    shears = torch.linspace(-0.4, 0.4, 9)
    matrices = torch.eye(3).repeat(9, 1, 1)
    matrices[:, 0, 1], matrices[:, 0, 2] = shears, shears / 4
    slanted = warp(digits[:9].float() / 255, matrices)
    rows, columns = np.mgrid[:28, :28]

    def lean(ink):
        return np.cov(rows.ravel(), columns.ravel(), aweights=ink.numpy().ravel())[0, 1]

    for image in search.of_challenge("under_1000").Straighten()(data.normalize(slanted))[:, 0]:
        ink = image - image.min()
        assert ndimage.center_of_mass(ink.numpy()) == pytest.approx((13.5, 13.5), abs=0.15)
        assert abs(lean(ink)) < 1
    assert abs(lean(slanted[-1])) > 3, "the last one leaned"


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (6, 6)])
def test_orthogonal_turns_the_singular_values_to_about_one(shape):
    """Against numpy's singular value decomposition: the directions stay, the lengths become about equal."""
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    lengths = np.diag(left.T @ search.orthogonal(matrix).numpy() @ right.T)
    np.testing.assert_allclose(search.orthogonal(matrix).numpy(), left * lengths @ right, atol=1e-4)
    assert lengths.min() > 0.6 and lengths.max() < 1.3


def test_a_trial_tells_its_configuration_and_its_last_epoch(dataset):
    trial = search.trial(TRIAL | {"epochs": 2}, 0, dataset)
    assert trial["given"]["net"] == TRIAL["net"] and trial["config"]["lr"] == search.DEFAULTS["lr"]
    assert trial["val_accuracy"] == round(trial["val_curve"][-1], 4) and len(trial["val_curve"]) == 2


def test_the_last_part_is_trained_without_augmentation(dataset, monkeypatch):
    augmented = []

    def noted(images, generator):
        augmented.append(len(images))
        return images

    monkeypatch.setattr(search.mh, "Augment", lambda *transforms: noted)
    search.train(TRIAL | {"epochs": 4, "batch": -(-len(dataset.train) // 5), "plain": 0.25}, 0, dataset)
    assert len(augmented) == 15  # of 4 epochs of 5 steps


def test_a_teacher_keeps_its_activation_and_leaves_the_pupils_draws_alone(dataset):
    losses = [search.train(TRIAL | {"teacher": TEACHER}, 0, dataset).history["train_loss"] for _ in range(2)]
    assert losses[0] == losses[1], "the second time the teacher was there"
    assert isinstance(search.taught(TEACHER, 0, dataset)[0][2], torch.nn.GELU)


def test_several_teachers_have_seeds_of_their_own(dataset, monkeypatch):
    seeds = []
    monkeypatch.setattr(search, "_taught", lambda config, seed, dataset: seeds.append((seed, config)))
    search.taught(TEACHER | {"members": 2}, 3, dataset)
    search.taught(TEACHER | {"members": 2, "seed": 9}, 3, dataset)
    search.taught(TEACHER, 3, dataset)
    assert seeds == [(seed, TEACHER) for seed in (3000, 3001, 9000, 9001, 3)]


def test_distillation_is_the_cross_entropy_with_the_mean_opinion():
    """By hand for one image and two classes: opinions of 3/4 and 1/4, so that their mean is one half."""
    class Says(torch.nn.Module):
        def __init__(self, odds):
            super().__init__()
            self.logits = torch.tensor([[odds, 0.0]])

        def forward(self, images):
            return self.logits

    pupil = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2)).train()
    three = 2 * np.log(3)  # at temperature 2 its odds are 3 to 1
    loss_fn = search.distillation(pupil, [Says(three), Says(-three)], temperature=2.0, trust=0.75)
    logits = pupil(torch.zeros(1, 1, 1, 1))
    log = F.log_softmax(logits / 2, 1)[0]
    wanted = 0.25 * F.cross_entropy(logits, torch.tensor([1])) - 0.75 * 4 * (log[0] + log[1]) / 2
    assert loss_fn(logits, torch.tensor([1])).item() == pytest.approx(wanted.item(), rel=2e-2)  # opinions in bfloat16
    pupil.eval()
    assert loss_fn(logits, torch.tensor([1])).item() == pytest.approx(
        F.cross_entropy(logits, torch.tensor([1])).item())


def test_a_teacher_is_taught_anew_when_the_defaults_or_the_package_change(dataset, monkeypatch):
    before = search.taught(TEACHER, 0, dataset)[0][0].weight
    monkeypatch.setitem(search.DEFAULTS, "lr", 0.1)
    assert not torch.equal(search.taught(TEACHER, 0, dataset)[0][0].weight, before)
    monkeypatch.setattr(search.checkpoint, "package_digest", lambda: "another")
    monkeypatch.setattr(search, "train", lambda *arguments: pytest.fail("taught anew"))
    with pytest.raises(pytest.fail.Exception):
        search.taught(TEACHER, 0, dataset)


@pytest.mark.parametrize(("config", "said"), [
    ({"net": "c3-4 gap", "learning_rate": 1}, "there is no option learning_rate"),
    ({"net": "c3-4 x gap"}, "'x' is no layer"),
    ({"net": "c3-4 P D.1 + gap"}, "follows a convolution"),
    ({"epochs": 1}, "is no configuration"),
    ([1], "is no configuration"),
    ({"net": "c3-4 gap", "optimizer": "adma"}, "there is no optimizer 'adma'; there are adam"),
    ({"net": "c3-4 c3g3-4 gap"}, "divisible by groups"),
    ({"net": "P P P P P gap"}, "is no network"),
    ({"net": "c3-4 gap", "optimizer": "full matrix", "weight_decay": 0.1}, "full matrix .*weight_decay"),
    ({"net": "c3-4 P flat", "optimizer": "full matrix"}, "a tensor has 7,840 weights"),
    ({"net": "c3-4 gap", "optimizer": "muon", "muon": {"twist": 1}}, "muon .*twist"),
    ({"net": "c3-4 gap", "trust": 0.5, "temperature": 2}, "temperature, trust: not without a teacher"),
    ({"net": "c3-4 gap", "muon": {"turn": 2}}, "muon: not for the optimizer 'adam'"),
    ({"net": "c3-4 gap", "anneal": "slowly"}, "there is no anneal 'slowly'; there are linear, cos"),
    ({"net": "c3-4 gap", "teacher": {"net": "c3-4 x gap"}}, "'x' is no layer"),
])
def test_a_trial_that_would_not_be_what_it_says_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        search.check(config)


def test_every_trial_is_kept_the_diverged_one_too(dataset, monkeypatch):
    monkeypatch.setattr(search.mh, "load_mnist", lambda verbose: dataset)
    configs = [json.dumps(TRIAL | more) for more in ({"optimizer": "sgd", "lr": 1e38}, {})]
    monkeypatch.setattr(sys, "argv", ["search", *configs, "--challenge", "mine", "--why", "to see"])
    search.main()
    diverged, fine = map(json.loads, tables.trials_file().read_text(encoding="utf-8").splitlines())
    assert "diverged" in diverged and diverged["val_accuracy"] is None and "diverged" not in fine
    assert [row[6] for row in tables.trials("mine").rows] == ["(1 diverged)", f"{100 * fine['val_accuracy']:.2f} %"]


def test_a_wrong_trial_is_refused_before_anything_is_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search", '{"net": "c3-4 gap"}', '{"net": "c3-4 x gap"}'])
    monkeypatch.setattr(search.mh, "load_mnist", lambda verbose: pytest.fail("it read the data"))
    with pytest.raises(SystemExit):
        search.main()
    assert "'x' is no layer" in capsys.readouterr().err


@pytest.fixture
def split(tiny):
    return data.Split(*tiny, "MNIST", "train")


def test_the_hardest_images_are_those_with_the_largest_losses(split):
    """Against a loss computed image by image: what the first epoch noted, in its order, picks the second epoch."""
    notebook = networks.module_of(notebooks.folder() / "challenges" / "speed_run.ipynb")
    mh.set_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    batches = notebook.Hardest(split, (1, 0.3, 0.1), batch_size=16)
    loss_fn = notebook.noting(batches, smoothing=0.2)
    batches.restart()
    assert (batches.steps(3), len(batches)) == (7 + 2 + 1, 7)
    for inputs, targets in batches:
        loss_fn(model(inputs), targets)
    with torch.no_grad():
        logits = model(mh.normalize(split.images))
        loss_fn(logits[:16], split.labels[:16])  # of an evaluation: nothing is noted
        every = [F.cross_entropy(one[None], label[None], label_smoothing=0.2).item()
                 for one, label in zip(logits, split.labels, strict=True)]
    assert torch.allclose(batches.losses, torch.tensor(every), atol=1e-6)
    hardest = sorted(range(100), key=every.__getitem__, reverse=True)[:30]
    assert len(batches) == 2 and sorted(batches.order().tolist()) == sorted(hardest)


def test_images_that_were_never_seen_come_first(split):
    notebook = networks.module_of(notebooks.folder() / "challenges" / "speed_run.ipynb")
    batches = notebook.Hardest(split, (0.6, 0.5), batch_size=10)
    loss_fn, weight = notebook.noting(batches), torch.zeros(10, requires_grad=True)
    batches.restart()
    for inputs, targets in batches:
        loss_fn(weight.expand(len(inputs), 10), targets)
    first = set(batches.now.tolist())
    assert len(first) == 60 and set(range(100)) - first < set(batches.order().tolist())


def test_images_at_random_are_as_many_and_chosen_whatever_they_cost(split):
    notebook = networks.module_of(notebooks.folder() / "challenges" / "speed_run.ipynb")
    batches = notebook.Hardest(split, (1, 0.3), batch_size=10)
    batches.restart()
    batches.losses[:] = torch.arange(100.0)  # the hardest 30 are those from 70 on
    everything, chosen = search.at_random(batches).tolist(), search.at_random(batches).tolist()
    assert sorted(everything) == list(range(100)) and everything != chosen
    assert len(set(chosen)) == 30 and sum(number >= 70 for number in chosen) < 20


def test_the_trial_at_random_trains_on_another_choice(split):
    dataset = data.Dataset("mnist", "full", split, split, split)
    given = {"net": "c3s2-4 gap", "epochs": 2, "batch": 10, "shares": [1, 0.3], "precision": "fp32"}
    hardest, random = (search.train(given | more, 0, dataset) for more in ({}, {"at_random": True}))
    assert len(hardest.batch_loss) == len(random.batch_loss) == 13
    assert hardest.batch_loss[10:] != random.batch_loss[10:]
    with pytest.raises(ValueError, match="there are no shares"):
        search.check({"net": "c3s2-4 gap", "at_random": True})


def test_a_constant_rate_stays(split):
    dataset = data.Dataset("mnist", "full", split, split, split)
    given = {"net": "c3s2-4 gap", "epochs": 3, "batch": 10, "lr": 0.01, "precision": "fp32"}
    assert search.train(given | {"anneal": "constant"}, 0, dataset).history["lr"] == [0.01] * 3
    assert search.train(given, 0, dataset).history["lr"][-1] < 1e-4
