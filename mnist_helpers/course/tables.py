"""The tables made of the records: narrow ones in the lessons, the scoreboard of the challenges, and the trials."""

import itertools
import json
from pathlib import Path
from statistics import fmean

from .. import data, files
from ..stats import (
    Mean,
    log_odds,
    mcnemar,
    mean_over_seeds,
    mid_p,
    new_run,
    newcombe_paired_interval,
    paired_difference,
    pooled_spread,
    wilson_interval,
)
from . import catalogue, records, stamps
from .table import Code, Table

MARK = "†"
MARKED = f"{MARK} Not verified with the code as it stands now; python -m mnist_helpers verify compares."
GOAL = 0.994  # test accuracy: what most challenges ask for
MEANS = ("Accuracies in percent. Test: the mean over n seeds ± half the width of its 95 % interval, which covers "
         "chance in the seeds and in the test images")
SAME = "Same measure: ours, measured as the published figure was, on augmented training images."
GAIN = "Gain: the mean difference from the lesson before, seed by seed, with its 95 % interval."
NEW = "New run: a run under another seed falls in this range on these test images, with 95 % probability."
DIGITS = "Accuracies in percent, on the digits sample: they do not compare with those on MNIST."
UNDECIDED = "One run a side cannot tell what other seeds would give."
UNVERIFIED = "The records behind this are not verified with the code as it stands now."

# ---------------------------------------------------------------- words


def percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{points(accuracy)} %"


def points(accuracy):
    return "" if accuracy is None else f"{100 * accuracy:.2f}"


def with_interval(record: dict) -> str:
    """The test accuracy with its Wilson interval, in percent: of one run, for chance in the images only."""
    low, high = wilson_interval(record["test_correct"], record["test_total"])
    return f"{percent(record['test_accuracy'])} [{points(low)}, {points(high)}]"


def signed(value: float) -> str:
    """A number of points with its sign, and a third decimal where two would say 0.00."""
    return f"{value:+.{2 if abs(value) >= 0.005 else 3}f}"


def plus_minus(mean, sign=""):
    """A mean and half the width of its interval, in points; of a single value, the value."""
    half = f" ± {points(mean.half)}" if mean.n > 1 else ""
    return (signed(100 * mean.mean) if sign else points(mean.mean)) + half


def _kinds(record):
    """What keeps a record from being compared with full runs on MNIST."""
    return ["digits"] * (record["dataset"] != "mnist") + ["quick"] * (record["profile"] != "full")


def published_figure(record: dict) -> tuple[float | None, str]:
    """``(accuracy, images)`` as published for a record's network; ``(None, "")`` if nothing comparable was."""
    network = catalogue.network(record["model"])
    if network is None or not network.published or not records.is_full_mnist(record):
        return None, ""
    return network.published["accuracy"], network.published["images"]


def _marked(network, seeds):
    """What tables call a network; with a mark where one of its records ``{seed: record}`` is stale."""
    return network.label + mark(seeds)


def mark(seeds: dict[int, dict]) -> str:
    """`MARK` where one of these records is stale, else nothing."""
    return MARK * any(stamps.stale(record) is not None for record in seeds.values())


def _note(rows, *sentences):
    """Sentences as a note, with the mark's meaning if one of the rows has it."""
    marked = any(MARK in row[0] for row in rows if isinstance(row, list))
    return " ".join(filter(None, [*sentences, MARKED * marked]))


def _how_published(networks):
    """On which images the published accuracies of networks were measured, and how, in a sentence."""
    told = {}
    for network in networks:
        if network.published:
            how = ", ".join(network.published[key] for key in ("images", "note") if key in network.published)
            told[how] = ", ".join(filter(None, [told.get(how), network.label]))
    return f"Published: {'; '.join(f'{how} ({names})' for how, names in told.items())}." if told else ""


# ---------------------------------------------------------------- one run


