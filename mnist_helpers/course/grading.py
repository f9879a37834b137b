"""What comes back from a class: submissions executed and checked, and their runs in one histogram.

Submissions are programs of strangers. Each runs with the rights of whoever grades: it can read that person's files and
use the network, and a process that it detaches outlives it. Apart are its copy of the course with all records, its home
and temporary folder, and its environment variables, of which it gets a few. That keeps accidents apart and stops no
attacker.
"""

import csv
import io
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .. import files
from ..data import default_root, project_root
from ..stats import mean_over_seeds
from . import answers, handout, notebooks, processes

WARNING = ("Submissions are programs of strangers and run with your rights: your files and your network are open to "
           "them. Apart are records, home folder and environment variables. Grade what you do not trust in a container "
           "or under an account of its own.")
COLUMNS = ("student", "notebook", "seed", "points", "of", "wrong", "exercises", "parameters", "budget", "test_accuracy",
           "seconds", "remark")
PASSED_ON = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
MARK = "hand-in: "  # begins the line that `hand_in` prints
KEPT = ("id", "notebook", "model", "parameters", "seed", "epochs", "profile", "dataset", "test_accuracy",
        "test_correct", "test_total")
INSTALLED = ("node_modules", "site-packages", "__pycache__")
MOST_FOLDERS = 2_000
APART = 0.3  # points that somebody might announce as an improvement


def below(folder: Path, ending: str) -> list[Path]:
    """The files with an ending below a folder, in order, without those in hidden folders and in what programs install:
    ``.git``, ``node_modules``, environments of Python.

    Raises `ValueError` for a folder that holds too many others to be a class's, such as a home folder.
    """
    found = []
    for number, (parent, folders, names) in enumerate(os.walk(folder)):
        if number >= MOST_FOLDERS:
            raise ValueError(f"{folder} has more than {MOST_FOLDERS:,} folders: name the one with what your class "
                             "handed in")
        folders[:] = [each for each in folders if not each.startswith(".") and each not in INSTALLED
                      and not Path(parent, each, "pyvenv.cfg").exists()]
        found += [Path(parent, name) for name in names if name.endswith(ending)]
    return sorted(found)


# ---------------------------------------------------------------- grading


def submissions(folder: Path) -> list[tuple[Path, object, dict]]:
    """``(path, notebook, what the handout wrote into it)`` of each below a folder; others are named on stderr.

    Raises `FileNotFoundError` if there is none.
    """
    found, others = [], []
    known = {notebooks.name_of(path): path for path in [*notebooks.every(), *notebooks.own()]}
    for path in below(folder, ".ipynb"):
        try:
            notebook = notebooks.read(path)
            about = notebook.metadata["mnist_handout"]
            found.append((path, notebook, {"notebook": about["notebook"], "source": known[about["notebook"]],
                                           "student": str(about["student"]), "seed": int(about["seed"])}))
        except (ValueError, KeyError, TypeError):  # somebody else's notebook, or a damaged one
            others.append(str(path))
    if others:
        print(f"no copies made by `handout`, and left out: {', '.join(others)}", file=sys.stderr)
    if not found:
        raise FileNotFoundError(f"{folder} has no notebook made by `python -m mnist_helpers handout`")
    return found


def grade(folder: Path, limit: float = 600, workers: int = 1) -> Iterator[dict]:
    """Execute and check each submission below a folder, in the quick profile, ``workers`` at a time and each for
    ``limit`` seconds at most; yield its row of `COLUMNS`, with its records as ``"records"``."""
    root, jobs = project_root(), {}
    for path, notebook, about in submissions(folder):
        key = answers.key(about["notebook"])
        networks = [network.name for network in handout.networks_of(about["notebook"])]
        text = notebooks.as_json(prepared(notebook, about))
        jobs[path] = about, key, exercises(notebook, about)
        jobs[path] += ((str(path), text, str(root), list(key), networks, limit),)
    arguments = (job[-1] for job in jobs.values())
    for (path, *_), result in processes.each_in_a_process(execute, arguments, workers):
        about, key, edited, _ = jobs[Path(path)]
        yield row(Path(path).relative_to(folder), about, key, edited, result or {"remark": processes.KILLED})


def exercises(notebook, about) -> str:
    """The letters of the exercises whose cells were edited."""
    given = {cell.metadata["nbgrader"]["grade_id"]: cell.source for cell in handout.pupils_copy(about["source"]).cells
             if "nbgrader" in cell.metadata}
    edited = [cell.metadata["nbgrader"].get("grade_id", "") for cell in notebook.cells if "nbgrader" in cell.metadata
              and cell.source.strip() != given.get(cell.metadata["nbgrader"].get("grade_id"), "").strip()]
    return " ".join(id.removeprefix("exercise-") for id in edited if id.startswith("exercise-"))


