"""Walk notebooks as Google Colab does: its Python, its packages, one notebook alone in an empty folder.

    python tests/colab_like.py [NOTEBOOK ...] [--python python3.13] [--venv DIR]

By default it walks lesson 1. Not a part of pytest, since Colab's packages take minutes and 5 GB; ``--venv`` keeps them.

The course is cloned from this checkout's last commit, so commit first. Each notebook, as a published copy has it, runs
from top to bottom in the quick profile, then its set-up cell again. No cell may fail, the package has to come from the
clone, the set-up cell to say what it brings and to change nothing the second time, and no package but `BROUGHT` may
come, go or change. Last, the set-up cell is put into each of `TROUBLES` and has to fail with one sentence that says
what to do.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from mnist_helpers import data
from mnist_helpers.course import notebooks, publish

# Of Colab's own list for Python 3.13 (https://github.com/googlecolab/backend-info, August 2026) what the notebooks
# import and what runs them; notebook, since a newer one needs JupyterLab. Left out is what Colab has on some machines
# only, so that the set-up cell installs it.
BROUGHT = ["torchsummary", "anywidget", "psygnal"]
TORCH = ["torch==2.11.0", "torchvision==0.26.0"]
PINS = [*TORCH, "numpy==2.1.3", "matplotlib==3.10.0", "scipy==1.16.3", "scikit-learn==1.6.1", "tqdm==4.67.3",
        "filelock==3.32.3", "safetensors==0.6.2", "pillow==11.3.0", "joblib==1.5.3", "packaging==26.3",
        "ipykernel==6.17.1", "ipython==7.34.0",
        "ipywidgets==7.7.1", "notebook==6.5.7", "jupyter_client==7.4.9", "jupyter_core==5.9.1", "nbclient==0.10.4",
        "nbconvert==7.17.1", "nbformat==5.11.1", "traitlets==5.7.1", "pyzmq==26.2.1", "tornado==6.5.7", "pip==24.1.2",
        "setuptools==75.2.0"]

# What to replace in the set-up cell, by what, and settings.
TROUBLES = {
    "wrong repository": ('"https://github.com/', '"file:///nowhere/', {}),
    "wrong branch": ('"--branch", "', '"--branch", "not-', {}),
    "no network": ('"https://github.com/', '"http://127.0.0.1:9/', {}),
    "no git": ('"git"', '"no-such-git"', {}),
    "no package index": ("", "", {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nowhere"}),
}
SENTENCE = re.compile(r"RuntimeError: [^:]+: check .+, then run this cell again\.")

ADDRESS = "some-one/course"  # of the published copies
STATE = """from importlib.metadata import distributions
from pathlib import Path
def state():
    files = {str(path): path.stat().st_mtime_ns for path in Path().rglob("*")}
    return sys.path.copy(), {each.name: each.version for each in distributions()}, files
before = state()"""
COMPARE = """assert state() == before, "run a second time, the set-up cell changed something"
import json, torch, torchvision
print(json.dumps([f"torch=={torch.__version__}", f"torchvision=={torchvision.__version__}", mh.__file__]))"""


def published(path):
    """The notebook at a path as its published copy has it."""
    text, old = path.read_text(encoding="utf-8"), f"https://github.com/{notebooks.repository()}"
    return notebooks.parse(publish.stamped(path.name, text, old, ADDRESS, publish.BRANCH))


def setup_cell(notebook):
    return notebooks.tagged(notebook, "setup")[0]


def address_book(folder):
    """Settings for git under which `ADDRESS` leads to a clone, made in ``folder``, of the last commit."""
    bare = Path(folder) / "course.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", data.project_root(), bare], check=True)
    # Whichever branch is checked out here, or none.
    subprocess.run(["git", "-C", bare, "update-ref", f"refs/heads/{publish.BRANCH}", "HEAD"], check=True)
    count = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    return {"GIT_CONFIG_COUNT": str(count + 1), f"GIT_CONFIG_KEY_{count}": f"url.{bare.as_uri()}.insteadOf",
            f"GIT_CONFIG_VALUE_{count}": f"https://github.com/{ADDRESS}"}


def pip(python, *arguments):
    return set(subprocess.check_output([python, "-m", "pip", *arguments], text=True).splitlines())


def execute(python, cells, settings):
    """What was executed, or None; and the last line of what was said about it."""
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(nbformat.v4.new_notebook(cells=cells), Path(folder) / "lesson.ipynb")
        done = subprocess.run([python, "-m", "nbconvert", "--to", "notebook", "--execute", "--output", "done.ipynb",
                               "lesson.ipynb"], cwd=folder, env=os.environ | settings, capture_output=True, text=True)
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stderr).strip().splitlines() or [""]
        return None if done.returncode else nbformat.read(Path(folder) / "done.ipynb", as_version=4), said[-1]


def walk(python, path, settings):
    """What is wrong with a notebook run as on Colab, or None."""
    before = pip(python, "freeze", "--all")
    cells, again = published(path).cells, setup_cell(published(path)).source
    cells += [nbformat.v4.new_code_cell(source) for source in (STATE, again, COMPARE)]
    done, error = execute(python, cells, settings)
    if done is None:
        return error
    changed = {pin for pin in pip(python, "freeze", "--all") ^ before if pin.split("==")[0] not in BROUGHT}
    *versions, package = json.loads(done.cells[-1].outputs[-1].text)
    if changed or [version.partition("+")[0] for version in versions] != TORCH:
        return f"other packages than Colab's: {changed or versions}"
    if "/mnist-course/" not in package:
        return f"mnist_helpers is not the clone's but {package}"
    said = "".join(output.get("text", "") for output in setup_cell(done).outputs)
    return None if ADDRESS in said and " ".join(BROUGHT) in said else f"the set-up cell said {said!r}"


def trouble(python, old, new, settings):
    """What is wrong with how the set-up cell fails when ``old`` in it is ``new``, or None."""
    cell = setup_cell(published(notebooks.find()[0]))
    cell.source = cell.source.replace(old, new)
    done, said = execute(python, [cell], settings)
    return None if done is None and SENTENCE.fullmatch(said) else f"not one sentence with a remedy: {said}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", default=["01_baseline"])
    parser.add_argument("--python", default="python3.13", help="a Python 3.13 (default: the one on PATH)")
    parser.add_argument("--venv", type=Path, help="where to keep Colab's packages for the next time")
    arguments = parser.parse_args()
    paths, failed = notebooks.find(arguments.notebooks), False
    with tempfile.TemporaryDirectory() as folder:
        venv = (arguments.venv or Path(folder) / "venv").absolute()
        subprocess.run([arguments.python, "-m", "venv", venv], check=True)
        python = venv / "bin" / "python"
        pip(python, "install", "-qq", *PINS)
        settings = address_book(folder) | {"PYTHONPATH": "", "MNIST_PROFILE": "quick",
                                           "MNIST_ROOT": str(data.default_root().resolve())}
        checks = [(path.name, walk, (python, path, settings)) for path in paths]
        checks += [(name, trouble, (python, old, new, settings | more)) for name, (old, new, more) in TROUBLES.items()]
        for name, check, inputs in checks:
            pip(python, "uninstall", "-qq", "--yes", *BROUGHT)
            started = time.perf_counter()
            wrong = check(*inputs)
            result = f"BAD  {name}: {wrong}" if wrong else f"ok   {name}"
            print(f"{result}  ({time.perf_counter() - started:.0f} s)", flush=True)
            failed = failed or bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
