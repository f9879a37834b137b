"""Own ideas: a lesson's recipe unchanged is the lesson to the bit; what was tried stays in the log, goes on after an
interruption, and is compared and counted as by hand."""

import json
import math
import subprocess

import pytest
import recipes
import torch
from scipy.stats import ttest_rel
from small import in_a_sentence
from test_records import of
from torch import nn

import mnist_helpers as mh
from mnist_helpers import data, idea, train
from mnist_helpers.course import catalogue, ideas, notebooks, records, tables
from mnist_helpers.loader import batches_of
from mnist_helpers.run import new_run


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 2, 3, stride=4), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(98, 10))


@pytest.fixture
def log(tmp_path, monkeypatch):
    """No MNIST, the quick profile, and a log of its own."""
    monkeypatch.setattr(data, "fetch", recipes.no_mnist)
    monkeypatch.setenv("MNIST_PROFILE", "quick")
    monkeypatch.setenv("MNIST_COLLECT", str(tmp_path))
    return tmp_path / "ideas.jsonl"


@pytest.fixture
def small():
    return ideas.recipe_of(3, network=Small, epochs=3, images=200)


def lines(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def no_training(*args, **options):
    raise AssertionError("this was to train nothing")


# ---------------------------------------------------------------- the recipe


def test_a_lessons_recipe_unchanged_is_its_record_to_the_bit(mnist_root, capsys):
    """The id is a digest of network, data, optimiser, schedule, epochs and draws."""
    mnist = mh.load_mnist(profile="full")
    for lesson in catalogue.lessons():
        recipe = mh.recipe_of(lesson.lesson)
        model, batches, options = idea.prepared(recipe, mnist, seed=0)
        val = batches_of(mnist.val, shuffle=False, batch_size=500)
        run = new_run(model, batches, val, mnist.epochs(recipe.epochs), **options)
        assert run.id == records.all_seeds()[lesson.name][0]["id"], lesson.name


def test_each_part_of_a_recipe_can_be_replaced(log, small, capsys):
    seen = []

    def schedule(optimizer, steps):
        seen.append(steps)
        return mh.each_step(torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps))

    tried = mh.try_idea(small, note="all at once", seeds=[4], epochs=2, batch_size=50, images=150, augment=None,
                        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5),
                        scheduler=schedule, loss_fn=nn.CrossEntropyLoss(label_smoothing=0.1))
    told, (line,) = tried.runs[0].card["recipe"], lines(log)
    assert seen == [6] and len(tried.runs[0].batch_loss) == 6
    assert told["optimizer"].startswith("SGD") and told["loss"].startswith("CrossEntropyLoss(label_smoothing=0.1")
    assert (told["training augmentation"], told["training batches"], told["seed"]) == ("none", "50", "4")
    assert (line["model"], line["seed"], line["epochs"], line["images"], line["lesson"]) == (
        "Small", 4, 2, 150, "TwentyEpochs")


@pytest.mark.parametrize("wrong", [
    {"network": Small()}, {"network": lambda: 3}, {"optimizer": torch.optim.Adam(Small().parameters())},
    {"optimizer": lambda model: None}, {"scheduler": "StepLR"}, {"lr": 0.1}, {"seeds": 0}, {"seeds": [0.5]},
    {"note": " "}, {"images": 0}, {"recipe": 3}, {"recipe": Small}], ids=lambda wrong: min(wrong))
def test_what_makes_no_sense_is_refused_in_a_sentence(log, small, wrong):
    recipe = wrong.pop("recipe", small)
    with pytest.raises(ValueError) as error:
        mh.try_idea(recipe, **{"note": "a try"} | wrong)
    assert in_a_sentence(error) and not log.exists()


def test_what_measures_is_not_trained_on(log, small):
    mnist = mh.load_mnist(verbose=False)
    for split in (mnist.val, mnist.test, mnist.train_and_val):
        with pytest.raises(ValueError) as error:
            mh.try_idea(small, images=split, note="more images")
        assert split.name in str(error.value) and in_a_sentence(error)


# ---------------------------------------------------------------- trying


FIVE_LINES = """
class FiveByFive(TwentyEpochs):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2)
tried = mh.try_idea(mh.recipe_of(3), network=FiveByFive, seeds=3, note="a 5x5 kernel first")
""".strip()


