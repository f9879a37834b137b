"""What five published exercises claim, and what our records say: one row a claim, kept in ``claims.toml``.

Verdicts follow from `finding` alone. Two kinds of chance count: seeds and images.
"""

import functools
import itertools
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from .. import files
from ..data import project_root
from ..stats import CHANCE, HOLDS, NOT, UNDECIDED, Mean, finding, holm, mean_over_seeds
from . import catalogue, records
from .table import Table
from .tables import signed

FILE = Path(__file__).with_name("claims.toml")
UNTESTABLE, UNMEASURED = "cannot be tested", "not measured yet"
VERDICTS = HOLDS, NOT, UNDECIDED, UNTESTABLE, UNMEASURED
EXERCISES = {0: ("DoubleNorm", "one epoch, under 25,000 parameters"), 1: ("TwoLinear", "about 98 % after one epoch"),
             2: ("SixConvolutions", "under 20,000 parameters, 99.4 %"), 3: ("Baseline", "seven iterations"),
             4: ("FinalMNISTNet", "six requirements")}
KEYS = {"exercise", "claim", "rested", "comment", "link"}
KINDS = {"test", "count", "refuted", "why", "needed"}
MEASURES = {"test": "test_accuracy", "validation": "val_accuracy", "same measure": "augmented_train_accuracy",
            "shifted by three pixels": "shifted_val_accuracy", "thicker digits": "thicker_val_accuracy",
            "gap of training and validation": "clean_train_accuracy"}
IMAGES = {"test": 10_000, "same measure": 55_000}  # all others: the 5,000 validation images
SEEDS = 5  # the fewest that a verdict takes
LADDER_SEEDS = 10  # planned for every rung of the ladder


@dataclass(frozen=True)
class Verdict:
    """A row of ``claims.toml`` with what was found."""

    row: dict
    verdict: str
    found: str  #: the figure, or why there is none
    estimate: Mean | None = None  #: of an accuracy minus a number, or of a difference, in points
    p: float | None = None  #: two-sided, before Holm's correction
    corrected: float | None = None  #: after it


@functools.cache
def read(path: Path = FILE) -> tuple[dict, ...]:
    """The rows of a file of claims. Raises `ValueError` for a row with other keys than it should have."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["claim"]
    for row in rows:
        if not set(row) >= KEYS or len(set(row) & KINDS) != 1 or set(row) - KEYS - KINDS:
            raise ValueError(f"{path.name}: wrong keys in the claim {row.get('claim')!r}")
    return tuple(rows)


def decide(estimate: Mean, says: str, matters: float, corrected: float) -> str:
    """The verdict of a claim: that of `finding`, if its p-value is still below 0.05 after Holm's correction."""
    return finding(estimate, says, matters)[0] if corrected < CHANCE else UNDECIDED


# ---------------------------------------------------------------- measuring


def ladder() -> dict[str, dict[int, dict]]:
    """``{"down 3": {seed: record}}`` of ``results/ladder.jsonl``."""
    return _lines("ladder.jsonl", "places", lambda places: [f"{name} {number}" for name, number, _ in places])


def variants() -> dict[str, dict[int, dict]]:
    """``{"DoubleNorm, no norms": {seed: record}}`` of ``results/variants.jsonl``."""
    return _lines("variants.jsonl", "variant", lambda name: [name])


def _lines(file, key, names):
    """``{name: {seed: record}}`` of a file of ``results/``, without runs that diverged; ``names`` are those that a
    record's ``key`` stands for."""
    found = {}
    for record in files.read_records(project_root() / "results" / file, {key, "seed", "val_accuracy"}):
        if record["val_accuracy"] is not None:
            for name in names(record[key]):
                found.setdefault(name, {})[record["seed"]] = record
    return found


def measure(test: dict, runs: dict) -> Mean | None:
    """The `Mean` of a row's ``test``, in points; None where the runs ``{name: {seed: record}}`` do not suffice.

    Of test accuracies the records know which images each run reads. Of the others they do not: there new images count
    by the binomial variance of one run, as if runs had no mistakes in common. Of the gap between the accuracies on
    training images as they are and on validation images, the latter's variance counts: they are eleven times fewer.
    """
    measured, b = test["measure"], test["b"]
    key, images, gap = MEASURES[measured], IMAGES.get(measured, 5_000), measured.startswith("gap")
    of_a, of_b = ({seed: run for seed, run in runs.get(name, {}).items() if run.get(key) is not None}
                  for name in (test["a"], b))
    seeds = sorted(set(of_a) & set(of_b)) if isinstance(b, str) else sorted(of_a)
    if len(seeds) < _fewest(test):
        return None
    if measured == "test":
        found = records.over_all(of_a, of_b if isinstance(b, str) else None)
    else:
        sides = [[each[seed] for seed in seeds] for each in ((of_a, of_b) if isinstance(b, str) else (of_a,))]
        drawn = [run["val_accuracy" if gap else key] for side in sides for run in side]  # of new images
        share = sum(value * (1 - value) for value in drawn) / len(seeds) / images
        values = [[run[key] - gap * run["val_accuracy"] for run in side] for side in sides]
        found = mean_over_seeds([side[0] - sum(side[1:]) for side in zip(*values, strict=True)], images=share)
    shift = 0 if isinstance(b, str) else b
    found = found.in_points()
    return replace(found, mean=found.mean - shift)


