"""Run records, one JSON line each in ``results/runs.jsonl``, and the tables made of them."""

import hashlib
import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

from .data import project_root
from .stats import mcnemar, mean_over_seeds, newcombe_interval, paired_difference, wilson_interval

MARKERS = "<!-- results:start -->", "<!-- results:end -->"
WEIGHTS = "weights.safetensors"  # what the network of a lesson learnt, beside the record of its run

# What the exercises this course rebuilds published, and the images they measured it on.
TRAINING = "training images"
PUBLISHED = {
    "01_baseline.ipynb": (0.821, f"{TRAINING}, batches of 512 (97.02 % at 64)"),
    "02_fewer_parameters.ipynb": (0.9835, TRAINING),
    "03_twenty_epochs.ipynb": (0.9946, TRAINING),
    "04_batch_norm.ipynb": (0.9958, TRAINING),
    "05_under_20k.ipynb": (0.9955, TRAINING),
    "06_dropout_before_the_classifier.ipynb": (0.992, TRAINING),
    "07_dropout_everywhere.ipynb": (0.9864, TRAINING),
}

KEYS = {"notebook", "model", "parameters", "seed", "epochs", "profile", "dataset", "train_images", "val_accuracy",
        "test_accuracy", "test_correct", "test_total", "seconds", "device", "threads", "versions"}


def runs_file():
    """Where full runs are recorded: ``results/runs.jsonl`` in the project."""
    return project_root() / "results" / "runs.jsonl"


def record(notebook, dataset, model, history, test, seed, **more):
    """Record a run and return it: a dict of what was trained on what, how, and what came out.

    ``notebook`` is its path below ``notebooks/``, ``dataset`` what `load_mnist` returned, ``history`` what `fit` did
    and ``test`` the `Evaluation` on the test images. ``mistakes`` keeps each wrong prediction by the number of its
    image, so that two runs can be compared image by image. A run of the full profile is appended to `runs_file`; the
    command line collects the runs it starts, and the weights of a lesson's network, by setting ``MNIST_RUN_RECORD`` to
    a file of its own.
    """
    if not history["seconds"]:
        raise ValueError("no epoch was completed, so there is nothing to record: train again")
    run = {
        "notebook": notebook,
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "epochs": len(history["seconds"]),
        "profile": dataset.profile,
        "dataset": dataset.name,
        "train_images": history["images"],
        # None of a network that was trained on the validation images too.
        "val_accuracy": round(history["val_accuracy"][-1], 6) if history["val_accuracy"] else None,
        "test_accuracy": round(test.accuracy, 6),
        "test_correct": test.correct,
        "test_total": test.total,
        "seconds": round(sum(history["seconds"]), 1),
        "device": history["device"],
        "precision": history["precision"],
        "threads": history["threads"],
        "versions": {"python": platform.python_version(), "torch": version("torch"),
                     "torchvision": version("torchvision")},
        **more,
        "val_curve": [round(accuracy, 6) for accuracy in history["val_accuracy"]],
        "mistakes": {image: predicted for image, (predicted, label)
                     in enumerate(zip(test.logits.argmax(1).tolist(), dataset.test.labels.tolist(), strict=True))
                     if predicted != label},
    }
    collector = os.environ.get("MNIST_RUN_RECORD")
    if collector:
        append(run, Path(collector))
        if notebook in PUBLISHED:
            from safetensors.torch import save_file  # only lessons need it

            save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()},
                      Path(collector).with_name(WEIGHTS))
    elif dataset.profile == "full" and not history["interrupted"]:
        append(run)
    return run


def append(run, path=None):
    """Add a run as one line, written in one piece so that two kernels do not mix theirs."""
    path = path or runs_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        # A line torn by a crash or a full disk is lost; this one must not be lost with it.
        torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
        file.write(b"\n" * torn + json.dumps(run).encode() + b"\n")


def figure_file():
    """The README's figure of all iterations."""
    return project_root() / "results" / "accuracies.png"


def digest(means):
    """A checksum of what the figure shows, kept inside it, so that a test sees when it is out of date."""
    shown = {notebook: [f"{value:.6f}" for mean in pair for value in (mean.mean, mean.low, mean.high)]
             for notebook, pair in means.items()}  # not every digit: those depend on the version of scipy
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def read(path=None):
    """The recorded runs, oldest first; none if there is no file. Raises `ValueError` naming a line that is no run."""
    return read_lines(path or runs_file(), KEYS)


def read_lines(path, keys):
    """The records of a file of one JSON object a line; none if there is no file. Raises `ValueError` naming a line
    that is no record or lacks one of ``keys``."""
    records = []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                record = json.loads(line)
                missing = keys - set(record)
            except (json.JSONDecodeError, TypeError) as error:
                raise ValueError(f"{path}, line {number} is no record: {error}. Mend or delete it.") from error
            if missing:
                raise ValueError(f"{path}, line {number} lacks {', '.join(sorted(missing))}. Mend or delete it.")
            records.append(record)
    return records


