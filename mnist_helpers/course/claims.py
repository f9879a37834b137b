"""What five published exercises claim, and what our records say: one row a claim, kept in ``claims.toml``.

Verdicts follow from `decide` alone. Two kinds of chance count: seeds and test images.
"""

import functools
import itertools
import tomllib
from collections import Counter
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path

from .. import files
from ..data import project_root
from . import catalogue, records
from .table import Table

FILE = Path(__file__).with_name("claims.toml")
HOLDS, NOT, UNDECIDED, UNTESTABLE, UNMEASURED = VERDICTS = (
    "holds", "does not hold", "not decided", "cannot be tested", "not measured yet")
EXERCISES = {0: ("DoubleNorm", "one epoch, under 25,000 parameters"), 1: ("TwoLinear", "about 98 % after one epoch"),
             2: ("SixConvolutions", "under 20,000 parameters, 99.4 %"), 3: ("Baseline", "seven iterations"),
             4: ("FinalMNISTNet", "six requirements")}
KEYS = {"exercise", "claim", "rested", "comment", "link"}
KINDS = {"test", "count", "refuted", "why", "needed"}
MEASURES = {"test": "test_accuracy", "validation": "val_accuracy", "same measure": "augmented_train_accuracy"}
IMAGES = {"test": 10_000, "validation": 5_000, "same measure": 55_000}
SEEDS = 5  # the fewest that a verdict takes
LADDER_SEEDS = 10  # planned for every rung of the ladder
CHANCE = 0.05  #: of one wrong verdict or more, among all that are tested


@dataclass(frozen=True)
class Estimate:
    """An accuracy minus a number, or the difference of two networks, in points."""

    mean: float
    error: float  #: its standard error: seeds and images
    freedom: float  #: degrees of freedom
    n: int  #: seeds

    @property
    def interval(self) -> tuple[float, float]:
        """``(low, high)``: Student's 95 % interval."""
        from scipy.stats import t

        half = float(t.ppf(0.975, self.freedom)) * self.error
        return self.mean - half, self.mean + half

    def below(self, bound: float) -> float:
        """The one-sided p-value of the hypothesis that the true value is at or above ``bound``."""
        from scipy.stats import t

        if not self.error:
            return 1.0 if self.mean >= bound else 0.0
        return float(t.cdf((self.mean - bound) / self.error, self.freedom))

    def above(self, bound: float) -> float:
        """The one-sided p-value of the hypothesis that the true value is at or below ``bound``."""
        return Estimate(-self.mean, self.error, self.freedom, self.n).below(-bound)


@dataclass(frozen=True)
class Verdict:
    """A row of ``claims.toml`` with what was found."""

    row: dict
    verdict: str
    found: str  #: the figure, or why there is none
    estimate: Estimate | None = None
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


# ---------------------------------------------------------------- statistics


def estimated(values, images_variance: float) -> Estimate:
    """The `Estimate` of one value a seed, with the variance that new images would add (points, squared).

    Variance: std^2/n + images. Degrees of freedom by Welch and Satterthwaite, those of the images being infinite.
    """
    from statistics import fmean, variance

    of_seeds = variance(values) / len(values)
    total = of_seeds + images_variance
    freedom = total ** 2 * (len(values) - 1) / of_seeds ** 2 if of_seeds else inf
    return Estimate(fmean(values), sqrt(total), freedom, len(values))


def sides(estimate: Estimate, says: str, matters: float) -> tuple[float, float]:
    """``(for, against)``: two-sided p-values of the two findings that would settle a claim.

    more      for: above 0. Against: below ``matters``, so that no difference that matters is left.
    no loss   for: above -``matters``. Against: below 0.
    equal     for: within ``matters`` on both sides. Against: outside on one.
    """
    if says == "more":
        found = estimate.above(0), estimate.below(matters)
    elif says == "no loss":
        found = estimate.above(-matters), estimate.below(0)
    else:
        found = (max(estimate.above(-matters), estimate.below(matters)),
                 min(estimate.above(matters), estimate.below(-matters)))
    return tuple(min(1.0, 2 * p) for p in found)


def finding(estimate: Estimate, says: str, matters: float) -> tuple[str, float]:
    """``(verdict, p)`` of a claim by its 95 % interval alone, with the p-value of what settles it.

    A difference that is real but surely smaller than what matters does not bear out "more"; a loss that is real but
    surely smaller does bear out "no loss".
    """
    holds, fails = sides(estimate, says, matters)
    if max(holds, fails) < CHANCE:
        return (NOT, fails) if says == "more" else (HOLDS, holds)
    if min(holds, fails) >= CHANCE:
        return UNDECIDED, min(holds, fails)
    return (HOLDS, holds) if holds < CHANCE else (NOT, fails)


