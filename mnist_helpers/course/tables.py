"""The tables that lessons and pages show, made of records."""

import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from .. import data
from ..files import read_records
from ..stats import Mean, mcnemar, mean_over_seeds, newcombe_interval, paired_difference, wilson_interval
from . import catalogue, records
from .stamps import stale

STALE = "†"
NOTE = f"{STALE} recorded with other code than now: `python -m mnist_helpers verify` compares"
NO_BREAK = "\N{NO-BREAK SPACE}"


class Table:
    """Rows under a header, showing itself as Markdown in a notebook and aligned on a terminal, with a note below."""

    def __init__(self, header: list[str], rows: list[list[str]], note: str = ""):
        self.header, self.rows, self.note = header, rows, note

    def _repr_markdown_(self):
        alignment = ["---"] + ["--:"] * (len(self.header) - 1)
        lines = [[_markdown(cell) for cell in row] for row in (self.header, *self.rows)]
        text = "\n".join("| " + " | ".join(row) + " |" for row in (lines[0], alignment, *lines[1:]))
        # A narrow page may break a cell between figures, not within one.
        figures = r"\[[^]|]*\]|\([^)|]*\)|[\d.]+ %|[\d.]+ ± [\d.]+|(?:more than|within) noise"
        text = re.sub(figures, lambda match: match[0].replace(" ", NO_BREAK), text)
        return text + (f"\n\n{self.note}" if self.note else "")

    def __str__(self):
        rows = [[_plain(cell) for cell in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                      zip(row[1:], widths[1:], strict=True))]).rstrip()
                 for row in rows]
        ruled = [lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]]
        return "\n".join([*ruled, *([self.note] if self.note else [])])

    __repr__ = __str__


def _plain(cell):
    """Text of one line, without the codes that move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in cell)


def _markdown(cell):
    return html.escape(_plain(cell), quote=False).replace("|", "\\|")


# ---------------------------------------------------------------- words


def percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def with_interval(record: dict) -> str:
    """The test accuracy with its Wilson interval, in percent."""
    low, high = wilson_interval(record["test_correct"], record["test_total"])
    return f"{percent(record['test_accuracy'])} [{100 * low:.2f}, {100 * high:.2f}]"


def label(record: dict) -> str:
    """A record's network, and what keeps it from being compared with full runs on MNIST."""
    network = catalogue.network(record["model"])
    notes = ["digits, not MNIST"] * (record["dataset"] != "mnist") + ["quick"] * (record["profile"] != "full")
    return (network.label if network else record["model"]) + (f" ({', '.join(notes)})" if notes else "")


def published_figure(record: dict) -> tuple[float | None, str]:
    """``(accuracy, images)`` as published for a record's network; ``(None, "")`` if nothing comparable was."""
    network = catalogue.network(record["model"])
    if not network or not network.published or not records.is_full_mnist(record):
        return None, ""
    return network.published["accuracy"], network.published["images"]


def plus_minus(mean: Mean, sign: str = "") -> str:
    """A mean with the half-width of its 95 % interval, in percent or points."""
    if mean.n < 2:
        return f"{100 * mean.mean:{sign}.2f}"
    return f"{100 * mean.mean:{sign}.2f} ± {100 * (mean.high - mean.mean):.2f}"


# ---------------------------------------------------------------- over seeds


def over_seeds(seeds: dict[int, dict], key: str = "test_accuracy") -> Mean | None:
    """The mean over seeds of a measure of ``{seed: record}``; None where a record has none."""
    values = [record.get(key) for record in seeds.values()]
    return None if not values or None in values else mean_over_seeds(values)


def means() -> dict[str, tuple[Mean, Mean]]:
    """``{network: (test, measured as published)}`` of the lessons over the seeds of the course's records."""
    recorded = records.by_seed()
    return {network.name: (over_seeds(recorded[network.name]),
                           over_seeds(recorded[network.name], "augmented_train_accuracy"))
            for network in catalogue.lessons() if network.name in recorded}


def difference_over_seeds(ours: dict[int, dict], theirs: dict[int, dict]) -> Mean | None:
    """The `paired_difference` of the test accuracies of ``{seed: record}`` over the seeds both have; None under two."""
    common = sorted(set(ours) & set(theirs))
    if len(common) < 2:
        return None
    return paired_difference(*([runs[seed]["test_accuracy"] for seed in common] for runs in (ours, theirs)))


def same_network(record: dict, seeds: dict[int, dict]) -> bool:
    """Whether a record is of the network and length of ``{seed: record}``: a changed lesson is not."""
    return all(record[key] == each[key] for each in seeds.values() for key in ("model", "parameters", "epochs"))


