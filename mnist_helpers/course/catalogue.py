"""The catalogue: one row a network of the course, kept in ``catalogue.toml``."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("catalogue.toml")
NEEDED = {"name", "notebook", "parameters", "epochs", "floors"}
FLOORS = {"mnist full", "mnist quick", "digits full", "digits quick"}
PUBLISHED = {"accuracy", "images", "source"}
# Of a published figure, where there is more to say; its logs have the accuracy after each epoch, on its ``images`` and
# while learning.
MORE = {"note", "file", "commit", "log", "train_log"}


@dataclass(frozen=True)
class Network:
    """A network of a lesson, which has a number and a title, or of a challenge."""

    name: str  #: of its class
    notebook: str  #: below ``notebooks/``, without its ending: ``"01_baseline"``, ``"challenges/one_epoch"``
    parameters: int
    epochs: int
    floors: dict  #: the test accuracy below which something is broken, by dataset and profile
    lesson: int | None = None
    title: str = ""
    challenge: str = ""
    budget: int | None = None  #: the most parameters that its exercise allows
    fresh_seeds: int = 10  #: how many from 100 on are planned
    published: dict | None = None  #: ``accuracy``, ``images``, ``source`` (a repository, or "as reported") and `MORE`

    @property
    def notebook_file(self) -> str:
        return f"{self.notebook}.ipynb"

    @property
    def size(self) -> str:
        """Its parameters as tables show them, beside a budget that they exceed: ``"25,255 > 25,000"``."""
        return f"{self.parameters:,}" + (f" > {self.budget:,}" if self.over_budget else "")

    @property
    def limit(self) -> int | None:
        """The most parameters that a submission may have: the budget, or those of the network itself where it exceeds
        that, as the published ones of lesson 4 and of one epoch do."""
        return self.budget and max(self.budget, self.parameters)

    @property
    def over_budget(self) -> bool:
        return self.budget is not None and self.parameters > self.budget

    @property
    def label(self) -> str:
        """What tables call it: ``"5 under 20k"`` of a lesson, the class of a challenge."""
        return f"{self.lesson} {self.title}" if self.lesson else self.name


@functools.cache
def read(path: Path = FILE) -> tuple[Network, ...]:
    """The networks of a catalogue, in its order. Raises `ValueError`, naming every row that is wrong and why."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    rows = content.get("network", [])
    names = [row.get("name", f"row {number}") for number, row in enumerate(rows, start=1)]
    problems = list(_keys(content, {"network"}, {"network"}))
    problems += [f"{name}: {problem}" for name, row in zip(names, rows, strict=True) for problem in _problems(row)]
    problems += [f"{name}: there are two" for name in sorted({name for name in names if names.count(name) > 1})]
    if problems:
        raise ValueError(f"{path.name} is wrong. " + "; ".join(problems))
    return tuple(Network(**row) for row in rows)


def _problems(row):
    kind = {"title"} if "lesson" in row else {"challenge"}
    yield from _keys(row, NEEDED | kind, NEEDED | kind | {"lesson", "budget", "published", "fresh_seeds"})
    yield from (f"floors: {problem}" for problem in _keys(row.get("floors", {}), FLOORS, FLOORS))
    if "published" in row:
        yield from (f"published: {problem}" for problem in _keys(row["published"], PUBLISHED, PUBLISHED | MORE))


def _keys(row, needed, known):
    """What is wrong with the keys of a row, in words."""
    yield from (f"{key} is missing" for key in sorted(needed - set(row)))
    yield from (f"{key} is unknown" for key in sorted(set(row) - known))


def networks() -> list[Network]:
    """Every network of the course: the lessons' in order, then the challenges'."""
    return list(read())


def network(name: str) -> Network | None:
    """The network whose class has this name, or None."""
    return next((each for each in read() if each.name == name), None)


def lessons() -> list[Network]:
    return sorted((each for each in read() if each.lesson), key=lambda each: each.lesson)


def challenges() -> list[Network]:
    return [each for each in read() if each.challenge]
