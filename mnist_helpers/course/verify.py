"""Do recorded runs belong to the code as it stands? The first hundred steps of each are trained again and compared.

After a change of the package that changes no training, this puts a new stamp on every record, in seconds a notebook;
after one that does, it names each record that is out of date.

Another processor rounds otherwise, and after some steps the losses have nothing in common. There the code that the
records belong to is run, too: what both codes compute alike, to the bit, keeps its record.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .. import data
from . import catalogue, notebooks, processes, records, stamps
from .git import git

STEPS, TOLERANCE = 20, 1e-3  # elsewhere than on the recording machine: the first steps' losses agree to this share
TRAINING = ("parameters", "recipe", "experiment")  # the tags of cells that train, or say how


@dataclass(frozen=True)
class Verdict:
    """What the comparison said about one kept run."""

    notebook: str
    id: str
    same: bool
    finding: str

    def __str__(self):
        return f"{'ok   ' if self.same else 'STALE'} {self.notebook}: {self.id}: {self.finding}"


def verify(paths: Iterable[Path], every_seed: bool = False) -> Iterator[Verdict]:
    """Compare the recorded runs of notebooks, of seed 0 or of ``every_seed``, and stamp them; yield a `Verdict` each.

    Where seed 0 is as recorded, the other seeds of its network are stamped with it. What experiments in these notebooks
    kept is compared as well. A notebook that cannot be traced gives one verdict,
    and its stamps stay as they are.
    """
    from .. import checkpoint

    recorded = {path: _recorded(path) for path in paths}
    jobs = [(path, path.read_text(encoding="utf-8"), seed) for path in recorded
            for seed in sorted({record["seed"] for record in recorded[path]} if every_seed else {0})]
    for (path, _, seed), result in processes.each_in_a_process(trace, jobs):
        traces, error = result or ([], processes.KILLED)
        name = notebooks.name_of(path)
        if error:
            yield Verdict(name, f"seed {seed}", False, error)
            continue
        recipe = notebooks.recipe_digest(path)
        for id, kept in _to_compare(recorded[path], traces, seed).items():
            if finding := difference(kept, traces):
                # The digests stay those of the code that it belongs to.
                before = checkpoint.stamps().get(id) or {"recipe": "", "package": kept["card"].get("package", "")}
                stamps.stamp(id, trace="differs", notebook=name, recipe=before["recipe"] or "unknown",
                             package=before["package"] or "unknown")
            else:
                stamps.stamp(id, trace="verified", notebook=name, recipe=recipe)
                if not every_seed:
                    _stamp_alike(id, recorded[path], recipe, name)
            yield Verdict(name, id, finding is None, finding or agreement(kept, traces))


def _stamp_alike(id, recorded, recipe, notebook):
    """Stamp the other seeds of the run ``id``: a change that moves no loss of one seed moves none of another."""
    from .. import checkpoint

    known = checkpoint.stamps()
    models = {record["model"] for record in recorded if record["id"] == id}
    for record in recorded:
        before = known.get(record["id"], {}).get("trace", "verified")
        if record["model"] in models and record["id"] != id and before != "differs":
            stamps.stamp(record["id"], recipe=recipe, trace=before, notebook=notebook)


def _recorded(path):
    """The records that tables show of a notebook's networks."""
    names = {network.name for network in catalogue.networks() if network.notebook == notebooks.name_of(path)}
    return [record for name, runs in records.all_seeds().items() if name in names for record in runs.values()]


def _to_compare(recorded, traces, seed):
    """``{id: kept run}`` of the records of a seed, and of the kept runs that these traces repeat."""
    ids = [record["id"] for record in recorded if record["seed"] == seed] + [each["id"] for each in traces]
    kept = {id: _kept(id) for id in dict.fromkeys(ids)}
    for record in recorded:
        if record["id"] in kept and kept[record["id"]] is None:
            kept[record["id"]] = {"id": record["id"], "card": record["card"] | {"model": record["model"]},
                                  "batch_loss": record["trace"]}
    return {id: run for id, run in kept.items() if run is not None}