def decide(estimate: Estimate, says: str, matters: float, corrected: float) -> str:
    """The verdict of a claim: that of `finding`, if its p-value is still below 0.05 after Holm's correction."""
    return finding(estimate, says, matters)[0] if corrected < CHANCE else UNDECIDED


def holm(ps: list[float]) -> list[float]:
    """p-values corrected for their number: the chance of even one wrong verdict stays below 5 %.

    The k-th smallest of m is multiplied by m - k + 1, and none falls below the one before it.
    Source: S. Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    corrected, last = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        corrected[index] = last = max(last, min(1.0, (len(ps) - rank) * ps[index]))
    return corrected


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


def measure(test: dict, runs: dict) -> Estimate | None:
    """The `Estimate` of a row's ``test``; None where the runs ``{name: {seed: record}}`` do not suffice."""
    key, images, b = MEASURES[test["measure"]], IMAGES[test["measure"]], test["b"]
    of_a = {seed: run for seed, run in runs.get(test["a"], {}).items() if run.get(key) is not None}
    least = LADDER_SEEDS if test["a"].split()[0] in ("up", "down") else SEEDS
    if isinstance(b, str):
        of_b = {seed: run for seed, run in runs.get(b, {}).items() if run.get(key) is not None}
        pairs = [(of_a[seed], of_b[seed]) for seed in sorted(set(of_a) & set(of_b))]
        if len(pairs) < least:
            return None
        return estimated([100 * (x[key] - y[key]) for x, y in pairs],
                         1e4 * sum(_pair(x, y, test["measure"], images) for x, y in pairs) / len(pairs))
    if len(of_a) < least:
        return None
    values = [run[key] for _, run in sorted(of_a.items())]
    mean = sum(values) / len(values)
    return estimated([100 * value - b for value in values], 1e4 * mean * (1 - mean) / images)


def _pair(a, b, measured, images):
    """The images' share in the variance of a difference: from the images that one of the two gets wrong where they
    are recorded, else as if the two had been measured on different images, which is too much."""
    if measured == "test":
        return len(set(a["mistakes"]) ^ set(b["mistakes"])) / images ** 2
    return sum(run[MEASURES[measured]] * (1 - run[MEASURES[measured]]) for run in (a, b)) / images


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
    low, high = estimate.interval
    shift = 0 if isinstance(test["b"], str) else test["b"]
    sign, unit = ("", "%") if shift else ("+", "points")
    mean, low, high = (f"{value + shift:{sign}.2f}" for value in (estimate.mean, low, high))
    return f"{mean} [{low}, {high}] {unit}, n = {estimate.n}".replace("-", "−")


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
            needed = row.get("needed", f"{LADDER_SEEDS} seeds with and without" if "test" in row else "")
            found.append(Verdict(row, UNMEASURED, f"It takes: {needed}."))
    return found


# ---------------------------------------------------------------- words


def counts(found: list[Verdict] | None = None) -> str:
    """The verdicts counted, in a sentence."""
    found = verdicts() if found is None else found
    n = Counter(each.verdict for each in found)
    return (f"{len(found)} claims of five published exercises: {n[HOLDS]} hold, {n[NOT]} do not, {n[UNDECIDED]} are "
            f"not decided, {n[UNTESTABLE]} cannot be tested with such data, {n[UNMEASURED]} are not measured yet.")


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
             "Differences and accuracies come with 95 % intervals over n seeds and over new images. After Holm's",
             "correction, the chance of even one wrong verdict is below 5 %. \"Not decided\" means that the data allow",
             "both answers: it is no evidence that nothing is there. [The claims](../notebooks/claims.ipynb) explains",
             "the method."]
    for exercise in EXERCISES:
        lines += ["", f"## {source(exercise)}", "", "| claim | it rested on | verdict | what we found | |",
                  "|:--|:--|:--|:--|:--|"]
        lines += [f"| {each.row['claim']} | {each.row['rested']} | **{each.verdict}** | "
                  f"{each.found.removesuffix('.')}. {each.row['comment']} | "
                  f"[see](../notebooks/{each.row['link']}.ipynb) |"
                  for each in found if each.row["exercise"] == exercise]
    return "\n".join(lines) + "\n"