def prepared(notebook, about):
    """A submission as it is executed: with the course's set-up and parameters, the student's seed, and without the
    cells that check, which the grader does outside."""
    original = notebooks.read(about["source"])
    notebook.cells = [cell for cell in notebook.cells if not (
        cell.metadata.get("nbgrader", {}).get("locked") or "hand_in(" in cell.source)]
    for tag in ("setup", "parameters"):
        for cell, ours in zip(notebooks.tagged(notebook, tag), notebooks.tagged(original, tag), strict=False):
            cell.source = re.sub(r"^SEED = \d+", f"SEED = {about['seed']}", ours.source, flags=re.MULTILINE)
    return notebook


def row(path: Path, about, key, edited, result) -> dict:
    """A submission's row. Each right answer is a point. A network above its budget, or with weights that are hidden
    from it, brings none."""
    told, networks = result.get("told", {}), handout.networks_of(about["notebook"])
    right = answers.compare(told.get("answers", {}), key)
    weights = {network.name: told.get("weights", {}).get(network.name) for network in networks}
    remarks = [result["remark"]] if result.get("remark") else []
    if not edited and not any(value is not None for value in right.values()):
        remarks.append("unedited")
    within = None
    for network in networks:
        if not isinstance(weights[network.name], list):
            remarks.append(f"{network.name}: {weights[network.name] or 'not weighed'}")
            continue
        registered, hidden = weights[network.name]
        fits = not hidden and (network.limit is None or registered <= network.limit)
        within = fits if within is None else within and fits
        if not fits:
            remarks.append(f"{network.name} has {registered + hidden:,} weights"
                           f"{f', {hidden:,} of them hidden' if hidden else ''}"
                           f"{f', and its budget is {network.limit:,}' if network.limit else ''}")
    record = (result.get("records") or [{}])[-1]
    own = path.parts[0] if len(path.parts) > 1 else path.stem  # the folder says who it is: anybody can edit the rest
    return {"student": about["student"] if handout.folder_of(about["student"]) == own else own,
            "notebook": about["notebook"], "seed": about["seed"],
            "points": sum(value is True for value in right.values()) if within is not False else 0, "of": len(key),
            "wrong": " ".join(name for name, value in right.items() if value is False), "exercises": edited,
            "parameters": " ".join(str(sum(value)) for value in weights.values() if isinstance(value, list)),
            "budget": {None: "unknown", True: "yes", False: "no"}[within],
            "test_accuracy": record.get("test_accuracy", ""), "seconds": round(result.get("seconds", 0)),
            "remark": "; ".join(remarks), "records": result.get("records", [])}