def test_from_lesson_3_an_idea_is_five_lines(log, monkeypatch, capsys):
    assert len(FIVE_LINES.splitlines()) == 5
    monkeypatch.setattr(data, "digits_sample", lambda sample=data.digits_sample: (sample()[0], sample()[1]))
    variables = {"mh": mh, "nn": nn, "TwentyEpochs": notebooks.network("03_twenty_epochs").TwentyEpochs}
    monkeypatch.setattr(data.Dataset, "epochs", lambda dataset, full: 1)
    exec(FIVE_LINES, variables)
    assert list(variables["tried"].accuracies) == [0, 1, 2]
    assert {line["parameters"] for line in lines(log)} == {18_374 + 8 * (25 - 9)}


def test_an_interrupted_idea_goes_on_to_the_same_weights_and_what_is_logged_is_not_trained_again(
        log, small, monkeypatch, capsys, tmp_path_factory):
    monkeypatch.setenv("MNIST_COLLECT", str(tmp_path_factory.mktemp("undisturbed")))
    undisturbed = mh.try_idea(small, seeds=2, note="to be sure")
    monkeypatch.setenv("MNIST_COLLECT", str(log.parent))

    handle = recipes.stop_at(3 * 4 + 6)  # in the second epoch of the second seed
    try:
        with pytest.raises(KeyboardInterrupt):
            mh.try_idea(small, seeds=2, note="to be sure")
    finally:
        handle.remove()
    assert [line["seed"] for line in lines(log)] == [0] and len(list(idea.folder().glob("*.pt"))) == 1
    capsys.readouterr()
    resumed = mh.try_idea(small, seeds=2, note="to be sure")
    assert "1 of 3 epochs are done" in capsys.readouterr().out
    assert [run.weights for run in resumed.runs] == [run.weights for run in undisturbed.runs]
    assert len(lines(log)) == 2 and not list(idea.folder().glob("*.pt"))

    monkeypatch.setattr(idea, "fit", no_training)
    again = mh.try_idea(small, seeds=2, note="other words, the same idea")
    assert [run.weights for run in again.runs] == [run.weights for run in undisturbed.runs]
    assert (again.number, again.note, again.accuracies) == (1, "to be sure", resumed.accuracies)
    mh.evaluate(again.model, mh.load_mnist(verbose=False).val)
    with pytest.raises(AssertionError):  # another batch size is another idea
        mh.try_idea(small, seeds=2, note="to be sure", batch_size=63)


def test_an_idea_that_diverges_stays_in_the_log(log, small, capsys):
    wild = {"network": Small, "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=1e30)}
    tried = mh.try_idea(small, seeds=2, note="a giant rate", **wild)
    assert not tried.runs and all("diverged" in line for line in lines(log))
    assert "no training" in repr(tried) and mh.ideas().rows[0][2] == "2 diverged"
    mh.try_idea(small, seeds=2, note="a giant rate", **wild)
    assert len(lines(log)) == 2


def test_trying_never_opens_the_test_images_and_a_look_is_counted(log, small, monkeypatch, capsys):
    used, evaluate, measured = [], train.evaluate, mh.evaluate  # found before the patch, whichever test ran first
    monkeypatch.setattr(train, "evaluate", lambda model, batches, **options: (
        used.append(getattr(batches, "dataset", batches).name), evaluate(model, batches, **options))[1])
    tried = mh.try_idea(small, seeds=2, note="a look")
    assert set(used) == {"val"} and mh.ideas().note.count("looked at 0 times")
    for look in (1, 2):
        made = mh.test_idea(tried)
        assert f"looked at {look} time" in capsys.readouterr().out and f"looked at {look} time" in mh.ideas().note
    mnist = mh.load_mnist(verbose=False)
    assert [each["test_accuracy"] for each in made] == [
        round(measured(run.model, mnist.test).accuracy, 6) for run in tried.runs]
    with pytest.raises(ValueError) as error:
        mh.test_idea(1)
    assert in_a_sentence(error)


# ---------------------------------------------------------------- the table

A, B, C = (0.951, 0.957, 0.954), (0.962, 0.960, 0.964), (0.949, 0.958)


@pytest.fixture
def tried(log):
    """Three ideas with these validation accuracies under seeds 0, 1, 2."""
    for key, values in zip("abc", (A, B, C), strict=True):
        for seed, value in enumerate(values):
            line = {"idea": key, "note": f"note {key}", "lesson": "TwentyEpochs", "model": "Small", "parameters": 1_000,
                    "seed": seed, "epochs": 20, "images": 55_000, "dataset": "mnist", "profile": "full",
                    "val_accuracy": value}
            with open(log, "a") as file:
                file.write(json.dumps(line) + "\n")


def test_ideas_are_compared_seed_by_seed_as_scipy_does(tried):
    table = mh.ideas(against=1)
    by_hand = ttest_rel(B, A).confidence_interval()
    mean, half = 100 * (by_hand.low + by_hand.high) / 2, 100 * (by_hand.high - by_hand.low) / 2
    assert [row[0] for row in table.rows] == ["1 note a", "2 note b", "3 note c"]
    assert [row[3] for row in table.rows][:2] == ["", f"{mean:+.2f} ± {half:.2f}"]
    by_hand = ttest_rel(C, A[:2]).confidence_interval()
    assert table.rows[2][3] == f"{100 * (by_hand.low + by_hand.high) / 2:+.2f} ± {50 * (by_hand.high - by_hand.low):.2f}"


def test_a_lessons_recorded_runs_are_compared_over_the_same_seeds(tried):
    lesson = [records.all_seeds()["TwentyEpochs"][seed]["val_accuracy"] for seed in range(3)]
    by_hand = ttest_rel(B, lesson).confidence_interval()
    for against in (None, "TwentyEpochs"):
        table = mh.ideas(against=against)
        assert table.rows[1][3].startswith(f"{50 * (by_hand.low + by_hand.high):+.2f} ± ")
        assert "lesson 3 as recorded" in table.note and "20 epochs on" not in table.note
    assert "It trained 5 epochs on 55,000" in mh.ideas(against="FewerParameters").note
    for nothing in (0, 4, "Nonsense"):
        with pytest.raises(ValueError) as error:
            mh.ideas(against=nothing)
        assert in_a_sentence(error)


def test_the_luck_of_the_best_is_that_of_a_simulation(tried):
    """Two ideas beside the first, three and two seeds each: normal deviations with the pooled standard deviation."""
    pooled = math.sqrt(sum(sum((value - sum(each) / len(each)) ** 2 for value in each) for each in (B, C)) / (2 + 1))
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400_000, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2.0]).rsqrt() * pooled
    simulated = 100 * draws.max(1).values.mean().item()
    said = mh.ideas(against=1).note.partition("looks ")[2].split()[0]
    assert abs(float(said) - simulated) < 0.01 and "tried 2 ideas" in mh.ideas(against=1).note