def measures(record: dict) -> Table:
    """One network's accuracies: as published, measured the same way, and on images that were not trained on."""
    published, images = published_figure(record)
    rows = [["published", percent(published), images]] if published else []
    if record.get("augmented_train_accuracy") is not None:
        rows.append(["same measure", percent(record["augmented_train_accuracy"]),
                     f"{record['train_images']:,} training images, augmented"])
    if record["val_accuracy"] is not None:
        rows.append(["validation", percent(record["val_accuracy"]), "held out: choices are made on them"])
    rows.append(["test [95 % interval]", with_interval(record), f"{record['test_total']:,} test images, seen once"])
    return Table(["measure", "accuracy", "images"], rows)


def compare(record: dict, other_network_name: str) -> str:
    """What this run's test accuracy says beside another network's, in sentences: first of two runs on the same images,
    this one and the course's record of the other, of the same seed if there is one; then of all seeds of both.

    Raises `ValueError` for a name that is not in the catalogue.
    """
    network, other = catalogue.network(record["model"]), catalogue.network(other_network_name)
    if other is None:
        names = ", ".join(each.name for each in catalogue.networks())
        raise ValueError(f"the catalogue has no network {other_network_name!r}; it has {names}")
    seeds = records.by_seed()
    others = seeds.get(other.name, {})
    own = seeds.get(record["model"], {}) if records.matches(record, network) else {}
    if not records.is_full_mnist(record) or not others:
        return f"Nothing to compare: it takes a full run on MNIST here, and a record of {other.name}."
    theirs = records.all_seeds()[other.name].get(record["seed"]) or next(iter(others.values()))
    low, high = newcombe_paired_interval(record["mistakes"], theirs["mistakes"], record["test_total"])
    only_ours, only_theirs, p = mcnemar(record["mistakes"], theirs["mistakes"])
    difference = record["test_accuracy"] - theirs["test_accuracy"]
    said = [f"This run against {other.name} (seed {theirs['seed']}): test accuracy "
            f"{percent(record['test_accuracy'])} against {percent(theirs['test_accuracy'])},",
            f"  a difference of {100 * difference:+.2f} points on the same images, 95 % interval {100 * low:+.2f} to "
            f"{100 * high:+.2f}.",
            f"  {only_ours} images only this run gets wrong, {only_theirs} only the other.",
            f"  McNemar's test: exact p {_p(p)}, mid-p {_p(mid_p(only_ours, only_theirs))}."]
    over = difference_over_seeds(network.name, other.name) if own else None
    said.append(UNDECIDED if over is None else
                f"Over {over.n} seeds a side: mean difference {signed(100 * over.mean)} points, 95 % interval "
                f"{signed(100 * over.low)} to {signed(100 * over.high)}: {over.verdict}.")
    if any(stamps.stale(each) for each in [*own.values(), *others.values()]):
        said.append(UNVERIFIED)
    return "\n".join(said)


def _p(value):
    return f"= {value:.2f}" if value >= 0.005 else "< 0.01"


# ---------------------------------------------------------------- the lessons


def difference_over_seeds(a: dict | str, b: dict | str) -> Mean | None:
    """`records.over_all`: the difference of the test accuracies of two networks, both by name or both as
    ``{seed: record}``, over the seeds that both have; None under two."""
    found = records.over_all(*(records.together(a, b) if isinstance(a, str) and isinstance(b, str) else (a, b)))
    return found if found and found.n > 1 else None


def means() -> dict[str, tuple[Mean, Mean | None]]:
    """``{network: (test, same measure)}`` of the lessons, over the seeds of the course's own records. Other test images
    count in the intervals of the first, and of the second only other seeds."""
    seeds = records.by_seed()
    return {network.name: (_over(seeds[network.name], "test_accuracy"),
                           _over(seeds[network.name], "augmented_train_accuracy"))
            for network in catalogue.lessons() if network.name in seeds}


def _over(seeds, key):
    """The `Mean` of a value of ``{seed: record}``; None where a record lacks it. Of test accuracies `records.over_all`,
    for of the others the records do not know which images were read."""
    if key == "test_accuracy":
        return records.over_all(seeds)
    values = [record.get(key) for record in seeds.values()]
    return mean_over_seeds(values) if values and None not in values else None


