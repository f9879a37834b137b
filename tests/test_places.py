"""The set-up cell in imitations of the places where notebooks run: without the package, without a network, without a
folder to write to, with MNIST attached; tests/colab_like.py runs whole notebooks on Colab's packages."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import colab_like
import pytest

from mnist_helpers import data, download, places
from mnist_helpers.course import notebooks, publish

# Run with -S, so that nothing finds the course as it is installed here; its requirements are found all the same.
PACKAGES = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
START = f"import sys\nsys.path += {PACKAGES}\n"
OFFLINE = colab_like.TROUBLES["no network"][:2]
# What places set, and nothing may depend on.
VARIABLES = {"Colab": {"COLAB_RELEASE_TAG": "release"}, "Kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"},
             "Binder": {"BINDER_SERVICE_HOST": "10.0.0.1"}, "SageMaker": {"AWS_DEFAULT_REGION": "us-east-2"},
             "Paperspace": {"PAPERSPACE_FQDN": "x"}, "Codespaces": {"CODESPACES": "true"}, "anywhere": {}}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Settings under which the published copies' address leads to a clone of the last commit."""
    if not (data.project_root() / ".git").exists():
        pytest.skip("needs a checkout with its history")
    return colab_like.address_book(tmp_path_factory.mktemp("address"))


@pytest.fixture(scope="module")
def set_up():
    """The set-up cell of a published copy."""
    return colab_like.setup_cell(colab_like.published(notebooks.find()[0])).source


@pytest.fixture
def here(tmp_path):
    """The folder that a place starts a notebook in."""
    folder = tmp_path / "working"
    folder.mkdir()
    return folder


@pytest.fixture
def enforced():
    """A command before a command, under which permissions hold for root, too."""
    if os.name == "nt":
        pytest.skip("folders have other permissions on Windows")
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]


def run(code, folder, settings=None, before=()):
    """The finished process of some code, started in ``folder``, whose home is beside it."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    unset = {"PYTHONPATH", "MNIST_ROOT"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run([*before, sys.executable, "-S", "-c", START + code], cwd=folder, text=True, capture_output=True,
                          env=environment | {"HOME": str(home), "USERPROFILE": str(home)} | (settings or {}))


def course_at(folder):
    """What the set-up needs of the course, in a folder."""
    shutil.copytree(data.project_root() / "mnist_helpers", folder / "mnist_helpers",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").touch()
    return folder


def attach(folder):
    """Stand-ins for MNIST's files under names of Kaggle's copies, one of them compressed; their contents by name."""
    folder.mkdir(parents=True)
    contents = {name: name.encode() for name in download.FILES}
    first, second, *others = contents
    (folder / first.replace("-idx", ".idx")).write_bytes(contents[first])
    (folder / f"{second}.gz").write_bytes(gzip.compress(contents[second]))
    for name in others:
        (folder / name).mkdir()
        (folder / name / name.replace("-idx", ".idx")).write_bytes(contents[name])
    return contents


def files(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*")}


# ---------------------------------------------------------------- the package


def test_it_brings_the_package_and_changes_nothing_the_second_time(here, address, set_up):
    code = "\n".join([set_up, "import mnist_helpers as mh", colab_like.STATE, "print('again')", set_up,
                      "assert state() == before", "print(mh.__file__)"])
    done = run(code, here, address | VARIABLES["Colab"])
    assert done.returncode == 0, done.stderr
    first, _, second = done.stdout.partition("again\n")
    assert colab_like.ADDRESS in first, "it says what it does"
    assert second.splitlines() == [str(here / "mnist-course" / "mnist_helpers" / "__init__.py")]
    # After a restart of the runtime the clone is still there, and no network is needed.
    assert run(f"{set_up.replace(*OFFLINE)}\nimport mnist_helpers", here).returncode == 0


def test_half_a_clone_is_not_taken_for_the_course(here, address, set_up, tmp_path):
    """A clone that was killed is made anew; a folder that has the course's name but not the course is named, and kept."""
    if os.name == "nt":
        pytest.skip("the program that stands in for git is a shell script")
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text('#!/bin/sh\nfor into; do :; done\nmkdir -p "$into/mnist_helpers" && touch "$into/mnist_helpers/places.py"\n'
                   "exit 137\n", encoding="utf-8")
    git.chmod(0o755)
    done = run(set_up, here, {"PATH": f"{git.parent}{os.pathsep}{os.environ['PATH']}"})
    assert colab_like.SENTENCE.fullmatch(done.stderr.splitlines()[-1]) and len(list(here.iterdir())) == 1
    done = run(set_up, here, address)
    assert done.returncode == 0 and (here / "mnist-course" / "tests").is_dir(), done.stderr

    shutil.rmtree(here / "mnist-course")
    (here / "mnist-course").mkdir()
    (here / "mnist-course" / "notes.txt").touch()
    done = run(set_up, here, address)
    assert colab_like.SENTENCE.fullmatch(said := done.stderr.splitlines()[-1]) and str(here / "mnist-course") in said
    assert (here / "mnist-course" / "notes.txt").exists()