def write_csv(rows: list[dict], path: Path) -> None:
    """Write rows as a table. What a student wrote stays text in a spreadsheet, and becomes no formula."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({name: f"'{value}" if str(value)[:1] in ("=", "+", "-", "@") else value
                      for name, value in each.items()} for each in rows)
    files.replace_file(path, file.getvalue())


def execute(path: str, text: str, root: str, names: list[str], networks: list[str], limit: float) -> dict:
    """Run a submission in a copy of the course at ``root``; return what it ``told``, its ``records``, the ``seconds``
    it took and a ``remark``. To be called in a process of its own, whose children are ended after ``limit`` seconds."""
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

    token, started, late = secrets.token_hex(), time.perf_counter(), threading.Event()
    notebook = notebooks.parse(text, Path(path).name)
    # Asked last, of the variables that are there then.
    notebook.cells.append(handout.new_cell("code", "from mnist_helpers.course import answers as _answers\n"
                                       f"print({token!r} + _answers.told(globals(), {names!r}, {networks!r}))", "told"))

    def end():
        late.set()
        processes.end_children()

    with tempfile.TemporaryDirectory(prefix="mnist-", ignore_cleanup_errors=True) as temporary:
        environment = _apart(Path(root), Path(temporary))
        client = NotebookClient(notebook, timeout=None, kernel_name="python3", allow_errors=True,
                                config=notebooks.kernel_settings(temporary),
                                resources={"metadata": {"path": str(Path(temporary) / "course" / "notebooks")}})
        timer = threading.Timer(limit, end)
        timer.start()
        remark = ""
        try:
            client.execute(env=environment)
        except DeadKernelError:
            remark = "its kernel died (out of memory?)"
        except Exception as raised:  # whatever starting a kernel can raise
            remark = f"{type(raised).__name__}: {raised}"
        finally:
            timer.cancel()
            processes.end_children()
        told, failed = _told(notebook, token)
        records = files.read_records(Path(environment["MNIST_COLLECT"]) / "records.jsonl", {"id", "test_accuracy"})
        remark = f"over the limit of {limit:g} s" if late.is_set() else remark or failed
        return {"told": told, "records": records, "seconds": time.perf_counter() - started, "remark": remark}


def _apart(root, folder):
    """Copy the course at ``root`` into a folder, without its solutions; return the environment that keeps a kernel
    there."""
    course = folder / "course"
    shutil.copytree(Path(__file__).parents[1], course / "mnist_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks", "results"):
        shutil.copytree(root / name, course / name, ignore=shutil.ignore_patterns("solutions", "mine.jsonl", ".*"))
    (course / "pyproject.toml").write_bytes((root / "pyproject.toml").read_bytes())
    for name in ("home", "temporary", "collected"):
        (folder / name).mkdir()
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed_on | {
        "HOME": str(folder / "home"), "USERPROFILE": str(folder / "home"), "TMPDIR": str(folder / "temporary"),
        "TEMP": str(folder / "temporary"), "TMP": str(folder / "temporary"), "PYTHONPATH": str(course),
        "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "MNIST_ROOT": str(default_root().resolve()),
        "MNIST_PROFILE": "quick", "MNIST_COLLECT": str(folder / "collected"), "MNIST_CHECK": "0"}


def _told(notebook, token):
    """What the last cell printed after the token, and the first error in the notebook, in words."""
    told, failed = {}, ""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and not failed:
                failed = f"{output.ename}: {output.evalue}".split("\n")[0][:300]
            elif output.output_type == "stream" and token in output.text:
                told = json.loads(output.text.partition(token)[2])
    return told, failed


# ---------------------------------------------------------------- the histogram of a class


def hand_in(record: dict) -> None:
    """Print what `collect` reads from a notebook: a record without its images."""
    print(MARK + json.dumps({name: record[name] for name in KEPT}))


def handed_in(folder: Path) -> list[dict]:
    """The runs below a folder, each once: of `hand_in` in notebooks, and of files of records (``*.jsonl``)."""
    runs = []
    for path in below(folder, ".ipynb"):
        try:
            lines = [line for cell in notebooks.read(path).cells for output in cell.get("outputs", [])
                     for line in output.get("text", "").splitlines() if line.startswith(MARK)]
            runs += [json.loads(line.removeprefix(MARK)) for line in lines]
        except (OSError, ValueError) as error:
            print(f"left out: {path} ({error})", file=sys.stderr)
    for path in below(folder, ".jsonl"):
        runs += files.read_records(path, set(KEPT))
    return list({(run["id"], run["profile"], run["test_correct"]): run for run in runs}.values())


def collect(folder: Path) -> dict[Path, str]:
    """Draw one histogram of test accuracies for each network and profile of which a folder has two runs or more, of
    different seeds; return the line about each, by its file ``class_NETWORK_PROFILE.png`` in that folder.

    Raises `ValueError` if there are no two such runs.
    """
    groups = {}
    for run in handed_in(folder):
        same = run["model"], run["profile"], run["dataset"], run["epochs"], run["parameters"], run["test_total"]
        groups.setdefault(same, {})[run["seed"]] = 100 * run["test_accuracy"]
    said = {}
    for (model, profile, dataset, epochs, parameters, total), seeds in groups.items():
        if len(seeds) < 2:
            print(f"left out: one run of {model}, {profile}, {epochs} epochs, {parameters:,} parameters",
                  file=sys.stderr)
            continue
        line = (f"{model}, {epochs} epoch{'s' * (epochs != 1)}, {profile} profile, {total:,} test images of {dataset}: "
                f"{told_of(list(seeds.values()))}")
        path = Path(folder) / f"class_{model}_{profile}.png"
        path = path if path not in said else path.with_stem(f"{path.stem}_{epochs}_{parameters}")
        draw(list(seeds.values()), line, path)
        said[path] = line
    if not said:
        raise ValueError(f"{folder} has no two runs of one network: collect notebooks whose last cell was run, or "
                         "files results/mine.jsonl")
    return said


def told_of(values: list[float]) -> str:
    """What a class found, in words: accuracies in percent."""
    mean = mean_over_seeds(values)
    pairs = [abs(a - b) for number, a in enumerate(values) for b in values[:number]]
    far = sum(gap >= APART - 1e-9 for gap in pairs) / len(pairs)
    return (f"{len(values)} seeds, mean {mean.mean:.2f} %, standard deviation {mean.std:.2f} points, from "
            f"{min(values):.2f} to {max(values):.2f}. Of all pairs of students {far:.0%} are {APART} points or more "
            "apart, with the same network.")


def draw(values: list[float], line: str, path: Path) -> None:
    """Write the histogram as a PNG; ``line`` is its description."""
    from .. import plots

    figure, axis = plots.figure("The same network, another seed for each student", size=(7, 3.2))
    axis.hist(values, bins=max(5, round(len(values) ** 0.5) * 2), color=plots.BLUE, alpha=0.5)
    axis.plot(values, [0] * len(values), "|", color=plots.ORANGE, markersize=14, clip_on=False)
    axis.axvline(sum(values) / len(values), color=plots.GREY, linestyle=":")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set(xlabel="test accuracy (%)", ylabel="students")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Description": line})
    files.replace_file(path, file.getvalue())