def _kept(id):
    from .. import checkpoint

    path = checkpoint.kept_folder() / f"{id}.safetensors"
    return checkpoint.read_kept(path) | {"id": id} if path.is_file() else None


def difference(kept: dict, traces: list[dict]) -> str | None:
    """How a kept run differs from its trace among ``traces``, in words; None if it does not."""
    from .. import checkpoint, recipe

    theirs = kept["card"]
    of_model = [each for each in traces if each["card"]["model"] == theirs["model"]]
    same = [each for each in of_model if each["id"] == kept["id"]]
    if not same:
        if not of_model:
            return "nothing trains this network any more"
        changes = recipe.differences(theirs.get("recipe") or {}, of_model[0]["card"]["recipe"])
        return f"the recipe has changed: {'; '.join(line.strip() for line in changes) or 'its epochs, or its draws'}"
    ours = same[0]["card"]
    if "start" in theirs and not checkpoint.same_start(theirs["start"], ours["start"]):
        return "training begins with other weights, or another order of the images"
    return _losses_differ(kept["batch_loss"], same[0]["losses"], exact=_machine(theirs) == _machine(ours))


def agreement(kept: dict, traces: list[dict]) -> str:
    """How closely a kept run agrees with its trace, of which there is no `difference`."""
    ours = next(each["card"] for each in traces if each["id"] == kept["id"])
    differ = [f"{then} then, {now} now" for then, now in zip(_machine(kept["card"]), _machine(ours), strict=True)
              if then != now]
    return f"as recorded, to {TOLERANCE:.1%} of the loss in {STEPS} steps: {'; '.join(differ)}" if differ else (
        "as recorded, to the bit")


def _machine(card):
    """What has to be the same for two trainings to be the same to the bit."""
    return card["device"], card.get("instructions"), card["threads"], card["precision"], card["versions"]["torch"]


def _losses_differ(theirs, ours, exact):
    import numpy as np

    count = min(len(theirs), len(ours)) if exact else min(len(theirs), len(ours), STEPS)
    theirs, ours = (np.array(losses[:count], dtype=np.float32) for losses in (theirs, ours))
    differs = theirs != ours if exact else ~np.isclose(ours, theirs, rtol=TOLERANCE, atol=0)
    if not differs.any():
        return None
    step = int(differs.argmax())
    return f"the loss of step {step + 1} is {ours[step]:.6f}, and was {theirs[step]:.6f}"