@pytest.mark.parametrize("trouble", colab_like.TROUBLES)
def test_each_trouble_is_told_in_one_sentence_every_time(here, address, set_up, trouble):
    old, new, more = colab_like.TROUBLES[trouble]
    assert old in set_up
    twice = f"""
cell = {set_up.replace(old, new)!r}
sys.modules["torchsummary"] = None
try:
    exec(cell)
except RuntimeError:
    exec(cell)  # a second try is not to pass in silence
"""
    done = run(twice, here, address | more)
    assert done.returncode == 1
    assert colab_like.SENTENCE.fullmatch(done.stderr.splitlines()[-1]), done.stderr
    assert trouble != "no network" or "Kaggle: Settings, Internet" in done.stderr


def test_nothing_is_cloned_from_a_placeholder(here):
    cell = colab_like.setup_cell(notebooks.read(notebooks.find()[0])).source
    owner = re.search("https://github.com/([^/]+)/", cell)[1]
    assert not publish.OWNER.fullmatch(owner), "nobody may come to hold an account of this name"
    done = run(cell, here)
    assert colab_like.SENTENCE.fullmatch(done.stderr.splitlines()[-1]) and not any(here.iterdir())


@pytest.mark.parametrize("place", VARIABLES)
def test_a_checkout_around_the_notebook_is_taken_as_it_is(here, set_up, place):
    """As in a codespace, in VS Code, on a hub that pulls with git: the package lies above the notebook."""
    course = course_at(here / "course")
    (course / "notebooks" / "challenges").mkdir(parents=True)
    done = run(f"{set_up}\nimport mnist_helpers\nprint(mnist_helpers.__file__)", course / "notebooks" / "challenges",
               VARIABLES[place])
    assert done.stdout.splitlines() == [str(course / "mnist_helpers" / "__init__.py")], done.stderr


def test_where_the_folder_cannot_be_written_the_clone_goes_home(here, address, set_up, enforced):
    here.chmod(0o555)
    done = run(f"{set_up}\nimport mnist_helpers\nprint(mnist_helpers.__file__)", here, address, enforced)
    assert done.stdout.splitlines()[-1].startswith(str(here.parent / "home")), done.stderr


# ---------------------------------------------------------------- MNIST, and somewhere to keep it


def test_a_read_only_course_leaves_mnist_to_the_home_folder(here, set_up, enforced):
    course = course_at(here / "course")
    before = files(course)
    for path in [course, *course.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = run(f"{set_up}\nimport os; print(os.environ['MNIST_ROOT'])", course, before=enforced)
    assert done.stdout.splitlines()[-1].startswith(str(here / "home")), done.stderr
    assert files(course) == before
    # Whoever runs the hub says where the one set of data is.
    done = run(f"{set_up}\nimport os; print(os.environ['MNIST_ROOT'])", course, {"MNIST_ROOT": "/shared"}, enforced)
    assert done.stdout == "/shared\n", done.stderr


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_attached_is_found_without_a_network(here, set_up, read_only, request):
    """As on Kaggle: the course and MNIST as inputs, which cannot be written, beside the folder of the notebook."""
    contents = attach(here.parent / "input" / "mnist-dataset")
    course = course_at(here.parent / "input" / "the-course" / "mnist-course" if read_only else here / "mnist-course")
    before = []
    if read_only:
        before = request.getfixturevalue("enforced")
        course.chmod(0o555)
    code = "\nprint(os.environ.get('MNIST_ROOT'))\nprint('again')\n"
    done = run(set_up.replace(*OFFLINE) + code + set_up, here, VARIABLES["Kaggle"], before)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("again\n")
    root = first.splitlines()[-1]
    assert root.startswith(str(here.parent / "home")) if read_only else root == "None"
    raw = (Path(root) if read_only else course / "data") / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == contents
    assert "MNIST" in first and second == ""


def test_mnist_that_is_there_is_left_alone(here, tmp_path, monkeypatch):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in download.FILES:
        (raw / name).write_bytes(b"mine")
    attach(tmp_path / "input" / "mnist")
    monkeypatch.chdir(here)
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    places._bring_mnist(tmp_path)
    assert {path.read_bytes() for path in raw.iterdir()} == {b"mine"} and "MNIST_ROOT" not in os.environ
    assert set(places.MNIST) == set(download.FILES)


# ---------------------------------------------------------------- packages


def test_a_bare_kernel_is_told_what_to_install_and_from_which_file(here, set_up):
    course = course_at(here / "course")
    done = run(f"sys.path[-{len(PACKAGES)}:] = []\n{set_up}", course)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f'%pip install -r "{course / "requirements.txt"}"' in last and "torch" in last


def test_small_packages_are_brought_from_wheels_where_there_are_some(tmp_path, monkeypatch, capsys):
    calls, missing = [], ["torchsummary"]
    monkeypatch.setattr(places, "lacking", lambda names: [name for name in names if name in missing])
    monkeypatch.setattr(places.subprocess, "run", lambda command: calls.append(command) or missing.clear() or
                        subprocess.CompletedProcess(command, 0))
    places._bring_packages(tmp_path)
    missing.append("anywidget")
    (tmp_path / "wheels").mkdir()
    places._bring_packages(tmp_path)
    assert "torchsummary" in calls[0] and "--no-index" not in calls[0] and "anywidget" in capsys.readouterr().out
    assert calls[1][-4:] == ["--no-index", "--find-links", str(tmp_path / "wheels"), "anywidget"]
    places._bring_packages(tmp_path)
    assert len(calls) == 2
