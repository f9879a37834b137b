"""The challenges' scoreboard and trials against records written by hand."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_results import RUN

from benchmarks import search
from mnist_helpers import data, results, scoreboard
from mnist_helpers.augment import warp
from mnist_helpers.summary import count_parameters

OURS = RUN | {"notebook": "challenges/one_epoch.ipynb", "model": "OneEpoch", "parameters": 20_000, "epochs": 1,
              "reference": True}


def five(run, accuracies=(0.990, 0.991, 0.992, 0.993, 0.994)):
    return [run | {"seed": seed, "test_accuracy": accuracy} for seed, accuracy in enumerate(accuracies)]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Write these runs where the scoreboard reads them."""
    path = tmp_path / "runs.jsonl"
    monkeypatch.setattr(results, "runs_file", lambda: path)

    def write(runs):
        for run in runs:
            results.append(run, path)
    return write


def test_a_row_has_the_means_over_its_seeds(recorded):
    recorded(five(OURS) + five(OURS | {"model": "TwoLinear", "parameters": 25_255}))
    published, ours = scoreboard.scoreboard().rows
    assert published[:2] == [scoreboard.ONE_EPOCH, "TwoLinear"]
    assert published[-2:] == ["98.00 %", 'test images, "about"']
    # mean 99.2, standard deviation 0.158, t(0.975, 4) = 2.776: 99.2 -+ 2.776 * 0.158 * sqrt(1.2)
    assert ours == [scoreboard.ONE_EPOCH, "OneEpoch", "20,000", "1", "99.24 %", "99.20 ± 0.16 (n = 5)",
                    "[98.72, 99.68]", "", ""]
    assert scoreboard.scoreboard(notebook="twenty_epochs").rows == []


def test_a_network_trained_on_all_images_has_no_validation_accuracy(recorded):
    recorded(five(OURS | {"val_accuracy": None}))
    assert [row[4:6] for row in scoreboard.scoreboard().rows] == [["", "99.20 ± 0.16 (n = 5)"]]


def test_the_run_of_now_takes_its_seeds_place(recorded):
    recorded(five(OURS))
    (row,) = scoreboard.scoreboard(OURS | {"seed": 4, "test_accuracy": 0.999}).rows
    assert row[5].startswith("99.30") and row[5].endswith("(n = 5)")
    (row,) = scoreboard.scoreboard(OURS | {"seed": 9, "test_accuracy": 0.992}).rows
    assert row[5].endswith("(n = 6)")
    (row,) = scoreboard.scoreboard(OURS | {"seed": 9, "parameters": 10}).rows
    assert row[2] == "10" and row[5].endswith("(n = 1)"), "another network does not count with the recorded ones"
    (row,) = scoreboard.scoreboard(OURS | {"seed": 9, "profile": "quick"}).rows
    assert row[5].endswith("(n = 5)"), "nor does a quick run"


def test_the_networks_of_one_notebook_are_apart(recorded):
    recorded(five(OURS)[:2] + five(OURS | {"model": "TwoLinear"})[:3])
    assert {name: len(seeds) for name, seeds in scoreboard.entries().items()} == {
        "challenges/one_epoch.ipynb: TwoLinear": 3, "challenges/one_epoch.ipynb: OneEpoch": 2}


def test_only_the_courses_own_runs_count(recorded):
    recorded([OURS, OURS | {"seed": 1, "reference": False, "test_accuracy": 0.5}])
    (row,) = scoreboard.scoreboard().rows
    assert row[5].endswith("(n = 1)")


def test_challenges_stay_out_of_the_lessons_table(recorded):
    readme = f"{results.MARKERS[0]}\n{results.MARKERS[1]}"
    table = results.readme_table(readme, [RUN | {"reference": True}, OURS])
    assert "03_twenty_epochs" in table and "one_epoch" not in table