def _gain(name, recorded):
    """The gain of a lesson over the one before, in words; empty where there is none."""
    names = [network.name for network in catalogue.lessons()]
    place = names.index(name)
    step = difference_over_seeds(recorded.get(name, {}), recorded.get(names[place - 1], {})) if place else None
    if step is None:
        return ""
    return plus_minus(step, "+") + ("" if step.verdict == "more than noise" else " (noise)")


def _mark(seeds):
    return f" {STALE}" if any(stale(record) for record in seeds.values()) else ""


def _note(rows):
    return NOTE if any(STALE in row[0] for row in rows) else ""


def lessons_table(show: dict | None = None) -> Table:
    """The seven lessons, or those of ``{network: own record or None}``: sizes, the published accuracy beside the same
    measure of ours and the test accuracy, means over seeds with the half-width of their 95 % interval, in percent."""
    recorded, rows = records.by_seed(), []
    for network in catalogue.lessons():
        seeds = recorded.get(network.name, {})
        own = (show or {}).get(network.name)
        if (show is not None and network.name not in show) or not (seeds or own):
            continue
        if own and not (seeds and records.is_full_mnist(own) and same_network(own, seeds)):
            seeds = {own["seed"]: own}  # the learner's own network, or data that do not compare
        first = next(iter(seeds.values()))
        measured = over_seeds(seeds, "augmented_train_accuracy")
        rows.append([(label(own) if own else network.label) + _mark(seeds if own is None else {}),
                     f"{first['parameters']:,}", str(first["epochs"]),
                     f"{100 * published_figure(first)[0]:.2f}" if published_figure(first)[0] else "",
                     "" if measured is None else f"{100 * measured.mean:.2f}",
                     plus_minus(over_seeds(seeds)),
                     _gain(network.name, recorded) if own is None or len(seeds) > 1 else ""])
    return Table(["lesson", "weights", "epochs", "published", "same measure", "test", "gain"], rows, _note(rows))


def records_so_far(record: dict) -> list[dict]:
    """The course's records of the lessons before this one's, of the same seed where there is one, and this record. On
    the digits sample it stands alone, since nothing measured there compares with MNIST."""
    recorded = records.by_seed() if record["dataset"] == "mnist" else {}
    network = catalogue.network(record["model"])
    before = [each.name for each in catalogue.lessons() if network and network.lesson and each.lesson < network.lesson]
    return [recorded[name].get(record["seed"], next(iter(recorded[name].values()))) for name in before
            if name in recorded] + [record]


def table_so_far(record: dict) -> Table:
    """`lessons_table` up to this record's lesson, over the course's seeds, with this run's own test accuracy below."""
    rows = {each["model"]: None for each in records_so_far(record)[:-1]} | {record["model"]: record}
    if record["dataset"] != "mnist":
        rows = {record["model"]: record}
    table = lessons_table(rows)
    own = f"This run, seed {record['seed']}: test {with_interval(record)}."
    table.note = "\n".join(filter(None, [own, table.note]))
    return table


def measures(record: dict) -> Table:
    """One network's accuracies: as published, as this run has it measured the same way, and on images that were not
    trained on."""
    published, images = published_figure(record)
    rows = [["published", percent(published), images]] if published else []
    if "augmented_train_accuracy" in record:
        rows.append(["this run, same measure", percent(record["augmented_train_accuracy"]),
                     f"{record['train_images']:,} training images, augmented"])
    return Table(["measure", "accuracy", "images"], [
        *rows,
        ["this run, validation", percent(record["val_accuracy"]), "held out, choices are made on them"],
        ["this run, test", with_interval(record), f"{record['test_total']:,} test images, seen once"]])


def _p(value):
    return f"= {value:.2f}" if value >= 0.005 else "< 0.01"


def compare(record: dict, other: str) -> str:
    """What this run's test accuracy says beside that of another network of the catalogue, in sentences.

    First the two runs: the 95 % interval of the difference as if each had been tested on images of its own
    (`newcombe_interval`), and the exact test on the images they share (`mcnemar`). Then, if the course has seeds of
    both, the mean difference over those.
    """
    recorded = records.by_seed()
    theirs = recorded.get(other, {})
    if not records.is_full_mnist(record) or not theirs:
        return f"Nothing to compare: it takes full runs on MNIST, of this network and of {other}."
    run = theirs.get(record["seed"], next(iter(theirs.values())))
    low, high = newcombe_interval(record["test_correct"], record["test_total"], run["test_correct"], run["test_total"])
    difference = record["test_accuracy"] - run["test_accuracy"]
    ours, others, p = mcnemar(record["mistakes"], run["mistakes"])
    said = [f"This run against {label(run)} (seed {run['seed']}): test accuracy {percent(record['test_accuracy'])} "
            f"against {percent(run['test_accuracy'])},",
            f"  a difference of {100 * difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}.",
            f"  {ours} images only this run gets wrong, {others} only the other: exact McNemar p {_p(p)}."]
    own = recorded.get(record["model"], {})
    over = difference_over_seeds(own, theirs)
    if over and same_network(record, own):
        said.append(f"Over {over.n} seeds a side: mean difference {100 * over.mean:+.2f} points, 95 % interval "
                    f"{100 * over.low:+.2f} to {100 * over.high:+.2f}: {over.verdict}.")
    else:
        said.append("What other seeds would say, one run a side cannot tell.")
    return "\n".join(said)


