"""The notebooks as files: finding them, executing them through papermill, keeping their outputs."""

import ast
import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import torch
from safetensors.torch import load_file

from . import results
from .data import damaged, project_root, replace_file


@dataclass
class Execution:
    """What became of one notebook: its cells with outputs and its run records, or what went wrong."""

    path: Path
    seconds: float = 0.0
    notebook: str = ""  #: as JSON: a parent process need not know papermill's classes
    runs: list = field(default_factory=list)
    weights: bytes = b""  #: of a lesson's network, as safetensors
    error: str | None = None


def folder():
    return project_root() / "notebooks"


def every():
    """The paths of all notebooks, in order, without the copies that Jupyter keeps as checkpoints."""
    return sorted(path for path in folder().rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def find(names=()):
    """The paths of the notebooks called ``names`` (``01_baseline``, ``challenges/x.ipynb``, or any path); by default
    the numbered lessons, in order.

    Raises `FileNotFoundError` naming the first that does not exist, and those that do.
    """
    lessons = [path for path in sorted(folder().glob("[0-9]*.ipynb")) if "-Copy" not in path.name]  # Jupyter's copies
    paths = []
    for name in names:
        candidates = [Path(name), folder() / name, folder() / f"{name}.ipynb"]
        path = next((path for path in candidates if path.suffix == ".ipynb" and path.is_file()), None)
        if path is None:
            known = ", ".join(path.relative_to(folder()).with_suffix("").as_posix() for path in every())
            raise FileNotFoundError(f"there is no notebook {name!r}; there are: {known or 'none'}")
        paths.append(path.resolve())
    return paths or lessons


def fingerprint(notebook):
    """A checksum of the code cells: outputs belong to a notebook while it stays the same.

    The cell tagged ``setup`` is left out, since it holds the repository's address, which a fork changes.
    """
    code = [cell.source for cell in notebook.cells
            if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def execute(path, seed=None, profile="full", show=True, text=None):
    """Run a notebook in a fresh kernel, with ``show`` its output as it comes; return its `Execution`.

    ``text`` is its content, where ``path`` is not to be read. To be called in a process of its own, one at a time: it
    sets environment variables, and papermill changes the directory.
    """
    import papermill

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        collected = Path(temporary) / "runs.jsonl"
        os.environ |= {"MNIST_PROFILE": profile, "MNIST_RUN_RECORD": str(collected)}
        if show and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a redirected stdout may not know the progress bar's characters
        code, done, error = None, None, None
        try:
            notebook = nbformat.reads(text or path.read_text(encoding="utf-8"), as_version=4)
            code = fingerprint(notebook)
            done = papermill.execute_notebook(
                notebook, None, parameters={} if seed is None else {"SEED": seed}, kernel_name="python3",
                cwd=str(temporary if text else path.parent), progress_bar=False,
                stdout_file=sys.stdout if show else None)
        except Exception as raised:  # whatever a lesson can raise, and whatever starting a kernel can
            error = f"{type(raised).__name__}: {raised}".strip()
        # A run that was recorded before something failed, such as the floor of its accuracy, is a result too.
        runs = [run | {"code": code} for run in results.read(collected)]
        weights = collected.with_name(results.WEIGHTS)
        return Execution(path, time.perf_counter() - started, nbformat.writes(done) if done else "", runs,
                         weights.read_bytes() if weights.exists() else b"", error)


def save(execution):
    """Write an execution's outputs into its notebook, in one step, with the fingerprint of the code that made them,
    and a lesson's weights into `weights_file`.

    Raises `ValueError` for anything but a full run on MNIST, for a copy of another notebook, whose runs bear that
    one's name, or if the notebook has changed since. A notebook that
    trains nothing records no run; it is saved if MNIST was there.
    """
    if not execution.runs and damaged():
        raise ValueError(f"{execution.path.name}: MNIST is not here, and only runs on MNIST are saved")
    for run in execution.runs:
        if problem := misnamed(execution.path, run):
            raise ValueError(problem)
        if not results.is_full_mnist(run):
            raise ValueError(f"{execution.path.name}: only full runs on MNIST are saved, and this was "
                             f"{run['profile']} {run['dataset']}")
    notebook = nbformat.read(execution.path, as_version=4)
    executed = nbformat.reads(execution.notebook, as_version=4)
    if fingerprint(executed) != fingerprint(notebook):
        raise ValueError(f"{execution.path.name} was changed while it ran, or ran with another seed: not saved")
    # Text may have been edited meanwhile, so the code cells are paired, which the fingerprint says are the same.
    ours, theirs = ([cell for cell in each.cells if cell.cell_type == "code"] for each in (notebook, executed))
    for cell, done in zip(ours, theirs, strict=True):
        cell.outputs = [_as_seen(output) for output in _joined(done.outputs)]
        cell.execution_count = done.execution_count
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "mnist_helpers": {"fingerprint": fingerprint(notebook), "profile": "full", "dataset": "mnist"},
    }
    replace_file(execution.path, nbformat.writes(notebook) + "\n")
    if execution.weights:
        weights_file(execution.path).parent.mkdir(exist_ok=True)
        replace_file(weights_file(execution.path), execution.weights)


def misnamed(path, run):
    """What is wrong if a run of the notebook at ``path`` was recorded under the name of another, else None."""
    if (folder() / run["notebook"]).resolve() != path.resolve():
        return f"{path.name} records its runs as {run['notebook']}: a copy? Only the course's notebooks are kept"
    return None


def network(path, name=None):
    """A fresh network of a notebook, of its class called ``name`` or of the first: networks are written in the
    notebooks and nowhere else. Its cell may use the constants, literals under names in capitals, of cells before.

    Raises `ValueError` if there is no such class.
    """
    definition = re.compile(r"^class (" + (name or r"\w+") + r")\(nn\.Module\)", re.MULTILINE)
    scope = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and (found := definition.search(cell.source)):
            exec(cell.source, scope)
            return scope[found[1]]()
        if cell.cell_type == "code":
            scope |= _constants(cell.source)
    raise ValueError(f"{path.name} has no network {name or ''}".rstrip())


def _constants(source):
    """What a cell assigns to names in capitals, as far as it is literals."""
    constants = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            with contextlib.suppress(ValueError):
                constants[node.targets[0].id] = ast.literal_eval(node.value)
    return constants


def weights_file(path):
    """Where the weights of a lesson's saved run are kept."""
    return project_root() / "results" / "weights" / f"{path.stem}.safetensors"


def trained(path):
    """The network of a lesson with the weights of the run whose outputs it shows, in eval mode."""
    model = network(path)
    model.load_state_dict(load_file(weights_file(path)))
    return model.eval()


def _joined(outputs):
    """Neighbouring pieces of one stream as one."""
    joined = []
    for output in outputs:
        before = joined[-1] if joined else {}
        if output["output_type"] == "stream" == before.get("output_type") and output["name"] == before["name"]:
            before["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def _as_seen(output):
    """A stream as a terminal shows it: of a line rewritten by carriage returns, the last version. A widget without its
    kernel: the picture that stands in its place."""
    if output.output_type == "stream":
        output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in output.text.split("\n"))
    elif "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
    return output


def repository():
    """``OWNER/NAME`` of the course on GitHub, from pyproject.toml."""
    text = (project_root() / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]["urls"]["repository"].removeprefix("https://github.com/")


def publish(new, branch="main"):
    """Stamp the address ``OWNER/NAME`` and the branch into every notebook, the README and pyproject.toml; return the
    files that changed.

    Raises `ValueError` if ``new`` is not of this form.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new) or not re.fullmatch(r"[\w./-]+", branch):
        raise ValueError(f"{new!r}, branch {branch!r}: an address is OWNER/NAME, as in https://github.com/OWNER/NAME")
    old = re.escape(repository())
    root, changed = project_root(), []
    # The old address is read from pyproject.toml: last, so that whoever is interrupted can call this again.
    for path in [root / "README.md", *every(), root / "pyproject.toml"]:
        before = path.read_text(encoding="utf-8")
        after = re.sub(rf"colab\.research\.google\.com/github/{old}/blob/[\w./-]+?/notebooks/",
                       f"colab.research.google.com/github/{new}/blob/{branch}/notebooks/", before)
        after = re.sub(rf'https://github\.com/{old}(?=\\?")', f"https://github.com/{new}", after)
        after = re.sub(r'\\"--branch\\", \\"[\w./-]+\\"', f'\\\\"--branch\\\\", \\\\"{branch}\\\\"', after)
        if after != before:
            replace_file(path, after)
            changed.append(path)
    return changed
