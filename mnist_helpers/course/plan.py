"""What came out of ``results/plan.md``: its list of claims, judged on the fresh seeds by the rules that it gives."""

from __future__ import annotations

from ..stats import Mean, holm, mean_over_seeds, paired_difference
from . import catalogue, records, tables

# Claims 1 to 7: that a minus b lies on this side of a bound, in points; and what it means if the interval holds it.
DIFFERENCES = [
    ("Under20K", "DropoutEverywhere", "test_accuracy", "below", 0.455, "refuted"),
    ("Under20K", "DropoutEverywhere", "test_accuracy", "above", 0, "refuted"),
    ("Under20K", "TwentyEpochs", "test_accuracy", "below", 0.09, "not decided"),
    ("DropoutBeforeTheClassifier", "TwentyEpochs", "augmented_train_accuracy", "below", 0, "refuted"),
    ("DropoutBeforeTheClassifier", "TwentyEpochs", "test_accuracy", "above", 0, "refuted"),
    ("FewerParameters", "Baseline", "test_accuracy", "above", 0, "refuted"),
    ("TwentyEpochs", "FewerParameters", "test_accuracy", "above", 0, "refuted"),
]
REACHING = ["Strided", "AllImages", "SixOfSix", "FinalMNISTNet", "Under8000", "Fewest", "FewEpochs", "TwoEpochs",
            "SpeedRun", "SixConvolutions"]  # claim 8


def _split():
    """``{network: (fresh, before)}`` of the whole catalogue, by `records.split`."""
    every = records.all_seeds()
    return {network.name: records.split(network, every.get(network.name, {})) for network in catalogue.networks()}


def _difference(seeds, a, b, key):
    (one, _), (other, _) = seeds[a], seeds[b]
    common = sorted(set(one) & set(other))
    return paired_difference(*([100 * runs[seed][key] for seed in common] for runs in (one, other))) if common else None


def _reached(seeds, name):
    fresh, _ = seeds[name]
    mean = records.over_all(fresh)
    return mean and mean.in_points()


def _means(seeds):
    """``{network: (before, fresh)}``: mean test accuracies in percent, of networks that have both."""
    return {name: tuple(100 * records.over_all(runs).mean for runs in (before, fresh))
            for name, (fresh, before) in seeds.items() if fresh and before}


def _flattered(seeds):
    """Fresh mean minus the mean before, over all networks; None while one is missing."""
    if not all(fresh for fresh, _ in seeds.values()):
        return None
    return mean_over_seeds([fresh - before for before, fresh in _means(seeds).values()])


def changes() -> list[list[str]]:
    """The table for the page: of each network that has both, the mean before, the fresh one, and what changed."""
    return [[catalogue.network(name).label, f"{before:.2f}", f"{fresh:.2f}",
             tables.signed(fresh - before).replace("-", "−")] for name, (before, fresh) in _means(_split()).items()]


def judged() -> list[tuple[str, Mean | None, str, float, str]]:
    """``(claim, estimate, side, bound, if the interval holds the bound)`` of each figure of the plan's list; without an
    estimate where runs are missing."""
    seeds = _split()
    found = [(str(number), _difference(seeds, a, b, key), side, bound, inside)
             for number, (a, b, key, side, bound, inside) in enumerate(DIFFERENCES, start=1)]
    found += [(f"8: {name}", _reached(seeds, name), "above", 100 * tables.GOAL, "not decided") for name in REACHING]
    return [*found, ("9", _flattered(seeds), "above", 0, "not refuted")]


def verdict(estimate: Mean, side: str, bound: float, inside: str) -> str:
    """The plan's rule: an interval that holds the bound, lies on the claimed side of it, or on the other one."""
    if estimate.low <= bound <= estimate.high:
        return inside
    return "holds" if (estimate.mean > bound) == (side == "above") else "refuted"


def rows() -> list[list[str]]:
    """The table for the page: claim, estimate, seeds, corrected p, verdict. Figures of missing runs count in Holm's
    correction as if they had shown nothing."""
    table, found = [], judged()
    ps = [1.0 if estimate is None else min(1.0, 2 * min(estimate.above(bound), estimate.below(bound)))
          for _, estimate, _, bound, _ in found]
    for (name, estimate, side, bound, inside), p in zip(found, holm(ps), strict=True):
        if estimate is None:
            table.append([name, "", "", "", "the runs are not all made"])
            continue
        said = verdict(estimate, side, bound, inside)
        if p >= 0.05 and said in ("holds", "refuted") and not estimate.low <= bound <= estimate.high:
            said += " by the interval; not decided after the correction"
        sign = "" if name.startswith("8") else "+"
        shown = f"{estimate.mean:{sign}.3f} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]".replace("-", "−")
        table.append([name, shown, f"{estimate.n}", "< 0.001" if p < 0.001 else f"{p:.3f}", said])
    return table
