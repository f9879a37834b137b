"""The notebooks as files: finding them, executing them through papermill, or their recipes alone, keeping what they
show and record."""

import contextlib
import difflib
import hashlib
import io
import json
import linecache
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

from ..places import project_root
from . import catalogue
from .git import answer

# nbformat imports jsonschema, which builds a parser of internationalized addresses if it can: two seconds for every
# process that reads a notebook, and no notebook has such an address to check.
sys.modules.setdefault("rfc3987_syntax", None)
# What Jupyter, Windows, macOS and Linux call a copy.
COPY = re.compile(r"( - Copy( \(\d+\))?|-Copy\d+| ?\(\d+\)| \(copy[^)]*\)| copy( \d+)?)$")
# glibc gives the memory of large freed tensors back to the system after each step, and taking it again is slow.
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)  # such as the marks of figures, which only who writes pages needs
BAR = re.compile(r"epoch (\d+)/(\d+)\s+(\d+)%\|[^|]*\|([^\r\n]*)")  # as `fit` draws it
OWN, LANG = "own", "lang"  # below `folder`: a teacher's own lessons, and translations, a folder for each language
LONGEST_SOCKET = 90  # characters of a path that a local socket may have, with room for a suffix (macOS: 103)


@dataclass
class Execution:
    """What became of one notebook: its cells with outputs, its records and kept files, or what went wrong."""

    path: Path
    profile: str = "full"
    seconds: float = 0.0
    notebook: str = ""  #: as JSON: a parent process need not know papermill's classes
    records: list = field(default_factory=list)
    kept: dict = field(default_factory=dict)  #: the bytes of each kept file, by its name
    error: str | None = None


# ---------------------------------------------------------------- finding and reading


def folder() -> Path:
    return project_root() / "notebooks"


def solutions() -> Path:
    """The folder of the solutions: a notebook for each that has exercises, under the same name."""
    return folder() / "solutions"


def name_of(path: Path) -> str:
    """What the catalogue calls the notebook at ``path``: ``"challenges/one_epoch"``; of one elsewhere, its stem."""
    path = Path(path).resolve()
    root = folder().resolve()
    return (path.relative_to(root) if path.is_relative_to(root) else Path(path.name)).with_suffix("").as_posix()


def apart(path: Path) -> bool:
    """Whether a notebook is none of the course's, but a teacher's own lesson, a translation, or one's solutions."""
    return bool({OWN, LANG} & set(Path(name_of(path)).parent.parts[:2]))


def own() -> list[Path]:
    """The paths of a teacher's own lessons."""
    return _all_in(folder() / OWN)


def translations(language: str) -> list[Path]:
    """The paths of the notebooks that are translated, or begun, in a language: ``"de"``."""
    return _all_in(folder() / LANG / language)


def _all_in(place):
    return sorted(path for path in place.rglob("*.ipynb")
                  if ".ipynb_checkpoints" not in path.parts and not COPY.search(path.stem))


def lessons() -> list[Path]:
    """The paths of the seven lessons, in order."""
    return [folder() / network.notebook_file for network in catalogue.lessons()]


def every() -> list[Path]:
    """The paths of the course's notebooks, in order: those of the catalogue, and those with outputs that the course
    stored, if git tracks them or knows nothing of this folder. Solutions, what a learner puts here, copies, those that
    are `apart`, what Jupyter keeps as checkpoints, and files that are no notebooks do not count."""
    listed, tracked = {folder() / network.notebook_file for network in catalogue.networks()}, _tracked()
    found = (path for path in _all_in(folder()) if solutions() not in path.parents and not apart(path))
    return sorted(path for path in found
                  if path in listed or ((not tracked or path in tracked) and _noted(path, "mnist_helpers") is not None))


def every_solution() -> list[Path]:
    """The paths of the course's solutions, in order: those that git tracks, or all where it knows nothing of this
    folder."""
    tracked = _tracked()
    return [path for path in _all_in(solutions()) if not apart(path) and (not tracked or path in tracked)]


def own_runs() -> list[Path]:
    """The course's notebooks that were run in place, and saved: what they show is the reader's. Jupyter notes the
    version of Python in them, and `store` leaves none."""
    changed = _named_by_git("diff", "--name-only", "--relative", "-z", "HEAD")
    return [path for path in every() if path in changed and "version" in (_noted(path, "language_info") or {})]


