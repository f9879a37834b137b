"""What a training came to, one JSON object a line.

The course's own records are in ``results/runs.jsonl`` and are only ever added to. A learner's are in
``results/mine.jsonl``, which git ignores and no table reads.

What needs torch is imported where it is used: the process that runs a notebook reads what the kernel recorded, and
would wait for torch for nothing else.
"""

import functools
import hashlib
import json
import math
import os
import sys
from pathlib import Path

from .. import files
from ..places import project_root
from ..stats import Mean, over_seeds_and_images
from . import catalogue

KEYS = frozenset({
    "id", "notebook", "model", "parameters", "seed", "epochs", "profile", "dataset", "train_images", "val_accuracy",
    "test_accuracy", "test_loss", "test_correct", "test_total", "seconds", "card", "val_curve", "mistakes", "trace"})
CARD = ("device", "instructions", "threads", "precision", "versions", "package")  # what explains a difference
FIRST_FRESH = 100  # no seed from here on helped to choose a recipe: see results/plan.md
TEST_IMAGES = 10_000  # of MNIST
# Of MNIST's test images the first so many were written by high-school students, the others by employees of the Census
# Bureau. Source: the file of writers of C. Yadav and L. Bottou, "Cold Case: The Lost MNIST Digits" (2019).
STUDENTS = 5_001
KINDS = ("students", "employees")  # who wrote the first half of MNIST's test images, and the last
WITHIN = 10  # images of 10,000 by which another processor may count differently


def runs_file() -> Path:
    """The course's own records."""
    return project_root() / "results" / "runs.jsonl"


def mine_file() -> Path:
    """The records of whoever works here."""
    return project_root() / "results" / "mine.jsonl"


def is_full_mnist(record: dict) -> bool:
    """Whether a record is of the full profile on MNIST: only those compare with each other and with published ones."""
    return record["profile"] == "full" and record["dataset"] == "mnist"


# ---------------------------------------------------------------- recording


def record(run, test, as_published=None) -> dict:
    """Record a `Run` with the `Evaluation` of its network on the test images; return the record.

    ``as_published`` is its evaluation on augmented training images, the measure of the published figures.
    A full run on MNIST is added to `mine_file`. The command line collects records in the folder ``MNIST_COLLECT``
    instead and, with ``MNIST_CHECK=1``, has the accuracy compared with the catalogue's floor. Of a replayed run the
    course's record is returned, after a comparison.

    Raises `ValueError` for evaluations that are not of this run's network, or not of the images they should be of.
    """
    from ..checkpoint import TRACE_STEPS

    _refuse_mixed(run, test, as_published)
    network = catalogue.network(run.card["model"])
    accuracies = run.history.get("val_accuracy") or []  # none of a network that was trained on those images too
    made = {
        "id": run.id, "notebook": network.notebook if network else "yours",
        **{key: run.card[key] for key in ("model", "parameters", "seed")},
        "epochs": len(run.history["seconds"]), "profile": _profile(test.split.profile), "dataset": test.split.dataset,
        "train_images": run.card["images"], "val_accuracy": round(accuracies[-1], 6) if accuracies else None,
        "test_accuracy": round(test.accuracy, 6), "test_loss": round(test.loss, 6), "test_correct": test.correct,
        "test_total": test.total,
        **({"augmented_train_accuracy": round(as_published.accuracy, 6)} if as_published else {}),
        "seconds": round(sum(run.history["seconds"]), 1), "card": {key: run.card.get(key) for key in CARD},
        "val_curve": [round(accuracy, 6) for accuracy in accuracies],
        "mistakes": {str(image): predicted for image, (predicted, label) in enumerate(zip(
            test.logits.argmax(1).tolist(), test.labels.tolist(), strict=True)) if predicted != label},
        "trace": list(run.batch_loss[:TRACE_STEPS]),
    }
    check(made)
    if run.replayed:
        made = _as_recorded(made)
    if folder := os.environ.get("MNIST_COLLECT"):
        append(made, Path(folder) / "records.jsonl")
    elif is_full_mnist(made) and not run.replayed:
        try:
            append(made, mine_file())
        except OSError as error:  # the run is there all the same
            print(f"this run is not noted in {mine_file()}: {error.strerror or error}. All else goes on")
    if os.environ.get("MNIST_CHECK") == "1" and network:
        floor = network.floors[f"{made['dataset']} {made['profile']}"]
        assert made["test_accuracy"] > floor, (
            f"{network.name}: test accuracy {made['test_accuracy']:.2%} is not above {floor:.2%}. Something is broken")
    return made


