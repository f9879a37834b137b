"""What imports what: two floors, the course's above the lessons', and no way back up."""

import ast
import json
import subprocess
import sys
import tomllib
import types

import pytest

import mnist_helpers
from mnist_helpers import data
from mnist_helpers.course import doctor

ROOT = data.project_root()
PACKAGE = ROOT / "mnist_helpers"
# What a lesson uses, in the order the data walks through it: each module imports only modules before it.
FLAT = ["version", "files", "places", "download", "data", "augment", "device", "loader", "recipe", "checkpoint", "measure", "check",
        "run", "train", "cpu", "optim", "layers", "diagram", "stats", "words", "figures", "plots", "idea"]
COURSE = ["catalogue", "processes", "notebooks", "networks", "stamps", "records", "second_test", "table", "tables", "ideas", "claims", "plan", "ledger", "pages", "study",
          "verify", "git", "publish", "copies", "update", "release", "doctor", "draw", "live", "explain", "pieces", "answers", "contents", "glossary",
          "site", "handout", "grading", "slides", "translate", "gift", "bundle", "paper"]
SHOWN = {"answers", "draw", "grading", "ideas", "networks", "records", "second_test", "tables"}  # the few functions of the course that lessons show


def imports(path):
    """``(first name, None)`` of each import from outside; ``(floor, name)`` of each from this package, where the floor is
    "" or "course"."""
    floor = "course" if path.parent.name == "course" else ""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], None
        elif isinstance(node, ast.ImportFrom):
            start = floor if node.level == 1 else ""
            names = node.module.split(".") if node.module else None
            for parts in [names] if names else [[alias.name] for alias in node.names]:
                inside = parts[0] == "course" and not start
                rest = parts[1:] or [alias.name for alias in node.names] if inside else parts
                yield from (("course" if inside else start, name) for name in (rest if inside else rest[:1]))


def own(path):
    return {found for found in imports(path) if found[1] is not None}


def test_every_module_is_listed():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*FLAT, "__init__", "__main__"}
    assert {path.stem for path in PACKAGE.glob("course/*.py")} == {*COURSE, "__init__"}
    packages = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in PACKAGE.rglob("__init__.py")}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert set(settings["packages"]) == packages, "an installation has every folder"
    data_files = {path for package, patterns in settings["package-data"].items() for pattern in patterns
                  for path in (ROOT / package.replace(".", "/")).glob(pattern)}
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert others == data_files


def test_type_checkers_follow_an_editable_install(tmp_path):
    """pyright, on a script outside the repository."""
    pytest.importorskip("pyright", reason="needs pip install pyright")
    script = tmp_path / "script.py"
    script.write_text("""
import torch
import mnist_helpers as mh
mnist = mh.load_mnist()
model = torch.nn.Linear(784, 10)
run = mh.fit(model, mh.Loader(mnist.train), mnist.val, epochs=1, optimizer=torch.optim.Adam(model.parameters()))
reveal_type(run.history)
reveal_type(mh.evaluate(run.model, mnist.val).accuracy)
mh.fit(model)
mh.fitt
""".lstrip(), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if not done.stdout:
        pytest.skip(f"pyright could not be fetched: {done.stderr[-200:]}")
    found = [(each["range"]["start"]["line"] + 1, each["severity"], each["message"].split('"')[-2])
             for each in json.loads(done.stdout)["generalDiagnostics"]]
    assert found == [(6, "information", "dict[str, list[float]]"), (7, "information", "float"),
                     (8, "error", "optimizer"), (9, "error", "mnist_helpers")]


def test_type_checkers_see_what_python_finds():
    """The imports in `__init__` that only they read, beside what `__getattr__` looks up."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(node.module or "", alias.name) for node in block.body for alias in node.names if alias.asname == alias.name}
    assert seen == {(room, name) for room, names in mnist_helpers.SHOWN.items() for name in names} | {
        ("", room) for room in mnist_helpers.ROOMS}


def test_a_star_import_replaces_nothing_of_torch():
    scope = {}
    exec("from torch import nn, optim\nimport torch.nn.functional as F\nfrom mnist_helpers import *", scope)
    assert scope["optim"].__name__ == "torch.optim" and callable(scope["fit"]) and callable(scope["summary"])
    assert not any(isinstance(scope[name], types.ModuleType) for name in mnist_helpers.__all__)


@pytest.mark.parametrize("name", FLAT)
def test_what_lessons_use_knows_only_rooms_before_it(name):
    assert own(PACKAGE / f"{name}.py") <= {("", other) for other in FLAT[: FLAT.index(name)]}


def test_lessons_see_only_records_and_tables_of_the_course():
    above = {name for floor, name in own(PACKAGE / "__init__.py") if floor == "course"}
    assert above <= SHOWN


@pytest.mark.parametrize("name", COURSE)
def test_the_course_imports_downwards_and_from_itself(name):
    allowed = {("", other) for other in FLAT} | {("course", other) for other in COURSE}
    assert own(PACKAGE / "course" / f"{name}.py") <= allowed


def test_every_import_from_outside_is_required():
    names = {"sklearn": "scikit-learn", "PIL": "pillow"}
    outside = {name for path in PACKAGE.rglob("*.py") for name, inner in imports(path) if inner is None}
    required = {requirement.name for requirement in doctor.requirements()}
    assert {names.get(name, name) for name in outside - sys.stdlib_module_names} - required == {
        "jupyter_client", "jupyter_core",  # come with ipykernel
        "nbclient",  # comes with papermill
        "nbconvert",  # comes with jupyterlab
        "traitlets",  # comes with anywidget
        "distributed",  # optional, for studies on a cluster
        "myst_nb", "sphinx", "sphinx_book_theme",  # optional, for the site
    }


def test_importing_the_package_has_no_side_effect(tmp_path):
    code = "import os, torch; state = torch.get_rng_state(); import mnist_helpers, mnist_helpers.course.networks; " \
           "assert torch.equal(state, torch.get_rng_state()); print(os.listdir('.'))"
    done = subprocess.run([sys.executable, "-W", "error::UserWarning:mnist_helpers", "-c", code], cwd=tmp_path,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_a_process_that_runs_a_notebook_waits_for_neither_torch_nor_a_grammar():
    code = "import sys; from mnist_helpers.course import notebooks, records; import papermill; " \
           "print({'torch', 'lark'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_a_missing_package_is_named_with_the_remedy(tmp_path):
    for code in ("import mnist_helpers as mh; mh.fit", "import runpy; sys.argv = ['', 'data']; "
                 "runpy.run_module('mnist_helpers', run_name='__main__')"):
        done = subprocess.run([sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {code}"],
                              cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1 and "pip install -r requirements.txt" in done.stderr.splitlines()[-1]