def _tracked():
    """The files in `folder` that git tracks; none in a copy of the course without its repository."""
    return _named_by_git("ls-files", "-z")


def _named_by_git(*arguments):
    return {folder() / name for name in answer(folder(), *arguments).split("\0") if name}


def _noted(path, key):
    """What a notebook's metadata have under a key; None of what is no notebook, or not the reader's to read."""
    try:
        return read(path).metadata.get(key)
    except (OSError, ValueError):
        return None


def find(names=()) -> list[Path]:
    """The paths of the notebooks called ``names`` (``01_baseline``, ``challenges/one_epoch.ipynb``, ``one_epoch``, a
    lesson in ``own/``, or any path), each once; by default the lessons.

    Raises `FileNotFoundError` naming the first that does not exist, and those that it may have meant.
    """
    paths = [_find(str(name)) for name in names]
    return list(dict.fromkeys(paths)) or lessons()


def _find(name):
    places = (folder(), folder() / "challenges", folder() / OWN)
    for path in (Path(name), folder() / name, *(place / f"{name}.ipynb" for place in places)):
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    known = [name_of(path) for path in [*every(), *own()]]
    near = difflib.get_close_matches(name.removesuffix(".ipynb"), known, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
    raise FileNotFoundError(f"there is no notebook {name!r}; {meant}")


def read(path: Path):
    """The notebook in a file, as nbformat has it. Raises `ValueError` if it is none."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no notebook: it is not written in UTF-8") from error


def parse(text: str, name: str = "the text"):
    """The notebook in a text. Raises `ValueError` if it is none."""
    import nbformat

    try:
        return nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat has errors of several kinds for what is no notebook
        raise ValueError(f"{name} is no notebook: {error}") from error


def tagged(notebook, *tags: str) -> list:
    """The code cells that have any of these tags, in order."""
    return [cell for cell in notebook.cells
            if cell.cell_type == "code" and set(tags) & set(cell.metadata.get("tags", []))]


def recipe_cells(notebook) -> list:
    """The code cells tagged ``recipe``: with the parameters before them, they train the network of the record."""
    return tagged(notebook, "recipe")


def recipe_digest(path: Path) -> str:
    """The digest of a notebook's recipe, without comments, spaces, docstrings and parameters."""
    return _recipe_digest(read(path))


def _recipe_digest(notebook):
    from ..recipe import syntax

    return syntax("\n".join(cell.source for cell in recipe_cells(notebook)))


def code_digest(notebook) -> str:
    """The digest of every code cell, without comments, spaces and docstrings: outputs belong to the code that has it.

    The cell tagged ``setup`` is left out, since a published copy has its address and release there.
    """
    from ..recipe import syntax

    def digest(source):
        try:
            return syntax(source)
        except SyntaxError:  # Jupyter's own commands, such as %timeit
            return source.strip()

    setup = tagged(notebook, "setup")
    cells = [digest(cell.source) for cell in notebook.cells if cell.cell_type == "code" and cell not in setup]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def network(name: str | Path) -> ModuleType:
    """The module of a notebook's networks, by its name, path, or the name of one of its classes:
    ``network("05_under_20k").Under20K()``. See `networks`."""
    from .networks import module_of

    entry = catalogue.network(str(name))
    return module_of(folder() / entry.notebook_file if entry else find([name])[0])


def trained(name: str | Path, seed: int = 0):
    """A notebook's first network, or the one called ``name``, in eval mode, with the weights of the course's record of
    a seed; of most networks those of seed 0 are kept, of the lessons those of 0 to 4. Raises `FileNotFoundError` if
    there is no record."""
    from .. import checkpoint
    from . import records

    entry = catalogue.network(str(name))
    if entry is None:
        path = find([name])[0]
        entry = next((each for each in catalogue.networks() if each.notebook == name_of(path)), None)
    record = records.all_seeds().get(entry.name, {}).get(seed) if entry else None
    if record is None:
        raise FileNotFoundError(f"the course has no record of {name} under seed {seed}")
    model = getattr(network(entry.name), entry.name)()
    model.load_state_dict(checkpoint.read_kept(checkpoint.kept_folder() / f"{record['id']}.safetensors")["weights"])
    return model.eval()


def repository() -> str:
    """``OWNER/NAME`` of the course on GitHub, from pyproject.toml."""
    text = (folder().parent / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]["urls"]["repository"].removeprefix("https://github.com/")


# ---------------------------------------------------------------- executing


def execute(path: Path, seed: int | None = None, profile: str = "full", show: bool = True, text: str | None = None,
            threads: int | None = None, tell: Callable | None = None) -> Execution:
    """Run a notebook in a fresh kernel, with ``show`` its output as it comes; return its `Execution`.

    ``text`` is its content, where ``path`` is not to be read. ``threads`` is how many PyTorch may use. ``tell`` is
    called with each `progress` that its output shows. To be called in a process of its own: it sets environment
    variables, and papermill changes the directory.
    """
    import papermill

    done, started = Execution(path, profile), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mnist-") as temporary:
        collected = Path(temporary) / "collected"
        collected.mkdir()
        os.environ |= {"MNIST_PROFILE": profile, "MNIST_COLLECT": str(collected), "MNIST_CHECK": "1",
                       "MPLBACKEND": "module://matplotlib_inline.backend_inline", **KEEP_FREED_MEMORY,
                       **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        if show and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a redirected stdout may not know the progress bar's characters
        try:
            notebook = parse(text or path.read_text(encoding="utf-8"), path.name)
            done.notebook = as_json(papermill.execute_notebook(
                notebook, None, parameters={} if seed is None else {"SEED": seed}, kernel_name="python3",
                cwd=str(temporary if text else path.parent), progress_bar=False, config=kernel_settings(temporary),
                iopub_timeout=60,  # output that comes late on a busy machine: nbclient's four seconds end a lesson
                stdout_file=_listener(tell) if tell else sys.stdout if show else None))
        except Exception as raised:  # whatever a lesson can raise, and whatever starting a kernel can
            done.error = f"{type(raised).__name__}: {raised}".strip()
        done.seconds = time.perf_counter() - started
        _collect(done, collected)
    return done


def progress(text: str) -> tuple[int, int, float, str] | None:
    """What the last progress bar of `fit` in a text says, or None: the epoch, of how many, the part of it that is done,
    and the last accuracy, as in ``"val 98.71 %"``."""
    bars = BAR.findall(text)
    if not bars:
        return None
    epoch, epochs, percent, rest = bars[-1]
    shown = re.findall(r"[\d.]+(?=%)", rest)
    accuracy = f"{'val ' if '; val' in rest else ''}{shown[-1]} %" if shown else ""
    return int(epoch), int(epochs), int(percent) / 100, accuracy


def _listener(tell):
    """A file for a notebook's output that tells the progress in it."""
    def write(text):
        if found := progress(text):
            tell(found)

    return SimpleNamespace(write=write, flush=lambda: None)


def train(path: Path, seed: int, text: str, threads: int = 1, profile: str = "full") -> Execution:
    """Train what a notebook's recipe trains under ``seed``, and record it, without the notebook's other cells; return
    its `Execution`. To be called in a process of its own."""
    done, started = Execution(path, profile, notebook=text), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mnist-") as temporary:
        try:
            with trained_in(temporary, profile, threads):
                cells = tagged(parse(text, path.name), "parameters", "recipe")
                _record(run_cells(cells, path.name, seed), name_of(path))
        except Exception as raised:  # whatever a cell can raise
            done.error = f"{type(raised).__name__}: {raised}"
        done.seconds = time.perf_counter() - started
        _collect(done, Path(temporary))
    return done


@contextlib.contextmanager
def trained_in(folder: str, profile: str, threads: int = 1):
    """Within it, cells run in this process as in a kernel of the command line, without their output, and leave what
    they record and keep in a folder. Environment variables stay set: this is for a process of its own."""
    import torch

    from .. import cpu

    os.environ |= {"MNIST_PROFILE": profile, "MNIST_COLLECT": folder, "MNIST_CHECK": "1", "MPLBACKEND": "Agg",
                   "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    torch.set_num_threads(threads)
    cpu.keep_freed_memory()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _record(scope, notebook):
    """Record the runs among these variables that are of a notebook's networks, as the notebook does."""
    from ..measure import evaluate
    from ..run import Run
    from .records import record

    for run in {id(value): value for value in scope.values() if isinstance(value, Run)}.values():
        network = catalogue.network(run.card["model"])
        if network and network.notebook == notebook:
            mnist = scope["mnist"]
            as_published = evaluate(run.model, mnist.train, augment=scope["augment"]) if network.lesson else None
            record(run, evaluate(run.model, mnist.test), as_published)


def _collect(done, folder):
    """What a run left in its folder: records and kept files, also where something failed afterwards."""
    from . import records

    done.records = records.read(folder / "records.jsonl")
    done.kept = {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def run_cells(cells, name: str, seed: int) -> dict:
    """Execute cells in order, under ``seed`` instead of the one written there; return their variables."""
    scope = {"__name__": "__main__", "display": lambda *shown: None}
    for number, cell in enumerate(cells, start=1):
        file = f"{name}, training cell {number}"
        linecache.cache[file] = len(cell.source), None, cell.source.splitlines(keepends=True), file  # for its recipe
        exec(compile(cell.source, file, "exec"), scope)
        if "parameters" in cell.metadata.get("tags", []):
            scope |= {"SEED": seed} | {key: None for key in ("CHECKPOINT", "PROFILE") if key in scope}
    return scope


def kernel_settings(temporary):
    """Settings for what runs the kernel. It talks through files of this user where that is possible, for over TCP any
    user of the machine can listen. And it is asked to end without an interrupt before: papermill does not wait until
    its last request is done with, and ipykernel logs an interrupt in it as an error."""
    from jupyter_client import AsyncKernelManager
    from traitlets.config import Config

    class Manager(AsyncKernelManager):
        async def _async_interrupt_kernel(self):
            if not self.shutting_down:
                await super()._async_interrupt_kernel()

    settings = {"NotebookClient": {"kernel_manager_class": Manager}}
    socket = str(Path(temporary) / "kernel")
    if os.name != "nt" and len(socket) <= LONGEST_SOCKET:
        settings["ConnectionFileMixin"] = {"transport": "ipc", "ip": socket}
    return Config(settings)


def as_json(notebook):
    import nbformat

    return nbformat.writes(notebook)


def other_package() -> str | None:
    """What is wrong with the package that notebooks import, or None: kernels may find another than this one.

    Raises `LookupError` if Jupyter has no kernel called python3.
    """
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel as error:
        raise LookupError("Jupyter has no python3 kernel") from error
    # A bare "python" is replaced by the running interpreter when the kernel starts.
    command = sys.executable if command in ("python", "python3") else command
    code = ("import importlib.util, pathlib; found = importlib.util.find_spec('mnist_helpers'); "
            "print(ascii(str(pathlib.Path(found.origin).resolve().parent)) if found else repr(''))")
    ours = str(Path(__file__).resolve().parents[1])
    try:
        said = subprocess.run([command, "-c", code], cwd=folder(), capture_output=True, text=True, timeout=60,
                              check=True)
        theirs = eval(said.stdout, {"__builtins__": {}})
    except (OSError, subprocess.SubprocessError, SyntaxError) as error:
        return f"the python3 kernel's interpreter {command} does not run: {error}"
    if theirs == ours:
        return None
    return f"notebooks use mnist_helpers in {theirs}, not in {ours}" if theirs else (
        f"the python3 kernel's interpreter {command} has no mnist_helpers; this command's is in {ours}")


# ---------------------------------------------------------------- keeping


def save(execution: Execution) -> None:
    """Keep what a full run on MNIST recorded as the course's own, and its outputs in the notebook.

    Raises `ValueError` for any other run, for a copy of another notebook, or if the code has changed since.
    """
    notebook = _with_outputs(execution)
    keep(execution)
    _write(execution, notebook)


def store(execution: Execution) -> None:
    """Write an execution's outputs into its notebook, and record nothing. Raises `ValueError` as `save` does."""
    _write(execution, _with_outputs(execution))


def keep(execution: Execution) -> None:
    """Add what a full run on MNIST recorded to the course's own records, with the files it kept.

    Raises `ValueError` for a run that failed, even if it had recorded before, for any but full runs on MNIST, for a
    copy of another notebook, or if the recipe has changed since.
    """
    from .. import checkpoint, files
    from . import records

    if execution.error:
        raise ValueError(f"{execution.path.name} failed, so nothing of it is kept")
    for record in execution.records:
        if problem := unacceptable(execution, record):
            raise ValueError(problem)
    recipe = recipe_digest(execution.path)
    if _recipe_digest(parse(execution.notebook)) != recipe:
        raise ValueError(f"{execution.path.name}: its recipe was changed while it ran. Run it again")
    there, recorded = _up_to_date(), {record["id"]: record for record in execution.records}
    checkpoint.kept_folder().mkdir(parents=True, exist_ok=True)
    for name, content in execution.kept.items():
        id = name.removesuffix(".safetensors")
        if id in recorded and id not in there:
            if recorded[id]["seed"] < records.FIRST_FRESH:  # of fresh seeds the figures suffice
                files.replace_file(checkpoint.kept_folder() / name, content)
            records.keep(recorded[id], recipe)
    keep_experiments(execution)


def keep_experiments(execution: Execution) -> None:
    """Keep what the experiments of an execution trained, so that the next one replays it. Runs that were recorded are
    for `keep`; what no cell tagged ``recipe`` or ``experiment`` trained, or a notebook that is `apart`, is trained anew
    each time."""
    from .. import checkpoint, files
    from . import stamps

    notebook = parse(execution.notebook)
    if not tagged(notebook, "recipe", "experiment") or apart(execution.path):
        return
    recorded = {record["id"] for record in execution.records} | _up_to_date()
    recipe = _recipe_digest(notebook)
    for name, content in execution.kept.items():
        id = name.removesuffix(".safetensors")
        if id not in recorded:
            files.replace_file(checkpoint.kept_folder() / name, content)
            stamps.stamp(id, trace="recorded", notebook=name_of(execution.path), recipe=recipe)


def _up_to_date():
    """The ids of the course's records that are as good as new: they stay, and so do their weights."""
    from . import records, stamps

    return {record["id"] for record in records.course_records() if stamps.stale(record) is None}


def note(execution: Execution) -> None:
    """Add the full runs on MNIST of an execution to the reader's own records, which git ignores."""
    from . import records

    for record in execution.records:
        if records.is_full_mnist(record) and f"{record['id']}.safetensors" in execution.kept:  # not replayed
            records.append(record, records.mine_file())


def unacceptable(execution: Execution, record: dict) -> str | None:
    """Why a record made by an execution is none of the course's, or None."""
    name, entry = execution.path.name, catalogue.network(record["model"])
    if entry is None or entry.notebook != name_of(execution.path):
        belongs = f"belongs to {entry.notebook}" if entry else "is not in the catalogue"
        return f"{name} recorded {record['model']}, which {belongs}: a copy, or a network of your own, is not kept"
    if (record["profile"], record["dataset"]) != ("full", "mnist"):
        return f"{name}: only full runs on MNIST are kept; this was {record['profile']} {record['dataset']}"
    if f"{record['id']}.safetensors" not in execution.kept:
        return f"{name}: {record['id']} was replayed, and only trainings are kept"
    return None


def _with_outputs(execution):
    """The notebook as its file stands, with the outputs of an execution of the same code."""
    from .. import data

    if execution.error:
        raise ValueError(f"{execution.path.name} failed, so its outputs are not stored")
    if data.damaged():
        raise ValueError(f"{execution.path.name}: MNIST is not here, and only outputs on MNIST are stored")
    notebook, executed = read(execution.path), parse(execution.notebook)
    if code_digest(executed) != code_digest(notebook):
        raise ValueError(f"{execution.path.name} was changed while it ran, or ran under another seed: not stored")
    # Text and comments may have been edited meanwhile, so the code cells are paired: the digest says they are the same.
    ours, theirs = ([cell for cell in each.cells if cell.cell_type == "code"] for each in (notebook, executed))
    for cell, done in zip(ours, theirs, strict=True):
        cell.outputs = [as_seen(output) for output in _joined(done.outputs)]
        cell.execution_count = done.execution_count
    # What other tools keep in the metadata stays.
    notebook.metadata.pop("widgets", None)
    notebook.metadata |= {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "mnist_helpers": {"recipe": _recipe_digest(notebook), "code": code_digest(notebook),
                          "profile": execution.profile, "dataset": "mnist"},
    }
    return notebook


def _write(execution, notebook):
    from .. import files

    files.replace_file(execution.path, as_json(notebook) + "\n")


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


def as_seen(output):
    """A stream as a terminal shows it: of a line rewritten by carriage returns, the last version. A widget without its
    kernel: the picture that stands in its place."""
    if output.output_type == "stream":
        output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in output.text.split("\n"))
    elif "data" in output:
        output.data.pop("application/vnd.jupyter.widget-view+json", None)
    return output