def _profile(name):
    """A training in the recorded profile is a full one; a replayed one was."""
    return "full" if name == "recorded" else name


def _refuse_mixed(run, test, as_published):
    """Raise `ValueError` for what does not belong to one run."""
    if not run.history["seconds"]:
        raise ValueError("no epoch was completed, so there is nothing to record: train again")
    if run.card.get("split") == "test":
        raise ValueError("this run was trained on the test images, which cannot measure it: train on mnist.train")
    _refuse(run, test, "test", {"test"})
    if as_published is not None:
        _refuse(run, as_published, "training", {"train", "train and val"})
    if (test.split.dataset, _profile(test.split.profile)) == ("mnist", "full") and test.total != TEST_IMAGES:
        raise ValueError(f"only {test.total:,} of the {TEST_IMAGES:,} test images were evaluated: pass the whole split")


def _refuse(run, evaluation, wanted, names):
    split, card = evaluation.split, run.card
    if split is None or split.name not in names:
        images = "unknown images" if split is None else f"the images called {split.name!r}"
        raise ValueError(f"the record needs an evaluation of the {wanted} images, and this one is of {images}: pass a "
                         "split of `load_mnist` to mh.evaluate")
    if evaluation.weights != run.weights:
        raise ValueError(f"the evaluation of the {wanted} images is of other weights than this run trained: use "
                         "mh.evaluate(run.model, ...)")
    trained = card.get("dataset"), _profile(card.get("profile"))  # no name where the images were no split
    evaluated = split.dataset, _profile(split.profile)
    if trained[0] and trained != evaluated:
        raise ValueError(f"this run was trained on {' '.join(trained)} and evaluated on {' '.join(evaluated)}: use one "
                         "data set, in one profile, for both")


def _as_recorded(made):
    """The course's record of a replayed run, if this one agrees with it. Raises `ValueError` if it does not."""
    theirs = next((each for each in course_records() if each["id"] == made["id"]), None)
    if theirs is None:
        return made
    for key, total in (("test_accuracy", made["test_total"]), ("augmented_train_accuracy", made["train_images"])):
        if made.get(key) is not None and theirs.get(key) is not None:
            apart = round(total * abs(made[key] - theirs[key]))
            if apart > WITHIN * max(1, total / TEST_IMAGES):
                raise ValueError(f"{made['id']}: {key} is {made[key]:.2%} here and {theirs[key]:.2%} in the record, "
                                 f"{apart} images apart. Another processor accounts for about {WITHIN} of 10,000")
    return theirs


# ---------------------------------------------------------------- values and files


def check(record: dict) -> None:
    """Raise `ValueError`, saying what is wrong, unless the values of a record can be those of a training."""
    problems = [f"{key} is missing" for key in sorted(KEYS - set(record))]
    problems += [f"{key} is unknown" for key in sorted(set(record) - KEYS - {"augmented_train_accuracy"})]
    try:
        problems = problems or list(_impossible(record))
    except (TypeError, ValueError, AttributeError) as error:  # text or a list where a number belongs
        problems = [str(error)]
    if problems:
        raise ValueError(f"this is no record of a run: {'; '.join(problems)}")


