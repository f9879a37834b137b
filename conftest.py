"""Settings for every test: the quick profile unless MNIST_PROFILE says otherwise, a hard limit for each cell, floors
checked, and in the recorded profile the stored outputs of the cells tagged ``recorded`` compared."""

import ast
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
# A recorded training that is replayed takes moments; a cell that trains it again is over its time, and fails.
SECONDS_PER_CELL = {"quick": 300, "recorded": 300, "full": 7200}
NBVAL_DEFAULT = 2000
# tests/test_solutions.py runs them; translated ones have the same code.
APART = ("notebooks/own", "notebooks/lang")
collect_ignore_glob = ["notebooks/solutions/*", "notebooks/lang/*/solutions/*"]


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        refuse_another_package()
    # Kernels started by nbval inherit these.
    profile = os.environ.setdefault("MNIST_PROFILE", "quick")
    os.environ.setdefault("MNIST_CHECK", "1")
    if getattr(config.option, "numprocesses", None):  # workers that each take every core wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Own ideas are tried anew in each session, and leave the reader's log alone.
    config.ideas = tempfile.TemporaryDirectory(prefix="mnist-ideas-")
    os.environ["MNIST_IDEAS"] = config.ideas.name
    if getattr(config.option, "nbval_cell_timeout", None) == NBVAL_DEFAULT:
        config.option.nbval_cell_timeout = SECONDS_PER_CELL.get(profile, NBVAL_DEFAULT)


def refuse_another_package():
    """Two clones may share an environment: tests would be of this one, and the notebooks' kernels use the other."""
    code = "import importlib.util as u; s = u.find_spec('mnist_helpers'); print(ascii(s.origin) if s else repr(''))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "notebooks", capture_output=True, text=True)
    found = Path(ast.literal_eval(said.stdout or "''")).resolve().parent
    if found != ROOT / "mnist_helpers":
        raise pytest.UsageError(f"notebooks find mnist_helpers in {found}, and these tests are of "
                                f'{ROOT / "mnist_helpers"}: run `"{sys.executable}" -m pip install -e "{ROOT}"`')


def pytest_ignore_collect(collection_path, config):
    """What a learner puts into ``notebooks/`` is none of the course's tests, unless it is named."""
    inside = collection_path.suffix == ".ipynb" and collection_path.is_relative_to(ROOT / "notebooks")
    if not inside or any(collection_path.is_relative_to(ROOT / folder) for folder in APART):
        return None
    named = [(config.invocation_params.dir / each.partition("::")[0]).resolve() for each in config.args]
    return True if collection_path not in (*of_the_course(), *named) else None


@functools.cache
def of_the_course():
    from mnist_helpers.course import notebooks

    return notebooks.every()


@functools.cache
def own_runs():
    from mnist_helpers.course import notebooks

    return notebooks.own_runs()


def pytest_collection_modifyitems(items):
    """Have nbval compare what cells tagged ``recorded`` show: the course's records, whatever the processor. And put
    the longest file first.

    On the digits sample nothing is replayed, and nothing compares. A teacher's own lessons, translations and what was
    run in place are executed, and not compared.
    """
    for item in items:
        path = item.callspec.params.get("path") if hasattr(item, "callspec") else None
        if path in own_runs():
            item.add_marker(pytest.mark.skip(reason=f"{path.name} was saved with a run of your own"))
    cells = [item for item in items if hasattr(item, "cell")]
    if os.environ["MNIST_PROFILE"] == "recorded":
        from mnist_helpers import data

        for item in [] if data.damaged() else cells:
            if "recorded" in item.cell.metadata.get("tags", []):
                item.options["check"] = True
    for item in cells:
        if item.path in own_runs() or any(item.path.is_relative_to(ROOT / folder) for folder in APART):
            item.options["check"] = False
    # The longest file first: in its place by the alphabet, one worker would end alone with it.
    items.sort(key=lambda item: item.path.name != "test_solutions.py")


def pytest_terminal_summary(terminalreporter):
    for path in own_runs():
        name = path.relative_to(ROOT).as_posix()
        terminalreporter.write_line(f"{name} was saved with a run of your own, and is not compared. To have the "
                                    f"course's again: copy yours elsewhere, then `git restore {name}`")
