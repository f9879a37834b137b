"""A second test set, opened once: the 50,000 digits of MNIST's test set that were never distributed.

Source: C. Yadav and L. Bottou, "Cold Case: The Lost MNIST Digits" (2019), `torchvision.datasets.QMNIST`.
"""

import json
from pathlib import Path
from statistics import median

from .. import checkpoint
from ..data import default_root, project_root
from ..download import DataError, DownloadError
from ..files import replace_file
from ..stats import over_seeds_and_images
from . import notebooks, records

COMMAND = "python -m mnist_helpers second-test"
FIRST = 10_000  # of QMNIST's 60,000 test digits: MNIST's own
FIRST_STUDENT = 2_100  # writers with this number or a larger one were high-school students, the others employees


def file() -> Path:
    """Where the results are kept."""
    return project_root() / "results" / "second_test.json"


def load(root=None, download=True):
    """``(images, labels, writers)``: uint8 ``(50_000, 1, 28, 28)`` and int64 ``(50_000,)``, the further digits, and
    int64 ``(60_000,)``, who wrote MNIST's own test images and these.

    Below ``root`` (by default the folder of MNIST) in torchvision's layout, downloaded if need be (about 10 MB);
    torchvision compares the archives' checksums. Raises `DownloadError` without a network, and `DataError` for files
    whose first digits are not MNIST's, or not by the writers that `records` knows: then a file was damaged after it was
    unpacked.
    """
    from torchvision.datasets import MNIST, QMNIST

    root = Path(root or default_root())
    try:
        every = QMNIST(root, what="test", compat=False, download=download)
    except (OSError, RuntimeError) as error:
        raise DownloadError(f"QMNIST is not here and could not be downloaded: {error}. Connect to the network and "
                            f"repeat `{COMMAND}`") from error
    first = MNIST(root, train=False)
    if not (len(every.data) == len(every.targets) > FIRST == len(first.targets)
            and (every.targets[:FIRST, 0] == first.targets).all()
            and ((every.targets[:FIRST, 2].numpy() >= FIRST_STUDENT) == records.by_kind("students")).all()):
        raise DataError(f"the files in {root / 'QMNIST'} are damaged: delete this folder and repeat `{COMMAND}`")
    return every.data[FIRST:, None], every.targets[FIRST:, 0], every.targets[:, 2]


def measure(root=None, say=print) -> dict:
    """Evaluate every recorded run whose weights are kept, and write `file`. Returns its content: ``{network: {"ids",
    "mean", "half", *KINDS, "wider"}}``, accuracies in percent, intervals by `over_seeds_and_images` with writers drawn.
    ``"wider"`` is how many times wider the interval on MNIST's own test images becomes if writers are drawn there, and
    not images."""
    import numpy as np

    images, labels, writers = load(root)
    (own, who), found = np.split(writers.numpy(), [FIRST]), {}
    for name, runs in records.all_seeds().items():
        kept = {run["id"]: path for run in runs.values()
                if (path := checkpoint.kept_folder() / f"{run['id']}.safetensors").is_file()}
        if not kept:
            continue
        model = getattr(notebooks.network(name), name)()
        outcomes = np.stack([_right(model, path, images, labels) for path in kept.values()])
        mean = over_seeds_and_images(outcomes, strata=who >= FIRST_STUDENT, clusters=who)
        kinds = (outcomes[:, who >= FIRST_STUDENT], outcomes[:, who < FIRST_STUDENT])
        found[name] = {"ids": list(kept), "mean": 100 * mean.mean, "half": 100 * mean.half if mean.n > 1 else None,
                       **{kind: 100 * float(part.mean()) for kind, part in zip(records.KINDS, kinds, strict=True)},
                       "wider": _wider(runs, own)}
        say(f"{name}: {shown(found[name])}")
    replace_file(file(), json.dumps(found, indent=1) + "\n")
    return found


def _wider(runs, writers):
    """How many times as wide the interval becomes if writers are drawn, and not images; None where it has no width."""
    images = records.over_all(runs)
    return records.over_all(runs, writers=writers).half / images.half if images.n > 1 and images.half else None


def _right(model, path, images, labels):
    """Array ``(n,)``: 1 where the network with these kept weights reads an image."""
    from ..data import Split
    from ..measure import evaluate

    model.load_state_dict(checkpoint.read_kept(path)["weights"])
    seen = evaluate(model.eval(), Split(images, labels, "QMNIST", "second test"))
    return (seen.logits.argmax(1) == seen.labels).double().cpu().numpy()


def results() -> dict:
    """What `measure` wrote, of networks whose runs are recorded as they were then; nothing without the file."""
    if not file().is_file():
        return {}
    known = {name: {run["id"] for run in runs.values()} for name, runs in records.all_seeds().items()}
    content = json.loads(file().read_text(encoding="utf-8"))
    return {name: found for name, found in content.items() if set(found["ids"]) <= known.get(name, set())}


def shown(found: dict | None) -> str:
    """A cell of the page."""
    if not found:
        return ""
    half = "" if found["half"] is None else f" ± {found['half']:.2f}"
    return f"{found['mean']:.2f}{half} ({len(found['ids'])})"


def sentence() -> str:
    """What the page says of the column, and of writers."""
    found = results()
    if not found:
        return (f"The column *QMNIST* is empty: nobody has measured it yet. `{COMMAND}` downloads the 50,000 further "
                "test digits, evaluates the kept networks on them, and fills it. Five times as many images make "
                "their share of the error √5 = 2.2 times smaller. It also measures how much wider the "
                "intervals become if writers are drawn anew with all their images, and not single images.")
    wider = median(each["wider"] for each in found.values() if each["wider"])
    return ("*QMNIST*: on its 50,000 further test digits, mean over (n) kept runs. They are five times as "
            "many, which makes the images' share of the error √5 = 2.2 times smaller. "
            f"If writers are drawn anew with all their images, and not single images, the intervals on MNIST's "
            f"own test images become {wider:.1f} times as wide (median over the networks).")