def _impossible(record):
    for key in ("parameters", "seed", "epochs", "train_images", "test_correct", "test_total"):
        if type(record[key]) is not int or record[key] < (key in ("epochs", "train_images", "test_total")):
            yield f"{key} is {record[key]}"
    shares = {key: record[key] for key in ("val_accuracy", "augmented_train_accuracy") if record.get(key) is not None}
    shares |= {f"val_curve[{epoch}]": accuracy for epoch, accuracy in enumerate(record["val_curve"])}
    shares["test_accuracy"] = record["test_accuracy"]
    yield from (f"{key} is {value}, not from 0 to 1" for key, value in shares.items() if not _number(value, 0, 1))
    others = [record["seconds"], record["test_loss"] or 0, *(record["trace"] or ())]
    if not all(map(_number, others)):
        yield "seconds, test_loss or trace is not finite"
    yield from (f"{key} is no text" for key in ("id", "notebook", "model", "profile", "dataset")
                if type(record[key]) is not str)
    if type(record["card"]) is not dict:
        yield "card is no table"
    correct, total, mistakes = record["test_correct"], record["test_total"], record["mistakes"]
    if not abs(record["test_accuracy"] * total - correct) < 1e-6 * total:
        yield f"{correct} of {total} images is not a test accuracy of {record['test_accuracy']}"
    if len(mistakes) != total - correct or not all(0 <= int(image) < total for image in mistakes):
        yield f"{len(mistakes)} images are listed as mistakes, and {total - correct} of {total} should be"
    if len(record["val_curve"]) not in (0, record["epochs"]):
        yield f"val_curve has {len(record['val_curve'])} entries for {record['epochs']} epochs"


def _number(value, low=-math.inf, high=math.inf):
    """Whether a value is a finite number from ``low`` to ``high``."""
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def append(record: dict, path: Path) -> None:
    """Add a record as one line with its digest, under a lock. Raises `ValueError` if its values are impossible."""
    record = {key: value for key, value in record.items() if key != "digest"}
    check(record)
    files.append_line(path, json.dumps(record | {"digest": digest(record)}, allow_nan=False))


def digest(record: dict) -> str:
    """Of all that a record says."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> list[dict]:
    """The records of a file, oldest first. Lines that are no record, or not as they were written, are left out and
    named on stderr."""
    good, bad = [], []
    for each in files.read_records(path, KEYS):
        try:
            # Those written before each line had its digest have theirs in a file beside it.
            expected = [each.pop("digest")] if "digest" in each else _digests().get(str(each["id"]))
            if expected and digest(each) not in expected:
                raise ValueError("its digest is another: restore it from git")
            check(each)
            good.append(each)
        except ValueError as error:
            bad.append(f"{each['id']} ({error})")
    if bad:
        print(f"{path.name}: left out {'; '.join(bad)}", file=sys.stderr)
    return good


@functools.cache
def _digests():
    path = runs_file().with_name("runs_digests.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep(record: dict, recipe: str | None = None) -> None:
    """Add a record to the course's own, and stamp it. ``recipe`` is the digest of the recipe that was executed."""
    from . import stamps

    append(record, runs_file())
    stamps.stamp(record["id"], trace="recorded", notebook=record["notebook"], recipe=recipe,
                 package=record["card"]["package"])


def course_records() -> list[dict]:
    """The course's own records, oldest first: see `read`."""
    return read(runs_file())


def matches(record: dict, network: catalogue.Network | None) -> bool:
    """Whether a record is a full run on MNIST of this network of the catalogue, as it is there."""
    return network is not None and is_full_mnist(record) and (network.name, network.parameters, network.epochs) == (
        record["model"], record["parameters"], record["epochs"])


def all_seeds() -> dict[str, dict[int, dict]]:
    """``{network: {seed: record}}`` of the course's own records, networks in the catalogue's order, seeds ascending.

    Records of a network as it is no more, with another number of parameters or epochs, do not count. Of several
    records of a seed the first counts; one that belongs to the code as it stands counts before one that does not. Of
    two of one id the later counts, whose weights are those that are kept.
    """
    from .. import checkpoint
    from .stamps import stale

    found, known = {}, checkpoint.stamps()
    latest = {record["id"]: record for record in course_records()}
    for each in sorted(latest.values(), key=lambda record: stale(record, known) is not None):
        if matches(each, catalogue.network(each["model"])):
            found.setdefault(each["model"], {}).setdefault(each["seed"], each)
    return {network.name: dict(sorted(found[network.name].items()))
            for network in catalogue.networks() if network.name in found}