# ---------------------------------------------------------------- challenges


def entries(*own: dict) -> dict[str, dict[int, dict]]:
    """``{network: {seed: record}}`` of the challenges; records of now count for seeds that the course has not."""
    found = {name: dict(seeds) for name, seeds in records.by_seed().items()}
    for record in filter(records.is_full_mnist, own):
        seeds = found.get(record["model"], {})
        found[record["model"]] = {record["seed"]: record} | (seeds if same_network(record, seeds) else {})
    return {network.name: found[network.name] for network in catalogue.challenges() if network.name in found}


def scoreboard(*own: dict, notebook: str | None = None) -> Table:
    """The challenges (those of one ``notebook``, if given): size and length of each network, means over seeds of its
    last epoch's accuracies with the half-width of the 95 % interval, and the range that holds the test accuracy of a
    run under a new seed with 95 % probability, in percent."""
    rows, recorded = [], entries(*own)
    for network in catalogue.challenges():
        seeds = recorded.get(network.name)
        if not seeds or notebook not in (None, network.notebook, Path(network.notebook).name):
            continue
        first, test, val = next(iter(seeds.values())), over_seeds(seeds), over_seeds(seeds, "val_accuracy")
        low, high = test.new_run()
        published = published_figure(first)[0]
        rows.append([network.name + _mark({seed: record for seed, record in seeds.items() if record not in own}),
                     f"{first['parameters']:,}", str(first["epochs"]), "" if val is None else f"{100 * val.mean:.2f}",
                     f"{plus_minus(test)} (n = {test.n})", f"[{100 * low:.2f}, {100 * high:.2f}]" if test.n > 1 else "",
                     f"{100 * published:.2f}" if published else ""])
    return Table(["network", "weights", "epochs", "validation", "test", "a new run", "published"], rows, _note(rows))


def trials_file() -> Path:
    return data.project_root() / "results" / "trials.jsonl"


def trials(challenge: str, spread: bool = False) -> Table:
    """The trials of a challenge (``benchmarks/search.py`` makes them), in the order they were made: what each was to
    find out, the network, what its recipe changed, and means over its seeds on the *validation* split.

    With ``spread``, the training loss of the last epoch as well, and of several seeds the smallest and the largest."""
    groups: dict[tuple, list] = {}
    for trial in read_records(trials_file(), {"challenge", "given", "why", "val_accuracy"}):
        if trial["challenge"] == challenge:
            groups.setdefault((trial["why"], json.dumps(trial["given"])), []).append(trial)
    rows = [_trial_row(why, json.loads(given), group, spread) for (why, given), group in groups.items()]
    return Table(["question", "network", "recipe", "parameters", "epochs", "seeds", "validation",
                  *(["training loss"] if spread else []), "seconds"], rows)


def _trial_row(why, given, group, spread):
    config, finished = group[0]["config"], [trial for trial in group if "diverged" not in trial]
    accuracies, losses = ([trial[name] for trial in finished] for name in ("val_accuracy", "train_loss"))
    if not finished:
        measured = [""] * (1 + spread)
    elif spread:
        measured = [_range(accuracies, percent), _range(losses, "{:.4f}".format)]
    else:
        measured = [percent(fmean(accuracies))]
    if len(finished) < len(group):
        measured[0] = f"{measured[0]} ({len(group) - len(finished)} diverged)".lstrip()
    recipe = ", ".join(f"{name} {value}" for name, value in given.items() if name != "net")
    return [why, f"`{config['net']}`", recipe, f"{group[0]['parameters']:,}", str(config["epochs"]), str(len(group)),
            *measured, f"{fmean(trial['seconds'] for trial in group):.0f}"]


def _range(values: Iterable[float], written) -> str:
    """Their mean and, if there are several, the smallest and the largest."""
    ends = f" [{written(min(values))}, {written(max(values))}]" if len(values) > 1 else ""
    return written(fmean(values)) + ends