def lessons_table(narrow: bool = False) -> Table:
    """The lessons by the course's own records. With ``narrow`` it fits a terminal: a gain has half the width of its
    interval instead of both ends."""
    return _lessons(catalogue.lessons(), narrow)


def _lessons(networks, narrow, *more):
    seeds, rows, before = records.by_seed(), [], {}
    for network in networks:
        own = seeds.get(network.name, {})
        test, same = _over(own, "test_accuracy"), _over(own, "augmented_train_accuracy")
        step, gain = difference_over_seeds(own, before), ""
        if step:
            gain = plus_minus(step, "+") if narrow else (
                f"{signed(100 * step.mean)} [{signed(100 * step.low)}, {signed(100 * step.high)}]")
        rows.append([_marked(network, own), f"{network.parameters:,}", str(network.epochs),
                     points(network.published and network.published["accuracy"]), points(same and same.mean),
                     plus_minus(test) if test else "", gain])
        before = own
    counts = [len(seeds[network.name]) for network in networks if network.name in seeds] or [0]
    n = " to ".join(dict.fromkeys([str(min(counts)), str(max(counts))]))
    note = _note(rows, f"{MEANS}; n = {n}.", SAME, GAIN * any(row[-1] for row in rows)) if rows else DIGITS
    return Table(["lesson", "parameters", "epochs", "published", "same measure", "test", "gain"], [*rows, *more], note)


def _up_to(record):
    """The lessons up to a record's: all after a challenge, and none on digits, where nothing compares with MNIST."""
    network = catalogue.network(record["model"])
    last = network.lesson if network and network.lesson else len(catalogue.lessons())
    return [each for each in catalogue.lessons() if record["dataset"] == "mnist" and each.lesson <= last]


def _this_run(record):
    """The first cells of a row of a record of now."""
    return [", ".join(["this run", *_kinds(record)]), f"{record['parameters']:,}", str(record["epochs"])]


def table_so_far(record: dict) -> Table:
    """The lessons up to this record's, by the course's own records, and this run below them."""
    return _lessons(_up_to(record), True, [*_this_run(record), "", points(record.get("augmented_train_accuracy")),
                                           points(record["test_accuracy"]), ""])


# ---------------------------------------------------------------- the challenges


def entries(*now: dict) -> dict[str, dict[int, dict]]:
    """``{network: {seed: record}}``: the course's own records of each network of a challenge, in the catalogue's order.

    A full record of ``now`` fills in, for whoever calls this, a seed of which the course has none; those of
    networks of your `own` follow, as ``"yours: MyNetwork"``.
    """
    seeds = records.all_seeds()
    for record in now:
        if records.matches(record, catalogue.network(record["model"])):
            seeds.setdefault(record["model"], {}).setdefault(record["seed"], record)
    ours = {network.name: runs for network in catalogue.challenges()
            if (runs := records.shown(network, seeds.get(network.name, {})))}
    return ours | yours(*(record for record in now if records.is_full_mnist(record)))


def own(record: dict) -> bool:
    """Whether a record's network is not in the catalogue, or not as it is there: edited in a notebook."""
    network = catalogue.network(record["model"])
    return network is None or network.parameters != record["parameters"]


def yours(*now: dict) -> dict[str, dict[int, dict]]:
    """``{"yours: MyNetwork": {seed: record}}`` of those records whose networks are `own`."""
    found = {}
    for record in now:
        if own(record):
            found.setdefault(", ".join([f"yours: {record['model']}", *_kinds(record)]), {})[record["seed"]] = record
    return found