def by_seed() -> dict[str, dict[int, dict]]:
    """`all_seeds` as tables show them: of each network its fresh seeds (results/plan.md), once all that were planned
    are there; till then the others."""
    return {name: runs for name, every in all_seeds().items() if (runs := shown(catalogue.network(name), every))}


def shown(network: catalogue.Network, runs: dict[int, dict]) -> dict[int, dict]:
    """Of a network's runs by seed those that tables show: see `by_seed`."""
    fresh, before = split(network, runs)
    return fresh or before


def split(network: catalogue.Network, runs: dict[int, dict]) -> tuple[dict[int, dict], dict[int, dict]]:
    """``(fresh, before)`` of a network's runs by seed; the fresh ones only if all that were planned are there."""
    fresh = {seed: run for seed, run in runs.items() if seed >= FIRST_FRESH}
    before = {seed: run for seed, run in runs.items() if seed < FIRST_FRESH}
    return (fresh if len(fresh) >= network.fresh_seeds else {}), before


def together(*names: str) -> list[dict[int, dict]]:
    """The runs of two networks, to be compared seed by seed: as `by_seed` has them or, where these do not share two
    seeds because the fresh ones of only one network are made, all of both."""
    shown_runs, every = by_seed(), all_seeds()
    pair = [shown_runs.get(name, {}) for name in names]
    return pair if share_seeds(*pair) else [every.get(name, {}) for name in names]


def share_seeds(a: dict[int, dict], b: dict[int, dict]) -> bool:
    """Whether two networks can be compared seed by seed: it takes two seeds that both have."""
    return len(a.keys() & b.keys()) > 1


def histories(name: str) -> dict[int, dict]:
    """The histories of a network's runs by seed, of those that are kept for replays: their seeds count from 0."""
    from ..checkpoint import kept_folder, read_kept

    files = {seed: kept_folder() / f"{run['id']}.safetensors" for seed, run in all_seeds().get(name, {}).items()}
    return {seed: read_kept(path)["history"] for seed, path in files.items() if path.is_file()}


# ---------------------------------------------------------------- seeds and images


def outcomes(runs):
    """Array ``(runs, images)``: 1 where the run of a record reads a test image, else 0."""
    import numpy as np

    right = np.ones((len(runs), runs[0]["test_total"]))
    for row, run in zip(right, runs, strict=True):
        row[[int(image) for image in run["mistakes"]]] = 0
    return right


def by_kind(kind: str):
    """Boolean ``(10_000,)``: which of MNIST's test images a kind of `KINDS` wrote."""
    import numpy as np

    return (np.arange(TEST_IMAGES) < STUDENTS) == (kind == "students")


def over_all(a: dict, b: dict | None = None, *, kind: str | None = None, writers=None) -> Mean | None:
    """The mean test accuracy of the runs ``{seed: record}`` of one network, or of ``a`` minus ``b`` over the seeds of
    both, by `over_seeds_and_images`: other seeds count, and other images of both kinds. Of one of `KINDS` alone, if
    given. None without a seed.

    Each image counts as one draw, unless ``writers`` ``(10_000,)`` says who wrote it: then writers of both kinds are
    drawn, with all their images. Images of another data set are of one kind.
    """
    seeds = sorted(set(a) & set(b)) if b is not None else sorted(a)
    if not seeds:
        return None
    values = outcomes([a[seed] for seed in seeds])
    if b is not None:
        values = values - outcomes([b[seed] for seed in seeds])
    if values.shape[1] != TEST_IMAGES:
        return over_seeds_and_images(values)
    if kind:
        return over_seeds_and_images(values[:, by_kind(kind)])
    return over_seeds_and_images(values, strata=by_kind("students"), clusters=writers)
