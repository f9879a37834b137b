"""Run records, one JSON line each in ``results/runs.jsonl``, and the tables made of them."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from .data import project_root
from .stats import newcombe_interval, wilson_interval

MARKERS = "<!-- results:start -->", "<!-- results:end -->"

# What the exercises this course rebuilds published, and the images they measured it on.
AUGMENTED = "its augmented training images"
PUBLISHED = {
    "01_baseline.ipynb": (0.821, f"{AUGMENTED}, at batch size 512; 97.02 % at 64"),
    "02_fewer_parameters.ipynb": (0.9835, AUGMENTED),
    "03_twenty_epochs.ipynb": (0.9946, AUGMENTED),
    "04_batch_norm.ipynb": (0.9958, AUGMENTED),
    "05_under_20k.ipynb": (0.9955, AUGMENTED),
    "06_dropout_before_the_classifier.ipynb": (0.992, AUGMENTED),
    "07_dropout_everywhere.ipynb": (0.9864, AUGMENTED),
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
    command line collects the runs it starts by setting ``MNIST_RUN_RECORD`` to a file of its own.
    """
    run = {
        "notebook": notebook,
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "epochs": len(history["seconds"]),
        "profile": dataset.profile,
        "dataset": dataset.name,
        "train_images": len(dataset.train),
        "val_accuracy": round(history["val_accuracy"][-1], 6),
        "test_accuracy": round(test.accuracy, 6),
        "test_correct": test.correct,
        "test_total": test.total,
        "seconds": round(sum(history["seconds"]), 1),
        "device": history["device"],
        "threads": history["threads"],
        "versions": {"python": platform.python_version(),
                     **{name: version(name) for name in ("torch", "torchvision", "mnist-helpers")}},
        **more,
        "val_curve": [round(accuracy, 6) for accuracy in history["val_accuracy"]],
        "mistakes": {image: predicted for image, (predicted, label)
                     in enumerate(zip(test.logits.argmax(1).tolist(), dataset.test.labels.tolist(), strict=True))
                     if predicted != label},
    }
    collector = os.environ.get("MNIST_RUN_RECORD")
    if collector:
        append(run, Path(collector))
    elif dataset.profile == "full" and not history["interrupted"]:
        append(run)
    return run


def append(run, path=None):
    """Add a run as one line, written in one piece so that two kernels do not mix theirs."""
    path = path or runs_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(run) + "\n")


def read(path=None):
    """The recorded runs, oldest first; none if there is no file. Raises `ValueError` naming a line that is no run."""
    path = path or runs_file()
    runs = []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                run = json.loads(line)
                missing = KEYS - set(run)
            except (json.JSONDecodeError, TypeError) as error:
                raise ValueError(f"{path}, line {number} is no run record: {error}. Mend or delete it.") from error
            if missing:
                raise ValueError(f"{path}, line {number} lacks {', '.join(sorted(missing))}. Mend or delete it.")
            runs.append(run)
    return runs


def latest(runs, reference=False):
    """The last full run on MNIST of each notebook, by notebook; with ``reference`` only runs kept for the course."""
    return {run["notebook"]: run for run in sorted(runs, key=lambda run: run["notebook"])
            if run["profile"] == "full" and run["dataset"] == "mnist" and (run.get("reference") or not reference)}


class Table:
    """Rows under a header, showing itself as Markdown in a notebook and aligned on a terminal."""

    def __init__(self, header, rows):
        self.header, self.rows = header, rows

    def _repr_markdown_(self):
        alignment = ["---"] + ["--:"] * (len(self.header) - 1)
        return "\n".join("| " + " | ".join(row) + " |" for row in (self.header, alignment, *self.rows))

    def __str__(self):
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                      zip(row[1:], widths[1:], strict=True))]).rstrip()
                 for row in (self.header, *self.rows)]
        return "\n".join([lines[0], "-" * sum(widths, 2 * (len(widths) - 1)), *lines[1:]])

    __repr__ = __str__