def test_ideas_of_other_profiles_are_kept_apart(tried, small, capsys):
    mh.try_idea(small, seeds=1, note="quick")
    table = mh.ideas()
    assert [row[0] for row in table.rows] == ["4 quick"] and "3 more" in table.note and "Nothing to compare" in table.note
    assert len(mh.ideas(profile="full").rows) == 3


def test_an_empty_log_says_how_to_begin(log):
    assert not mh.ideas().rows and "try_idea" in mh.ideas().note


def test_git_ignores_the_log_and_the_weights():
    paths = ["results/ideas.jsonl", "results/ideas/Small-s0-12345678.safetensors", "results/ideas/a-s0.pt"]
    done = subprocess.run(["git", "check-ignore", *paths], cwd=data.project_root(), capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("no git repository here")
    assert done.stdout.split() == paths


# ---------------------------------------------------------------- beside the course's networks


def test_own_networks_come_last_on_the_scoreboard_and_the_frontier():
    own = [of("OneEpoch", seed, 9_900 + seed) | {"model": "Mine", "parameters": 1_234} for seed in range(2)]
    quick = of("OneEpoch", profile="quick") | {"model": "Mine"}
    table = tables.scoreboard(*own, quick)
    heading = table.rows.index("yours")
    assert [row[:2] for row in table.rows[heading + 1 :]] == [["Mine", "1,234"], ["Mine, quick", "23,418"]]
    test = records.over_all({run["seed"]: run for run in own})  # both kinds of chance, as for the course's networks
    assert table.rows[heading + 1][4] == f"{100 * test.mean:.2f} ± {100 * (test.high - test.mean):.2f} (2)"
    entries = tables.entries(*own, quick)
    assert list(entries)[-1] == "yours: Mine" and sorted(entries["yours: Mine"]) == [0, 1]
    assert "yours" not in tables.scoreboard().rows


def test_an_edited_network_of_the_catalogue_is_the_readers_own():
    """It has the name that the lesson gave it, and is another."""
    edited = [of("OneEpoch", seed, 9_900) | {"parameters": 20_000} for seed in range(2)]
    table = tables.scoreboard(*edited)
    assert [row[:2] for row in table.rows[table.rows.index("yours") + 1 :]] == [["OneEpoch", "20,000"]]
    assert sorted(tables.entries(*edited)["yours: OneEpoch"]) == [0, 1]
    unedited = tables.scoreboard(of("OneEpoch"))
    assert "yours" not in unedited.rows and any(row[0] == "this run" for row in unedited.rows)
