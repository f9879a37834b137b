"""Releases: what is refused, what is tagged, and which notebooks fit which package."""

import subprocess
import sys
from importlib.metadata import version

import project as small
import pytest
from packaging.requirements import Requirement

import mnist_helpers as mh
from mnist_helpers import __main__ as command
from mnist_helpers import checkpoint, data
from mnist_helpers import version as versions
from mnist_helpers.course import catalogue, doctor, records, release

ROOT = data.project_root()
HERE = {"python": "3.12.1", "torch": version("torch").partition("+")[0], "torchvision": "0"}


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def change(path, *pairs):
    text = path.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def keep(seed, correct, name="Good", notebook="01_good", **changes):
    made = small.record(name, notebook, id=f"{name}-s{seed}-{correct}", seed=seed, test_correct=correct,
                        test_accuracy=correct / 100, mistakes={str(image): 0 for image in range(100 - correct)}, **changes)
    records.keep(made | {"card": made["card"] | {"versions": HERE}})


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A small course in git, with records of two seeds."""
    small.make(tmp_path)
    small.settle(tmp_path, monkeypatch.setattr)
    monkeypatch.setattr(release, "project_root", lambda: tmp_path)
    for kind in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{kind}_NAME", "Tester")
        monkeypatch.setenv(f"GIT_{kind}_EMAIL", "tester@example.com")
    path = tmp_path / "notebooks" / "01_good.ipynb"
    small.write(path, small.cell('places.ready("0.5")', "setup"), small.cell("a = 1", "recipe"))
    (tmp_path / "mnist_helpers").mkdir()
    (tmp_path / "mnist_helpers" / "version.py").write_text('"""Text."""\n\n__version__ = "1.0.dev0"\n')
    (tmp_path / "CHANGELOG.md").write_text(f"# Changes\n\nWords.\n\n{release.NEXT.rstrip()}\n")
    (tmp_path / "pyproject.toml").write_text("[project.optional-dependencies]\ncourse = ['torch>=2', 'numpy>=1']\n")
    for seed in (0, 1):
        keep(seed, 90 + seed)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    commit(tmp_path)
    return tmp_path


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a change")


def refused(folder, number="1.0"):
    with pytest.raises(ValueError) as error:
        release.release(number)
    assert git(folder, "tag") == ""
    return str(error.value)


def test_a_release_and_the_next_one(course, capsys):
    assert "does not say what changed in the code" in refused(course)
    change(course / "CHANGELOG.md", ("- ...", "- The first."))
    assert "not committed: CHANGELOG.md" in refused(course)
    commit(course)
    assert command.main(["release", "1.0"]) == 0
    assert "git push origin HEAD v1.0" in capsys.readouterr().out
    assert '__version__ = "1.0"' in git(course, "show", "v1.0:mnist_helpers/version.py")
    assert 'ready(\\"1.0\\")' in git(course, "show", "v1.0:notebooks/01_good.ipynb")
    changelog = git(course, "show", "v1.0:CHANGELOG.md")
    assert "\n## 1.0, 20" in changelog and "lesson 1: new; test 90.50 over 2 seeds" in changelog
    assert not any(word in changelog for word in ("Unreleased", "numbers:"))
    assert git(course, "status", "--porcelain") == "" and git(course, "describe") != "v1.0"
    assert '__version__ = "1.1.dev0"' in (course / "mnist_helpers/version.py").read_text()

    # A number changes: it is named, and needs a reason, which stays when the file is written again.
    keep(0, 94)
    change(course / "CHANGELOG.md", ("- ...", "- More."))
    problems = "\n".join(release.prepare())
    line = "- lesson 1, test: 90.50 to 92.50, because ..."
    assert "no reason yet" in problems and line in (course / "CHANGELOG.md").read_text(encoding="utf-8")
    change(course / "CHANGELOG.md", (line, line.replace("...", "of a test")))
    assert release.prepare() == []
    commit(course)
    for number in ("1.0", "0.9", "1.1rc1", "one"):
        assert command.main(["release", number]) == 1
    assert release.release("1.1") == "v1.1"
    after = (course / "CHANGELOG.md").read_text(encoding="utf-8")
    assert after.index("Unreleased") < after.index("## 1.1") < after.index("of a test") < after.index("## 1.0")
    assert after.count("numbers:start") == 1 and after.startswith("# Changes\n\nWords.\n\n")


def test_no_release_while_a_row_is_stale_or_made_elsewhere(course, monkeypatch):
    small.write(course / "notebooks" / "01_good.ipynb", small.cell("a = 2", "recipe"))
    assert "Good-s1-91: the recipe in 01_good.ipynb has changed since" in refused(course)
    monkeypatch.setitem(HERE, "torch", "1.0")
    records.runs_file().unlink()
    checkpoint.stamps_file().unlink()
    keep(0, 90)
    assert "the records were made with 1.0" in refused(course)


def test_numbers_between_two_lists_of_records(course):
    """By hand: means over seeds, of fresh seeds once all are there, and what came and went."""
    runs = records.course_records()
    fresh = [run | {"seed": 100 + seed, "test_accuracy": 0.99} for seed, run in enumerate(runs * 5)]
    assert release.numbers(runs, runs) == []
    assert release.numbers(runs, runs + fresh[:9]) == []
    assert len(fresh) == catalogue.network("Good").fresh_seeds
    assert release.numbers(runs, runs + fresh) == ["lesson 1, test: 90.50 to 99.00, over 10 seeds instead of 2"]
    other = [small.record("Digits", "03_digits")]
    assert release.numbers(runs, other) == ["lesson 1: gone", "lesson 3: new; test 90.00 over 1 seeds"]


def test_the_constraints_hold_what_the_course_requires():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
                if not line.startswith("#"))
    for requirement in doctor.requirements():
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    named = {run["card"]["versions"]["torch"] for run in records.course_records()}
    assert pins["torch"] in named
    assert all(Requirement(f"{name}=={pin}") for name, pin in pins.items()) and "+" not in "".join(pins.values())


@pytest.mark.parametrize(("here", "wanted", "fits"), [
    ("1.2", "1.2", True), ("1.3", "1.2", True), ("1.10", "1.9", True), ("1.2.1", "1.2", True), ("1.2.dev0", "1.2", True),
    ("1.1", "1.2", False), ("1.2", "1.2.1", False), ("2.0", "1.2", False), ("2.0.dev0", "1.2", False)])
def test_a_notebook_fits_the_package_or_is_told_in_one_sentence(monkeypatch, here, wanted, fits):
    monkeypatch.setattr(versions, "__version__", here)
    if fits:
        assert mh.require(wanted) is None
        return
    with pytest.raises(RuntimeError) as error:
        mh.require(wanted)
    said = str(error.value)
    assert here in said and wanted in said and "`" in said and "\n" not in said


def test_the_version_is_the_packages_everywhere():
    assert mh.__version__ == versions.__version__
    done = subprocess.run([sys.executable, "-m", "mnist_helpers", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"mnist-helpers {mh.__version__}"