def is_full_mnist(run):
    """Whether a run is of the full profile on MNIST: only those compare with each other and with what was published."""
    return run["profile"] == "full" and run["dataset"] == "mnist"


def entry(run):
    """What a run is compared as: its notebook; in a challenge, where several networks compete, ``notebook: model``."""
    return run["notebook"] if run["notebook"] in PUBLISHED else f"{run['notebook']}: {run['model']}"


def by_seed(runs, reference=False):
    """``{entry: {seed: run}}`` of the full runs on MNIST; with ``reference`` only those kept for the course.

    The last run of each `entry` decides what counts: earlier ones of the same seed, and of other code, do not.
    """
    full = [run for run in runs if is_full_mnist(run) and (run.get("reference") or not reference)]
    code = {entry(run): run.get("code") for run in full}
    seeds = {name: {} for name in sorted(code)}
    for run in full:
        if run.get("code") == code[entry(run)]:
            seeds[entry(run)].pop(run["seed"], None)
            seeds[entry(run)][run["seed"]] = run
    return seeds


def latest(runs, reference=False, seed=None):
    """The last full run on MNIST of each `entry`, of this ``seed`` where there is one; with ``reference`` only runs
    kept for the course."""
    return {name: seeds.get(seed, list(seeds.values())[-1]) for name, seeds in by_seed(runs, reference).items()}


def lessons(runs, reference=False, seed=None):
    """The `latest` runs of the seven lessons, in order."""
    return [run for name, run in latest(runs, reference, seed).items() if name in PUBLISHED]


class Table:
    """Rows under a header, showing itself as Markdown in a notebook and aligned on a terminal."""

    def __init__(self, header, rows):
        self.header, self.rows = header, rows

    def _repr_markdown_(self):
        alignment = ["---"] + ["--:"] * (len(self.header) - 1)
        text = "\n".join("| " + " | ".join(row) + " |" for row in (self.header, alignment, *self.rows))
        # A narrow page may break a cell between figures, not within one.
        figures = r"\[[^]|]*\]|\([^)|]*\)|[\d.]+ %|[\d.]+ ± [\d.]+|(?:more than|within) noise"
        return re.sub(figures, lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text)

    def __str__(self):
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                      zip(row[1:], widths[1:], strict=True))]).rstrip()
                 for row in (self.header, *self.rows)]
        return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])

    __repr__ = __str__


def percent(accuracy):
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def table(runs, reference=()):
    """A `Table` of runs: size, length, accuracies, what was published, and the seconds of training.

    "measured as published" is this run measured the way the published figure was: on augmented training images. Runs
    of the quick profile or on the digits sample say so, and stand beside no published figure. With the course's
    ``reference`` runs, two columns tell mean and standard deviation of the test accuracy over their seeds, and the
    difference from the iteration before.
    """
    header = ["iteration", "parameters", "epochs", "validation", "test [95 % interval]", "measured as published",
              "published", "published on", "seconds"]
    seeds = by_seed(reference, reference=True)
    if seeds:
        header[5:5] = ["test over seeds", "difference from the one before"]
    rows = []
    for run in runs:
        published, images = published_figure(run)
        row = [
            label(run),
            f"{run['parameters']:,}",
            str(run["epochs"]),
            percent(run["val_accuracy"]),
            with_interval(run),
            percent(run.get("augmented_train_accuracy")),
            percent(published),
            images,
            f"{run['seconds']:.0f}",
        ]
        if seeds:
            row[5:5] = over_seeds(run, seeds)
        rows.append(row)
    return Table(header, rows)


def over_seeds(run, seeds):
    """``[mean, step]`` in words for a run's notebook, given `by_seed`; empty where nothing comparable is recorded."""
    name = entry(run)
    if not is_full_mnist(run) or name not in seeds or not same_network(run, seeds[name]):
        return ["", ""]
    mean = mean_over_seeds([each["test_accuracy"] for each in seeds[name].values()])
    before = max((other for other in seeds if name in PUBLISHED and other < name), default=None)
    step = difference_over_seeds(seeds[name], seeds.get(before, {}))
    if step is None:
        return [str(mean), ""]
    return [str(mean), f"{100 * step.mean:+.2f} [{100 * step.low:+.2f}, {100 * step.high:+.2f}] {step.verdict}"]


def same_network(run, seeds):
    """Whether a run is of the network and the length of the recorded ``{seed: run}``: a changed lesson is not."""
    return all(run[key] == each[key] for each in seeds.values() for key in ("model", "parameters", "epochs"))


def difference_over_seeds(ours, theirs):
    """The `paired_difference` of the test accuracies of ``{seed: run}`` over the seeds both have; None under two."""
    common = sorted(set(ours) & set(theirs))
    if len(common) < 2:
        return None
    return paired_difference(*([runs[seed]["test_accuracy"] for seed in common] for runs in (ours, theirs)))