def scoreboard(*now: dict, notebook: str | None = None) -> Table:
    """The networks of the challenges (of one ``notebook``, such as ``"one_epoch"``, if given), by the course's own
    records; each is followed by its records of ``now``. Those of networks of your own come last."""
    rows, shown, seeds = [], [], records.by_seed()
    spread = pooled(seeds)
    for network in catalogue.challenges():
        recorded = seeds.get(network.name, {})
        runs = [each for each in now if each["model"] == network.name and not own(each)]
        if (not recorded and not runs) or (notebook and Path(notebook).stem != Path(network.notebook).name):
            continue
        if not shown or shown[-1].challenge != network.challenge:
            rows.append(network.challenge)
        shown.append(network)
        if recorded:
            rows.append([_marked(network, recorded), f"{network.parameters:,}", str(network.epochs),
                         *_over_seeds(recorded, spread), points(network.published and network.published["accuracy"])])
        rows += [[*_this_run(each), points(each["val_accuracy"]), points(each["test_accuracy"]), "", ""]
                 for each in runs]
    if theirs := yours(*now):
        rows += ["yours"] + [[name.removeprefix("yours: "), f"{first['parameters']:,}", str(first["epochs"]),
                              *_over_seeds(runs, spread), ""]
                             for name, runs in theirs.items() for first in [next(iter(runs.values()))]]
    return Table(["network", "parameters", "epochs", "validation", "test (n)", "new run", "published"], rows,
                 _note(rows, f"{MEANS}.", NEW, _how_published(shown), _over_budget(shown),
                       _on_all_images(shown, seeds)))


def published_log(name: str) -> Table:
    """The epochs whose published accuracy is outside of the validation accuracies of our runs of a network."""
    log = catalogue.network(name).published["log"]
    runs = [run["val_curve"] for run in records.by_seed()[name].values()]
    rows, falls = [], sum(after < before for before, after in itertools.pairwise(log))
    for epoch, (value, ours) in enumerate(zip(log, zip(*runs, strict=True), strict=True), start=1):
        if not min(ours) <= value <= max(ours):
            rows.append([str(epoch), percent(value), f"{points(min(ours))} to {percent(max(ours))}"])
    expected = f"{2 * len(log) / (len(runs) + 1):.1f}"
    return Table(["epoch", "published", f"ours, {len(runs)} runs"], rows,
                 f"{len(rows)} of {len(log)} epochs are outside. A run of the same recipe would be the lowest or the "
                 f"highest of {len(runs) + 1} in {expected} of them. The published accuracy falls {falls} "
                 f"time{'s' * (falls != 1)}.")


def _over_budget(networks):
    """Which networks have more parameters than their exercise allows."""
    over = [f"{each.name} ({each.size})" for each in networks if each.over_budget]
    return f"Over its budget: {', '.join(over)}." if over else ""


def _on_all_images(networks, seeds):
    """Which networks have no validation accuracy, and why."""
    names = [each.name for each in networks if each.name in seeds
             and all(run["val_accuracy"] is None for run in seeds[each.name].values())]
    return f"No validation accuracy, since trained on all 60,000 images: {', '.join(names)}." if names else ""


def _over_seeds(runs, spread):
    """Validation, test and new run of ``{seed: record}``. Networks that were trained on the validation images too have
    no validation accuracy."""
    test, val = _over(runs, "test_accuracy"), _over(runs, "val_accuracy")
    return [points(val and val.mean), f"{plus_minus(test)} ({test.n})",
            "–".join(map(points, range_of_a_new_run(runs, spread))) if test.n > 1 else ""]


def pooled(seeds: dict[str, dict[int, dict]] | None = None) -> tuple[float, int, list[str]] | None:
    """`pooled_spread` of the log-odds of the test accuracies of all networks ``{name: {seed: record}}``, by default the
    course's own records; None where there is nothing to pool."""
    seeds = records.by_seed() if seeds is None else seeds
    try:
        return pooled_spread({name: [log_odds(run["test_correct"], run["test_total"]) for run in runs.values()]
                              for name, runs in seeds.items()})
    except ValueError:
        return None


def range_of_a_new_run(runs: dict[int, dict], spread=None) -> tuple[float, float]:
    """`new_run` of a network's ``{seed: record}``, with the spread of `pooled` if this network is one of those that
    have it in common."""
    one = next(iter(runs.values()))
    common = spread[:2] if spread and one["model"] in spread[2] else None
    return new_run([run["test_correct"] for run in runs.values()], one["test_total"], common)