def test_trials_are_grouped_by_configuration(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(scoreboard, "project_root", lambda: tmp_path)
    trial = {"challenge": "mine", "why": "rate", "given": {"net": "c3-4", "lr": 0.1},
             "config": {"net": "c3-4", "lr": 0.1, "epochs": 3}, "parameters": 100, "seconds": 4.0, "train_loss": 0.02}
    lines = [trial | {"seed": 0, "val_accuracy": 0.98}, trial | {"seed": 1, "val_accuracy": 0.99, "train_loss": 0.03},
             trial | {"challenge": "another", "val_accuracy": 0.5}]
    (tmp_path / "results" / "trials.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert scoreboard.trials("mine").rows == [["rate", "`c3-4`", "lr 0.1", "100", "3", "2", "98.50 %", "4"]]
    assert scoreboard.trials("mine", spread=True).rows == [
        ["rate", "`c3-4`", "lr 0.1", "100", "3", "2", "98.50 % [98.00 %, 99.00 %]", "0.0250 [0.0200, 0.0300]", "4"]]
    (row,) = scoreboard.trials("another", spread=True).rows
    assert row[6:8] == ["50.00 %", "0.0200"], "one seed has no range"


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

    for image in search.Straighten()(data.normalize(slanted))[:, 0]:
        ink = image - image.min()
        assert ndimage.center_of_mass(ink.numpy()) == pytest.approx((13.5, 13.5), abs=0.15)
        assert abs(lean(ink)) < 1
    assert abs(lean(slanted[-1])) > 3, "the last one leaned"


def test_the_last_part_is_trained_without_augmentation(tiny, monkeypatch):
    augmented = []

    def noted(images, generator):
        augmented.append(len(images))
        return images

    monkeypatch.setattr(search.mh, "Augment", lambda *transforms: noted)
    split = data.Split(*tiny)
    dataset = SimpleNamespace(train=split, val=split)
    config = {"net": "c5s2-4 P flat", "epochs": 4, "batch": -(-len(split.labels) // 5), "plain": 0.25}
    search.train(config, 0, dataset)
    assert len(augmented) == 15  # of 4 epochs of 5 steps


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (6, 6)])
def test_orthogonal_turns_the_singular_values_to_about_one(shape):
    """Against numpy's singular value decomposition: the directions stay, the lengths become about equal."""
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = np.linalg.svd(matrix.numpy(), full_matrices=False)
    lengths = np.diag(left.T @ search.orthogonal(matrix).numpy() @ right.T)
    np.testing.assert_allclose(search.orthogonal(matrix).numpy(), left * lengths @ right, atol=1e-4)
    assert lengths.min() > 0.6 and lengths.max() < 1.3


def test_a_trial_never_sees_the_test_images(tiny):
    class Closed:
        def __iter__(self):
            raise AssertionError("the test images were opened")

    split = data.Split(*tiny)
    dataset = SimpleNamespace(train=split, val=split, test=Closed())
    trial = search.trial({"net": "c5s2-4 P flat", "epochs": 2, "batch": 50}, 0, dataset)
    assert trial["given"]["net"] == "c5s2-4 P flat" and trial["config"]["lr"] == search.DEFAULTS["lr"]
    assert trial["val_accuracy"] == round(trial["val_curve"][-1], 4)


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
    ({"net": "c3-4 gap", "muon": {"turn": 2}}, "muon: not for the optimizer 'adam'"),
    ({"net": "c3-4 gap", "anneal": "slowly"}, "there is no anneal 'slowly'; there are linear, cos"),
    ({"net": "c3-4 gap", "teacher": {"net": "c3-4 x gap"}}, "'x' is no layer"),
])
def test_a_trial_that_would_not_be_what_it_says_is_refused(config, said, tiny):
    with pytest.raises(ValueError, match=said):
        search.train(config, 0, SimpleNamespace(train=tiny, val=tiny))


def test_a_teacher_keeps_its_activation_and_leaves_the_pupils_draws_alone(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(search.tempfile, "gettempdir", lambda: str(tmp_path))
    dataset = SimpleNamespace(train=data.Split(*tiny), val=data.Split(*tiny))
    teacher = {"net": "c5s2-4 gap", "activation": "gelu", "epochs": 1, "batch": 50}
    pupil = {"net": "c5s2-4 P flat", "epochs": 1, "batch": 50, "teacher": teacher}
    losses = [search.train(pupil, 0, dataset)[1]["train_loss"] for _ in range(2)]
    assert losses[0] == losses[1], "the second time the teacher was there"
    assert isinstance(search.taught(teacher, 0, dataset)[2], torch.nn.GELU)


def test_a_teacher_is_taught_anew_when_the_defaults_change(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(search.tempfile, "gettempdir", lambda: str(tmp_path))
    dataset = SimpleNamespace(train=data.Split(*tiny), val=data.Split(*tiny))
    teacher = {"net": "c5s2-4 gap", "epochs": 1, "batch": 50}
    before = search.taught(teacher, 0, dataset)[0].weight
    monkeypatch.setitem(search.DEFAULTS, "lr", 0.1)
    assert not torch.equal(search.taught(teacher, 0, dataset)[0].weight, before)


def test_every_trial_is_kept_the_diverged_one_too(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(scoreboard, "project_root", lambda: tmp_path)
    split = data.Split(*tiny)
    dataset = SimpleNamespace(name="mnist", profile="full", train=split, val=split)
    monkeypatch.setattr(search.mh, "load_mnist", lambda verbose: dataset)
    recipe = '"net": "c5s2-4 P flat", "epochs": 1, "batch": 50'
    configs = [f'{{{recipe}, "optimizer": "sgd", "lr": 1e38}}', f"{{{recipe}}}"]
    monkeypatch.setattr(sys, "argv", ["search", *configs, "--challenge", "mine", "--why", "to see"])
    search.main()
    diverged, fine = scoreboard.read_lines(scoreboard.trials_file(), set())
    assert "in epoch 1" in diverged["diverged"] and diverged["val_accuracy"] is None and "diverged" not in fine
    for spread in (False, True):
        rows = scoreboard.trials("mine", spread).rows
        assert [row[6] for row in rows] == ["(1 diverged)", f"{100 * fine['val_accuracy']:.2f} %"]
        assert len(set(map(len, rows))) == 1
    results.append(diverged | {key: fine[key] for key in ("given", "why")}, scoreboard.trials_file())
    assert scoreboard.trials("mine").rows[1][6] == f"{100 * fine['val_accuracy']:.2f} % (1 diverged)"
    with open(scoreboard.trials_file(), "a") as file:
        file.write('{"challenge": "mine", "giv')
    with pytest.raises(ValueError, match=r"trials.jsonl, line 4 is no record"):
        scoreboard.trials("mine")


def test_a_wrong_trial_is_refused_before_anything_is_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search", '{"net": "c3-4 gap"}', '{"net": "c3-4 x gap"}'])
    monkeypatch.setattr(search.mh, "load_mnist", lambda verbose: pytest.fail("it read the data"))
    with pytest.raises(SystemExit):
        search.main()
    assert "'x' is no layer" in capsys.readouterr().err


def test_the_readme_carries_the_scoreboard():
    readme = (data.project_root() / "README.md").read_text(encoding="utf-8")
    assert readme == scoreboard.readme_section(readme), "run: python -m mnist_helpers table --write"
