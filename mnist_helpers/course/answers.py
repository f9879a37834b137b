"""Answers to the lessons' questions and exercises. ``notebooks/solutions/NAME.ipynb`` holds those of ``NAME.ipynb``: it
quotes each exercise, solves it, and has in its cell tagged ``key`` what can be checked."""

import ast
import contextlib
import io
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..data import Split
from ..files import replace_file
from ..layers import count_parameters, hidden_parameters
from . import notebooks

TOLERANCE = 0.01  # of a number that is not whole: to within one percent
EXERCISE = re.compile(r"^\*\*([A-Z])\.\*\* ", re.MULTILINE)


def solutions_of(name: str) -> Path:
    """Where the solutions of a notebook are, by its name: ``"01_baseline"``, ``"challenges/one_epoch"``."""
    return notebooks.solutions() / f"{name}.ipynb"


def key(name: str) -> dict:
    """``{answer: value}`` of a notebook's questions that can be checked, in order; empty where there are none.

    A pair of numbers is a range. Raises `ValueError` if a value is no literal.
    """
    path = solutions_of(name)
    cells = notebooks.tagged(notebooks.read(path), "key") if path.is_file() else []
    return {target.id: ast.literal_eval(node.value) for cell in cells for node in ast.parse(cell.source).body
            for target in node.targets}


@dataclass(frozen=True)
class Answers:
    """Which answers are right; true if all are."""

    right: dict  #: True, False, or None where there is no answer yet, by the answer's name

    def __bool__(self):
        return all(self.right.values())

    def __repr__(self):
        said = {True: "right", False: "not right", None: "no answer yet"}
        width = max(map(len, self.right), default=0)
        return "\n".join(f"{name:{width}}  {said[right]}" for name, right in self.right.items())


def check_answers(notebook: str, variables: dict, *only: str) -> Answers:
    """Compare the answers among ``variables`` with those of a notebook's solutions: all of them, or ``only`` some.

    Whole numbers, words and truth values have to be equal, other numbers to within one percent; case does not matter.
    Raises `ValueError` for a notebook without questions that can be checked, or another name of an answer.
    """
    answers = key(notebook)
    if not answers or set(only) - set(answers):
        raise ValueError(f"{solutions_of(notebook).name} has {', '.join(answers) or 'nothing'} to check")
    return Answers(compare(variables, {name: answers[name] for name in only or answers}))


def compare(given: dict, expected: dict) -> dict:
    """``{name: True, False, or None without an answer}`` of the answers that are expected."""
    return {name: _agrees(given.get(name), value) for name, value in expected.items()}


def _agrees(given, expected):
    if given is None:
        return None
    if isinstance(expected, bool):
        return isinstance(given, bool) and given == expected
    if isinstance(expected, str):
        return isinstance(given, str) and given.strip().casefold() == expected.casefold()
    try:
        given = float(given)
    except (TypeError, ValueError):
        return False
    if isinstance(expected, tuple):
        return expected[0] <= given <= expected[1]
    return given == expected if isinstance(expected, int) else math.isclose(given, expected, rel_tol=TOLERANCE)


def count_weights(model) -> int:
    """The weights of a network of digits, those among them that no optimiser sees included (see `check`)."""
    return sum(_weighed(model))


def _weighed(model):
    return [count_parameters(model), hidden_parameters(model)]


def told(variables: dict, names: list[str], networks: list[str]) -> str:
    """As JSON, what a grader asks: the answers of these names, and the weights of these networks or what went wrong."""
    weights = {}
    for network in networks:
        try:
            weights[network] = _weighed(variables[network]())
        except Exception as error:  # whatever a network can raise
            weights[network] = f"{type(error).__name__}: {error}".split("\n")[0]
    return json.dumps({"answers": {name: _plain(variables.get(name)) for name in names}, "weights": weights})


def _plain(value):
    if value is None or isinstance(value, bool | int | float | str):
        return value
    try:
        return float(value)
    except Exception:  # whatever a stranger's class can raise
        return str(type(value).__name__)


def variables_after(notebook: str) -> dict:
    """The variables that a notebook ends with, after all its cells, whose output is not shown.

    Recorded trainings are replayed, unless ``MNIST_PROFILE`` says otherwise. What is trained with these variables
    afterwards is trained in full, since nothing of it is recorded.
    """
    import matplotlib.pyplot as plt

    path = notebooks.folder() / f"{notebook}.ipynb"
    os.environ.setdefault("MNIST_PROFILE", "recorded")
    cells = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        variables = notebooks.run_cells(cells, path.name, seed=0)
    plt.close("all")
    for value in list(variables.values()):
        for split in (getattr(value, part, None) for part in ("train", "val", "test", "dataset")):
            if isinstance(split, Split) and split.profile == "recorded":
                object.__setattr__(split, "profile", "full")  # frozen for lessons; loaders hold this very object
    return {name: value for name, value in variables.items() if name != "display" and not name.startswith("__")}


# ---------------------------------------------------------------- questions and exercises as text


def questions(notebook) -> str:
    """The questions of a notebook, as Markdown."""
    return next((_after(cell, "## Questions\n") for cell in notebook.cells if "## Questions\n" in cell.source), "")


def exercises(notebook) -> dict[str, str]:
    """``{letter: text}`` of a notebook's exercises, as Markdown: each from its letter to the end of its cell."""
    return {found[1]: cell.source[found.start():].strip() for cell in notebook.cells if cell.cell_type == "markdown"
            for found in [EXERCISE.search(cell.source)] if found}


def _after(cell, heading):
    return cell.source.partition(heading)[2].strip()


def quoted(name: str) -> list[str]:
    """What the cells tagged ``quoted`` in a notebook's solutions hold: its questions, then each of its exercises."""
    lesson = notebooks.read(notebooks.folder() / f"{name}.ipynb")
    return ["\n".join(f"> {line}".rstrip() for line in text.splitlines())
            for text in (questions(lesson), *exercises(lesson).values())]


def write_quotes() -> None:
    """Bring what the solutions quote up to date. Raises `ValueError` where a notebook has more or fewer exercises."""
    for path in notebooks.every_solution():
        notebook = notebooks.read(path)
        cells = [cell for cell in notebook.cells if "quoted" in cell.metadata.get("tags", [])]
        name = path.relative_to(notebooks.solutions()).with_suffix("").as_posix()
        if len(cells) != len(texts := quoted(name)):
            raise ValueError(f"solutions/{name}: it quotes {len(cells)} texts, and the lesson has {len(texts)}")
        if [cell.source for cell in cells] != texts:
            for cell, text in zip(cells, texts, strict=True):
                cell.source = text
            replace_file(path, notebooks.as_json(notebook) + "\n")