def measures(run):
    """A `Table` of one network's accuracies: as published, as this run has it measured the same way, and on images
    that were not trained on."""
    published, images = published_figure(run)
    rows = [["published", percent(published), images]] if published else []
    return Table(["measure", "accuracy", "images"], [
        *rows,
        ["this run, measured the same way", percent(run["augmented_train_accuracy"]),
         f"{run['train_images']:,} augmented training images"],
        ["this run, validation", percent(run["val_accuracy"]), "held out, choices are made on them"],
        ["this run, test", with_interval(run), f"{run['test_total']:,} test images, seen once"],
    ])


def published_figure(run):
    """``(accuracy, images)`` as published for a run's notebook; ``(None, "")`` if nothing comparable was."""
    return PUBLISHED.get(run["notebook"], (None, "")) if is_full_mnist(run) else (None, "")


def label(run):
    """A run's notebook, and what keeps the run from being compared with full runs on MNIST."""
    notes = ["digits sample, not MNIST"] * (run["dataset"] != "mnist") + ["quick"] * (run["profile"] != "full")
    name = Path(run["notebook"]).stem + f": {run['model']}" * (run["notebook"] not in PUBLISHED)
    return name + (f" ({', '.join(notes)})" if notes else "")


def with_interval(run):
    """The test accuracy with its Wilson interval, in percent."""
    low, high = wilson_interval(run["test_correct"], run["test_total"])
    return f"{percent(run['test_accuracy'])} [{100 * low:.2f}, {100 * high:.2f}]"


def runs_so_far(run):
    """The iterations up to this run's: of each before it the last full run, with this one's seed where there is one.

    On the digits sample it stands alone, since nothing measured there compares with MNIST.
    """
    before = lessons(read(), seed=run["seed"]) if run["dataset"] == "mnist" else []
    return [other for other in before if other["notebook"] < run["notebook"]] + [run]


def table_so_far(run):
    """The `table` of `runs_so_far`, with the seeds of the course's own runs beside full runs on MNIST."""
    return table(runs_so_far(run), read() if run["dataset"] == "mnist" else ())


def _p(value):
    return f"= {value:.2f}" if value >= 0.005 else "< 0.01"


def compare(run, other_entry):
    """What this run's test accuracy says beside that of another `entry`, such as a lesson's notebook (the last full
    run, of the same seed if there is one), in sentences.

    First the two runs: the 95 % interval of the difference as if each had been tested on images of its own
    (`newcombe_interval`), and the exact test on the images they share (`mcnemar`). Then, if the course's own runs have
    seeds of both, the mean difference over those.
    """
    recorded = read()
    other = latest(recorded, seed=run["seed"]).get(other_entry)
    if not is_full_mnist(run) or other is None:
        return f"Nothing to compare: it takes full runs on MNIST, of this notebook and of {other_entry}."
    name = label(other)
    low, high = newcombe_interval(run["test_correct"], run["test_total"], other["test_correct"], other["test_total"])
    difference = run["test_accuracy"] - other["test_accuracy"]
    said = [f"This run against {name} (seed {other['seed']}): test accuracy {percent(run['test_accuracy'])} against "
            f"{percent(other['test_accuracy'])},",
            f"  a difference of {100 * difference:+.2f} points, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}."]
    if "mistakes" in run and "mistakes" in other:
        # Image numbers are text in a record that was read from a file.
        ours, theirs, p = mcnemar(map(str, run["mistakes"]), map(str, other["mistakes"]))
        said.append(f"  {ours} images only this run gets wrong, {theirs} only the other: exact McNemar p {_p(p)}.")
    seeds = by_seed(recorded, reference=True)
    own = seeds.get(entry(run), {})
    over = difference_over_seeds(own, seeds.get(other_entry, {}))
    if over and same_network(run, own):
        said.append(f"Over {over.n} seeds a side: mean difference {100 * over.mean:+.2f} points, 95 % interval "
                    f"{100 * over.low:+.2f} to {100 * over.high:+.2f}: {over.verdict}.")
    else:
        said.append("What other seeds would say, one run a side cannot tell.")
    return "\n".join(said)


def means(runs):
    """``{notebook: (test, measured as published)}`` over the seeds of the course's own runs, each a `stats.Mean`."""
    return {notebook: tuple(mean_over_seeds([run[key] for run in seeds.values()])
                            for key in ("test_accuracy", "augmented_train_accuracy"))
            for notebook, seeds in by_seed(runs, reference=True).items() if notebook in PUBLISHED}


def between(text, markers, content):
    """``text`` with ``content`` between its two ``markers``; raises `ValueError` without them."""
    start, end = (text.find(marker) for marker in markers)
    if not 0 <= start < end:
        raise ValueError(f"the README needs the lines {markers[0]} and {markers[1]}, in this order")
    return text[: start + len(markers[0])] + "\n" + content + "\n" + text[end:]


def readme_table(readme, runs):
    """The README's text with the table of the course's own runs of the seven lessons between its two markers."""
    return between(readme, MARKERS, table(lessons(runs, reference=True, seed=0), runs)._repr_markdown_())