def trials_file() -> Path:
    return data.project_root() / "results" / "trials.jsonl"


LAYERS = ("A network is a line of layers. c3s2-20: a convolution of 3x3 and stride 2 to 20 channels, with batch norm "
          "and activation; v without padding; d depthwise; l without norm. P: pooling; c3-16P: before the norm. "
          "flat or gap: flattened, or averaged over positions. D.1: dropout 0.1. =: the convolution before, once more. "
          "+: its input added. S: straightened images.")


def trials(challenge: str, *questions: str, spread: bool = False, paired: bool = False) -> Table:
    """The trials of a challenge (``benchmarks/search.py`` makes them), in the order they were made: what each was to
    find out, the network, what its recipe changed, and means over its seeds on the *validation* split.

    With ``questions``, only the trials that were made to answer these, in this order, without networks and recipes.
    With ``spread``, the training loss of the last epoch as well, and of several seeds the smallest and the largest.
    With ``paired``, each mean with its interval over seeds, and its difference to the first question's, seed by seed.
    Raises `ValueError` for a question that no trial asks, and for pairs whose seeds are not the same.
    """
    groups = {}
    for trial in files.read_records(trials_file(), {"challenge", "given", "why", "val_accuracy"}):
        if trial["challenge"] == challenge:
            groups.setdefault((trial["why"], json.dumps(trial["given"], sort_keys=True)), []).append(trial)
    rows = []
    for (why, _), group in groups.items():
        recipe = ", ".join(f"{name} {value}" for name, value in group[0]["given"].items() if name != "net")
        finished = [trial for trial in group if "diverged" not in trial]
        measured = [_spread([trial["val_accuracy"] for trial in finished], percent, spread)]
        if spread:
            measured.append(_spread([trial["train_loss"] for trial in finished], "{:.4f}".format, spread))
        if len(finished) < len(group):
            measured[0] = f"{measured[0]} ({len(group) - len(finished)} diverged)".lstrip()
        rows.append([why, Code(group[0]["config"]["net"]), recipe, f"{group[0]['parameters']:,}",
                     str(group[0]["config"]["epochs"]), str(len(group)), *measured])
    table = Table(["question", "network", "recipe", "parameters", "epochs", "seeds", "validation",
                   *(["training loss"] if spread else [])], rows, LAYERS)
    if unknown := set(questions) - {why for why, *_ in rows}:
        raise ValueError(f"no trial of {challenge!r} asks {', '.join(map(repr, sorted(unknown)))}")
    if paired:
        accuracies = {why: {trial["seed"]: trial["val_accuracy"] for trial in group}
                      for (why, _), group in groups.items()}
        return _against_the_first({question: accuracies[question] for question in questions or accuracies})
    if questions:
        chosen = sorted((row for row in rows if row[0] in questions), key=lambda row: questions.index(row[0]))
        table = Table([table.header[0], *table.header[3:]], [[row[0], *row[3:]] for row in chosen])
    return table


def _against_the_first(by_question):
    first, reference = next(iter(by_question.items()))
    rows = []
    for question, accuracies in by_question.items():
        if set(accuracies) != set(reference):
            raise ValueError(f"{question!r} and {first!r} were not tried under the same seeds")
        difference = paired_difference([accuracies[seed] for seed in reference], list(reference.values()))
        rows.append([question, str(len(accuracies)), plus_minus(mean_over_seeds(list(accuracies.values()))),
                     "" if question == first else plus_minus(difference, sign=True)])
    return Table(["question", "seeds", "validation", "against the first"], rows,
                 "Accuracies on the validation images, in percent: means ± half the width of their 95 % intervals over "
                 "seeds. Differences in points, paired seed by seed.")


def _spread(values, written, ends):
    """Their mean and, with ``ends`` and several, the smallest and the largest; nothing of none."""
    if not values:
        return ""
    return written(fmean(values)) + f" [{written(min(values))}, {written(max(values))}]" * (ends and len(values) > 1)