def _fewest(test):
    return LADDER_SEEDS if test["a"].split()[0] in ("up", "down") else SEEDS


def _falls(run):
    """How often a run's validation accuracy is lower than after the epoch before."""
    curve = run["val_curve"]
    return sum(after < before for before, after in itertools.pairwise(curve))


OF_RUNS = {"training loss of the epoch": lambda run: run["train_loss"], "falls of the validation curve": _falls}


def _counted(count, runs):
    """``(verdict, found)`` of a claim that arithmetic settles: one number, or the mean over a network's runs."""
    a, measured, n = count["a"], count["measure"], ""
    if measured in OF_RUNS:
        of_a = runs.get(a, {}).values()
        if len(of_a) < SEEDS:
            return UNMEASURED, f"It takes: {SEEDS} runs."
        value, n = round(sum(map(OF_RUNS[measured], of_a)) / len(of_a), 2), f", mean of {len(of_a)} runs"
    else:
        value = getattr(catalogue.network(a), measured) if isinstance(a, str) else a
    holds = value < count["b"] if count["says"] == "below" else abs(value - count["b"]) <= count["within"]
    return (HOLDS if holds else NOT), f"{value:,} {measured}{n}"


def _found(test, estimate):
    shift = 0 if isinstance(test["b"], str) else test["b"]
    sign, unit = ("", "%") if shift else ("+", "points")
    mean, low, high = (signed(value) if sign else f"{value + shift:.2f}"
                       for value in (estimate.mean, *estimate.interval))
    return f"{mean} [{low}, {high}] {unit}, {test['measure']}, n = {estimate.n}".replace("-", "−")


def verdicts() -> list[Verdict]:
    """Every claim with its verdict, in the order of the file, by the records as they are now."""
    runs = records.by_seed() | ladder() | variants()
    measured = {index: measure(row["test"], runs) for index, row in enumerate(read()) if "test" in row}
    tested = {index: estimate for index, estimate in measured.items() if estimate}
    rules = {index: (read()[index]["test"]["says"], read()[index]["test"]["matters"]) for index in tested}
    ps = {index: finding(estimate, *rules[index])[1] for index, estimate in tested.items()}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    found = []
    for index, row in enumerate(read()):
        if index in tested:
            verdict = decide(tested[index], *rules[index], corrected[index])
            found.append(Verdict(row, verdict, _found(row["test"], tested[index]), tested[index], ps[index],
                                 corrected[index]))
        elif "count" in row:
            found.append(Verdict(row, *_counted(row["count"], runs)))
        elif "refuted" in row:
            found.append(Verdict(row, NOT, row["refuted"]))
        elif "why" in row:
            found.append(Verdict(row, UNTESTABLE, row["why"]))
        else:
            needed = row["needed"] if "needed" in row else f"{_fewest(row['test'])} seeds of each"
            found.append(Verdict(row, UNMEASURED, f"It takes: {needed}."))
    return found


# ---------------------------------------------------------------- words


def counts(found: list[Verdict] | None = None) -> str:
    """The verdicts counted, in a sentence."""
    found = verdicts() if found is None else found
    n = Counter(each.verdict for each in found)
    waiting = f", {n[UNMEASURED]} are not measured yet" if n[UNMEASURED] else ""
    return (f"{len(found)} claims of five published exercises: {n[HOLDS]} hold, {n[NOT]} do not, {n[UNDECIDED]} are "
            f"not decided, {n[UNTESTABLE]} cannot be tested{waiting}.")


def source(exercise: int) -> str:
    """What an exercise is called, and where it was published."""
    name, asked = EXERCISES[exercise]
    published = catalogue.network(name).published
    return f"Exercise {exercise}: {asked} ({published['source'] if published else 'as reported'})"


def table(exercise: int, found: list[Verdict] | None = None) -> Table:
    """The claims of an exercise and their verdicts, in a `Table`."""
    found = verdicts() if found is None else found
    return Table(["claim", "verdict", "what we found"],
                 [[each.row["claim"], each.verdict, each.found] for each in found
                  if each.row["exercise"] == exercise])


def page_text(found: list[Verdict] | None = None) -> str:
    """The page ``site/claims.md``."""
    found = verdicts() if found is None else found
    lines = ["# Every claim, examined", "", f"**{counts(found)}**", "",
             "Differences and accuracies come with the images they were measured on, and with 95 % intervals over",
             "n seeds and over new images; *same measure* is the published one, on training images. Holm's correction",
             "aims at a chance of 5 % for even one wrong verdict. \"Not decided\" means that the data allow both",
             "answers: it is no evidence that nothing is there. [The claims](../notebooks/claims.ipynb) explains the",
             "method."]
    for exercise in EXERCISES:
        lines += ["", f"## {source(exercise)}", "", "| claim | it rested on | verdict | what we found | |",
                  "|:--|:--|:--|:--|:--|"]
        lines += [f"| {each.row['claim']} | {each.row['rested']} | **{each.verdict}** | "
                  f"{each.found.removesuffix('.')}. {each.row['comment']} | "
                  f"[see](../notebooks/{each.row['link']}.ipynb) |"
                  for each in found if each.row["exercise"] == exercise]
    return "\n".join(lines) + "\n"