def trace(path: Path, text: str, seed: int) -> tuple[list[dict], str | None]:
    """Train the first steps of what a notebook trains under ``seed``, on one thread, as the records were made.

    Returns what each call of `fit` did (``id``, ``card``, ``losses``), and what went wrong or None. To be called in a
    process of its own.
    """
    error = None
    with tempfile.TemporaryDirectory(prefix="mnist-") as folder:
        try:
            with notebooks.trained_in(folder, "trace"):
                notebooks.run_cells(notebooks.tagged(notebooks.parse(text, path.name), *TRAINING), path.name, seed)
        except Exception as raised:  # whatever a cell can raise
            error = f"{type(raised).__name__}: {raised}"
        files = sorted(Path(folder).glob("*.trace.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files], error


# ---------------------------------------------------------------- on another processor

TRACED = """
import json, sys
from pathlib import Path
from mnist_helpers import checkpoint
from mnist_helpers.course import notebooks, verify
path = Path("notebooks", sys.argv[1] + ".ipynb")
traces, error = verify.trace(path, path.read_text(encoding="utf-8"), 0)
print(json.dumps([checkpoint.package_digest(), notebooks.recipe_digest(path), traces, error]))
"""


def unchanged_since(commit: str, paths: Iterable[Path]) -> Iterator[Verdict]:
    """Stamp the records of notebooks that belong to the code of a ``commit``, where the code as it stands computes the
    same, to the bit, in the first steps of seed 0; yield a `Verdict` each. Both are run here, side by side, so it
    does not matter which processor the records come from.

    Raises `ValueError` for what git does not know as a commit.
    """
    root = data.project_root()
    commit = git(root, "rev-parse", "--verify", f"{commit}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="mnist-") as folder, ThreadPoolExecutor(2) as both:
        before = Path(folder) / "course"
        git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(before))
        git(before, "checkout", "--quiet", commit)
        for path in paths:
            name = notebooks.name_of(path)
            then, now = both.map(_traced, (before, root), (name, name))
            if error := then[3] or now[3]:
                yield Verdict(name, "seed 0", False, error)
                continue
            recorded, known = _recorded(path), _stamps()
            for id, finding in _changed(name, then, now).items():
                if finding is None:
                    # An import was never trained by such code: that nothing changes says no more than before.
                    trace = "imported" if known[id]["trace"] == "imported" else "verified"
                    stamps.stamp(id, trace=trace, notebook=name, recipe=now[1])
                    _stamp_alike(id, recorded, now[1], name)
                yield Verdict(name, id, finding is None, finding or f"as {commit[:7]} computes it")


def _stamps():
    from .. import checkpoint

    return checkpoint.stamps()


def _traced(tree, name):
    """``[package digest, recipe digest, traces, error or None]`` of a notebook by the code in the folder ``tree``."""
    settings = {"PYTHONPATH": str(tree), "MNIST_ROOT": str(data.default_root()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TRACED, name], cwd=tree, env=os.environ | settings, text=True,
                          capture_output=True, encoding="utf-8")
    return json.loads(done.stdout) if not done.returncode else ["", "", [], done.stderr[-500:]]


def _changed(name, then, now):
    """``{id: how this run differs from what the code of then computes, or None}`` of the stamped runs of a notebook."""
    found, traces = {}, [{trace["id"]: trace for trace in each[2]} for each in (then, now)]
    for id, stamp in _stamps().items():
        if stamp["notebook"] != name or not (id in traces[0] or id in traces[1]):
            continue
        known = stamp["package"] == then[0] and stamp["recipe"] == then[1] and stamp["trace"] != "differs"
        if not known:
            found[id] = "this record does not belong to the code of that commit"
        elif not all(id in each for each in traces):
            found[id] = "the recipe has changed"
        elif traces[0][id]["card"].get("start") != traces[1][id]["card"].get("start"):
            found[id] = "training begins with other weights, or another order of the images"
        else:
            found[id] = _losses_differ(*(each[id]["losses"] for each in traces), exact=True)
    return found


# ---------------------------------------------------------------- what refresh asks

LONG = 60  # seconds of training that nobody wants to wait for by accident


def not_replayable(path: Path) -> str | None:
    """Why the runs of a notebook's networks under seed 0 cannot be replayed, or None if they can."""
    from .. import checkpoint

    recorded = records.all_seeds()
    for network in (each for each in catalogue.networks() if each.notebook == notebooks.name_of(path)):
        record = recorded.get(network.name, {}).get(0)
        if record is None:
            return f"{network.name} has no record of seed 0"
        if reason := stamps.stale(record):
            return f"the record of {network.name} is out of date: {reason}"
        if not (checkpoint.kept_folder() / f"{record['id']}.safetensors").is_file():
            return f"the weights of {record['id']} are not kept"
    return None


def trained_anew(execution) -> list[str]:
    """The ids of long trainings that an execution in the recorded profile made instead of replaying them."""
    trained = []
    for name, content in execution.kept.items():
        run = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["run"])
        network = catalogue.network(run["card"]["model"])
        listed = network is not None and network.notebook == notebooks.name_of(execution.path) and (
            len(run["history"]["seconds"]) >= network.epochs)
        if listed or sum(run["history"]["seconds"]) > LONG:
            trained.append(name.removesuffix(".safetensors"))
    return trained