def percent(accuracy):
    return "" if accuracy is None else f"{100 * accuracy:.2f} %"


def table(runs):
    """A `Table` of runs: size, length, accuracies, what was published, and the seconds of training.

    "as published" is this run measured the way the published figure was, where the lesson does so: on augmented
    training images. Runs of the quick profile or on the digits sample say so, and stand beside no published figure.
    """
    header = ["iteration", "parameters", "epochs", "validation", "test [95 % interval]", "measured as published",
              "published", "on", "seconds"]
    rows = []
    for run in runs:
        published, images = published_figure(run)
        rows.append([
            label(run),
            f"{run['parameters']:,}",
            str(run["epochs"]),
            percent(run["val_accuracy"]),
            with_interval(run),
            percent(run.get("augmented_train_accuracy")),
            percent(published),
            images,
            f"{run['seconds']:.0f}",
        ])
    return Table(header, rows)


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
    comparable = run["dataset"] == "mnist" and run["profile"] == "full"
    return PUBLISHED.get(run["notebook"], (None, "")) if comparable else (None, "")


def label(run):
    """A run's notebook, and what keeps the run from being compared with full runs on MNIST."""
    notes = ["digits sample, not MNIST"] * (run["dataset"] != "mnist") + ["quick"] * (run["profile"] != "full")
    return Path(run["notebook"]).stem + (f" ({', '.join(notes)})" if notes else "")


def with_interval(run):
    """The test accuracy with its Wilson interval, in percent."""
    low, high = wilson_interval(run["test_correct"], run["test_total"])
    return f"{percent(run['test_accuracy'])} [{100 * low:.2f}, {100 * high:.2f}]"


def runs_so_far(run):
    """The iterations up to this run's: the last full run of each before it, and this run itself.

    On the digits sample it stands alone, since nothing measured there compares with MNIST.
    """
    before = latest(read()) if run["dataset"] == "mnist" else {}
    return [other for name, other in before.items() if name < run["notebook"] and name in PUBLISHED] + [run]


def table_so_far(run):
    """The `table` of `runs_so_far`."""
    return table(runs_so_far(run))


def compare(run, notebook):
    """What this run's test accuracy says beside the last full run of ``notebook``: a sentence, with the 95 % interval
    of the difference (`newcombe_interval`).

    One run a side can at best say that a difference is too large to be chance in the choice of test images; how much
    the seeds differ takes several runs.
    """
    other = latest(read()).get(notebook)
    if run["dataset"] != "mnist" or run["profile"] != "full" or other is None:
        return f"Nothing to compare: it takes full runs on MNIST, of this notebook and of {notebook}."
    low, high = newcombe_interval(run["test_correct"], run["test_total"], other["test_correct"], other["test_total"])
    difference = run["test_accuracy"] - other["test_accuracy"]
    verdict = ("No difference can be told from one run a side: the interval contains 0." if low <= 0 <= high else
               "More than chance in the test images explains; whether seeds explain it takes more runs.")
    return (f"test accuracy {percent(run['test_accuracy'])} against {percent(other['test_accuracy'])} in "
            f"{Path(notebook).stem}:\n{100 * difference:+.2f} points, 95 % interval {100 * low:+.2f} to "
            f"{100 * high:+.2f}. {verdict}")


def readme_table(readme, runs):
    """The README's text with the table of the course's own runs between its two markers.

    Raises `ValueError` if a marker is missing.
    """
    start, end = (readme.find(marker) for marker in MARKERS)
    if not 0 <= start < end:
        raise ValueError(f"the README needs the lines {MARKERS[0]} and {MARKERS[1]}, in this order")
    content = table(latest(runs, reference=True).values())._repr_markdown_()
    return readme[: start + len(MARKERS[0])] + "\n" + content + "\n" + readme[end:]
