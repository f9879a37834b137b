"""A learner's own ideas beside the lessons: the recipe to start from, the table of all that was tried, and the look at
the test images."""

import ast
from math import sqrt

from .. import idea as trying
from ..data import load_mnist
from ..measure import evaluate
from ..stats import best_by_luck, mean_over_seeds, paired_difference
from . import catalogue, networks, notebooks, records
from .table import Table
from .tables import plus_minus


def recipe_of(lesson: int | str, **changes) -> trying.Recipe:
    """The recipe of a lesson, by its number or the class of its network, read from the cells of its notebook as they
    stand now, with ``changes``.

    Raises `ValueError`, naming the lessons that there are, for any other name.
    """
    entry = _lesson(lesson)
    path = notebooks.folder() / entry.notebook_file
    module = vars(networks.module_of(path))
    tree = ast.parse("\n".join(cell.source for cell in notebooks.recipe_cells(notebooks.read(path))))

    def made(name, given=None):
        """A function of ``given`` that makes what the notebook assigns to ``name``; None where it assigns nothing."""
        value = next((node.value for node in ast.walk(tree) if isinstance(node, ast.Assign)
                      and ast.unparse(node.targets[0]) == name), None)
        code = compile(ast.Expression(value), f"{path.name}, {name}", "eval") if value else None
        return code and (lambda *argument: eval(code, module | dict(zip([given], argument, strict=False))))

    sizes = [word.value.value for word in ast.walk(tree) if isinstance(word, ast.keyword)
             and word.arg == "batch_size" and isinstance(word.value, ast.Constant)]
    scheduler = made("scheduler", "optimizer")
    recipe = trying.Recipe(entry.name, module[entry.name], made("optimizer", "model"), entry.epochs,
                           scheduler and (lambda optimizer: scheduler(optimizer)), made("augment")(), sizes[0])
    return recipe.but(**changes)


def _lesson(lesson):
    found = next((each for each in catalogue.lessons() if lesson in (each.lesson, each.name)), None)
    if found is None:
        raise ValueError(f"there is no lesson {lesson!r}; there are "
                         f"{', '.join(f'{each.lesson} ({each.name})' for each in catalogue.lessons())}")
    return found


# ---------------------------------------------------------------- the table

MEANS = ("Accuracies in percent, on the validation images after the last epoch: the mean over n seeds ± half the width "
         "of its 95 % interval.")


def ideas(against: trying.Idea | int | str | None = None, profile: str | None = None) -> Table:
    """Every idea of the log that was tried in one profile (by default, that of the latest), with the mean difference
    of its validation accuracy from that of ``against``, seed by seed: another idea or its number, or a lesson by its
    class; by default, the lesson that the latest idea began with.

    Under it stands how much better the best of so many equal ideas looks by luck (`best_by_luck`), from the spread
    between seeds, pooled over the ideas. Raises `ValueError` for a number or a lesson that is not there.
    """
    every, looks = trying.logged(), trying.logged(looks=True)
    lines = [line for runs in every.values() for line in runs.values() if profile in (None, line["profile"])]
    if not lines:
        return Table(["idea"], [], "No idea is in the log yet: mh.try_idea(mh.recipe_of(3), ...) tries one.")
    kind = lines[-1]["dataset"], lines[-1]["profile"]
    shown = {key: runs for key, runs in every.items() if _kind(runs) == kind}
    name, theirs, setting = _against(lines[-1]["lesson"] if against is None else against, every, kind)
    numbers = {key: number for number, key in enumerate(every, start=1)}
    rows = [[f"{numbers[key]} {_first(runs)['note']}", f"{_first(runs)['parameters']:,}", _validation(runs),
             "" if name == f"idea {numbers[key]}" else _difference(reached(runs), theirs),
             *([_tested(looks.get(key, []))] if looks else [])] for key, runs in shown.items()]
    others = [reached(runs) for key, runs in shown.items() if name != f"idea {numbers[key]}"]
    told = [MEANS, _compared(name, theirs, setting, shown, kind), luck(others, theirs), _looks(looks),
            f"{len(every) - len(shown)} more in other profiles or on other data." * (len(every) > len(shown))]
    return Table(["idea", "parameters", "validation (n)", "difference", *(["test (n)"] if looks else [])], rows,
                 " ".join(filter(None, told)))


def _first(runs):
    return next(iter(runs.values()))


def _kind(runs):
    return _first(runs)["dataset"], _first(runs)["profile"]


def reached(runs: dict[int, dict]) -> dict[int, float]:
    """``{seed: validation accuracy}`` of an idea's lines; without those that diverged."""
    return {seed: line["val_accuracy"] for seed, line in runs.items() if "diverged" not in line}


def _against(what, every, kind):
    """``(name, {seed: validation accuracy}, (epochs, images))`` of what ideas are compared with."""
    number = list(every).index(what.key) + 1 if isinstance(what, trying.Idea) and what.key in every else what
    if isinstance(number, int):
        if not 1 <= number <= len(every):
            raise ValueError(f"there is no idea {number} in the log; there are 1 to {len(every)}")
        runs = list(every.values())[number - 1]
        return f"idea {number}", reached(runs) if _kind(runs) == kind else {}, _setting(runs)
    entry = _lesson(what)
    recorded = records.all_seeds().get(entry.name, {}) if kind == ("mnist", "full") else {}
    return (f"lesson {entry.lesson} as recorded", {seed: each["val_accuracy"] for seed, each in recorded.items()},
            (entry.epochs, next((each["train_images"] for each in recorded.values()), 0)))


def _setting(runs):
    return _first(runs)["epochs"], _first(runs)["images"]


def _validation(runs):
    values, failed = reached(runs), len(runs) - len(reached(runs))
    mean = f"{plus_minus(mean_over_seeds(values.values()))} ({len(values)})" if values else ""
    return ", ".join(filter(None, [mean, f"{failed} diverged" * (failed > 0)]))


def _difference(ours, theirs):
    common = sorted(set(ours) & set(theirs))
    return plus_minus(paired_difference([ours[seed] for seed in common], [theirs[seed] for seed in common]), "+") if (
        common) else ""


def _compared(name, theirs, setting, shown, kind):
    """What the differences compare, in a sentence or two."""
    if not theirs:
        return f"Nothing to compare: {name} has no run of the {kind[1]} profile on {kind[0]}."
    seeds = sorted({seed for runs in shown.values() for seed in reached(runs)} & set(theirs))
    told = f"Difference: from {name}, seed by seed (seeds {', '.join(map(str, seeds)) or 'none in common'})."
    if any(_setting(runs) != setting for runs in shown.values()):
        told += (f" It trained {setting[0]} epochs on {setting[1]:,} images; where an idea did not, the difference is "
                 "between these, too.")
    return told


def luck(ideas: list[dict[int, float]], other: dict[int, float]) -> str:
    """How much of the best of several ideas, each ``{seed: accuracy}``, luck alone would give, in a sentence. The
    spread between seeds is pooled over the ideas, or that of ``other`` where no idea has two seeds."""
    ideas = [values for values in ideas if values]
    several = [values for values in ideas if len(values) > 1] or [values for values in [other] if len(values) > 1]
    weights = [len(values) - 1 for values in several]
    squares = sum(weight * mean_over_seeds(values.values()).std ** 2
                  for weight, values in zip(weights, several, strict=True))
    std = sqrt(squares / sum(weights)) if several else 0.0
    if len(ideas) < 2 or not std:
        return ""
    by_luck = best_by_luck([std / sqrt(len(values)) for values in ideas])
    return (f"You have tried {len(ideas)} ideas: the best of {len(ideas)} equally good ideas looks "
            f"{100 * by_luck:.2f} points better than it is, by luck.")


def _tested(looks):
    """The test accuracy of the latest of these looks."""
    mean = mean_over_seeds(looks[-1]["test_accuracy"].values()) if looks else None
    return f"{plus_minus(mean)} ({mean.n})" if mean else ""


def _looks(looks):
    count = sum(map(len, looks.values()))
    return f"The test images were looked at {count} time{'s' * (count != 1)}."


# ---------------------------------------------------------------- the test images


def test_idea(idea: trying.Idea, profile: str | None = None) -> list[dict]:
    """Look at the test images with the networks of an idea, once you change it no more: return its records, as
    `record` makes them, one a seed. Every look is logged, and counted under `ideas`.

    Raises `ValueError` for anything but what `try_idea` returned.
    """
    if not isinstance(idea, trying.Idea):
        raise ValueError("pass what mh.try_idea returned; its line, run again, trains nothing that is in the log")
    if not idea.runs:
        raise ValueError(f"no training of idea {idea.number} came to its end, so there is no network to test")
    test = load_mnist(profile=profile, verbose=False).test
    made = [records.record(run, evaluate(run.model, test)) for run in idea.runs]
    trying.note_look(idea, {each["seed"]: each["test_accuracy"] for each in made})
    print(f"{_looks(trying.logged(looks=True))} What you change from now on, these images have helped to choose.")
    return made
