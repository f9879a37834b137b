"""Learners' copies, and updates over whatever a learner has done: real git repositories in a temporary folder."""

import json
import subprocess

import nbformat
import pytest

from mnist_helpers import __main__ as command
from mnist_helpers.course import copies, update

AS = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com", "-c", "pull.rebase=false")
FIRST, SECOND = "notebooks/01_a.ipynb", "notebooks/02_b.ipynb"


def git(folder, *arguments, check=True):
    done = subprocess.run(["git", *AS, *arguments], cwd=folder, check=check, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a change")


def write(path, *sources, shown=""):
    """A notebook with a title and code cells, each of which has shown something."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title", id="title")])
    for number, source in enumerate(sources):
        cell = nbformat.v4.new_code_cell(source, id=f"cell-{number}", execution_count=number)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{shown}{number}\n")]
        made.cells.append(cell)
    nbformat.write(made, path)


@pytest.fixture
def places(tmp_path):
    """The course and a learner's clone of it."""
    course = tmp_path / "course"
    write(course / FIRST, "a = 1", "print(a)")
    write(course / SECOND, "b = 1", "print(b)")
    (course / ".gitignore").write_text("work/\n")
    (course / "requirements.txt").write_text("torch\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "course")
    commit(course)
    git(tmp_path, "clone", "--quiet", "course", "learner")
    return course, tmp_path / "learner"


def change_course(course):
    """A release in which lesson 1 and its outputs are other ones, and a lesson is new."""
    write(course / FIRST, "a = 2", "print(a + 1)", shown="new ")
    write(course / "notebooks/03_c.ipynb", "c = 1")
    (course / "requirements.txt").write_text("torch\nnumpy\n")
    commit(course)


def edited(learner):
    write(learner / FIRST, "a = 7", "print(a)")


def ran(learner):
    write(learner / FIRST, "a = 1", "print(a)", shown="mine ")


def committed(learner):
    edited(learner)
    commit(learner)


def stashed(learner):
    ran(learner)
    git(learner, "stash")
    git(learner, "pull")
    git(learner, "stash", "pop", check=False)


def merged(learner):
    committed(learner)
    git(learner, "pull", "--no-edit", check=False)


def half_staged(learner):
    edited(learner)
    git(learner, "add", FIRST)
    ran(learner)


@pytest.mark.parametrize("did", [edited, ran, committed, stashed, merged, half_staged])
def test_whatever_a_learner_did_the_update_goes_through_and_loses_nothing(places, tmp_path, did):
    course, learner = places
    write(learner / SECOND, "b = 5")  # which the course does not change
    write(learner / "notebooks/own.ipynb", "mine = 1")
    if did in (stashed, merged):
        git(learner, "add", "notebooks/own.ipynb")
    kept = {name: (learner / name).read_bytes() for name in (SECOND, "notebooks/own.ipynb")}
    write(tmp_path / "expected.ipynb", "a = 7" if did in (edited, committed, merged) else "a = 1", "print(a)",
          shown="" if did in (edited, committed, merged) else "mine ")
    change_course(course)
    did(learner)
    said = update.update(learner)

    assert git(learner, "rev-parse", "HEAD") == git(course, "rev-parse", "HEAD")
    for name in (FIRST, "notebooks/03_c.ipynb"):
        assert (learner / name).read_bytes() == (course / name).read_bytes()
    assert {name: (learner / name).read_bytes() for name in kept} == kept
    assert git(learner, "diff", "--name-only", "--diff-filter=U") == ""
    for path in learner.rglob("*.ipynb"):
        json.loads(path.read_text(encoding="utf-8"))
    (aside,) = learner.glob(f"work/*/{FIRST}")
    assert aside.read_bytes() == (tmp_path / "expected.ipynb").read_bytes()
    assert any(FIRST in line and aside.parents[1].name in line for line in said)
    assert any("pip install -r requirements.txt" in line for line in said) == (did is not stashed)
    if did in (committed, merged):
        branch = git(learner, "branch", "--list", "before-update-*", "--format=%(refname:short)")
        assert "a = 7" in git(learner, "show", f"{branch}:{FIRST}")
    if did is half_staged:
        branch = git(learner, "branch", "--list", "before-update-*", "--format=%(refname:short)")
        assert "a = 7" in git(learner, "show", f"{branch}^2:{FIRST}"), "also what was staged alone"

    # From here on git's own pull goes through, and another update with nothing new changes nothing.
    write(course / FIRST, "a = 3")
    commit(course)
    git(learner, "pull", "--ff-only")
    assert update.update(learner) == ["nothing new"]
    assert {name: (learner / name).read_bytes() for name in kept} == kept


def test_two_updates_of_a_day_put_aside_under_two_names(places):
    course, learner = places
    for number in (4, 5):
        write(course / FIRST, f"a = {number}")
        commit(course)
        write(learner / FIRST, f"mine = {number}")
        update.update(learner)
    assert len(list(learner.glob(f"work/*/{FIRST}"))) == 2


def test_a_new_file_of_the_course_does_not_replace_a_learners_of_the_same_name(places):
    course, learner = places
    change_course(course)
    write(learner / "notebooks/03_c.ipynb", "mine = 1")
    mine = (learner / "notebooks/03_c.ipynb").read_bytes()
    update.update(learner)
    (aside,) = learner.glob("work/*/notebooks/03_c.ipynb")
    assert aside.read_bytes() == mine


@pytest.mark.parametrize("pushed", [False, True], ids=["committed", "in a fork of their own"])
def test_a_teachers_lessons_and_translations_stay(places, tmp_path, pushed):
    """Also where nothing else is in their folders, which git then removes."""
    course, teacher = places
    names = "notebooks/own/01b_mine.ipynb", "notebooks/lang/de/01_a.ipynb"
    for name in names:
        write(teacher / name, "mine = 1")
    commit(teacher)
    if pushed:
        git(tmp_path, "clone", "--quiet", "--bare", "learner", "fork.git")
        git(teacher, "remote", "rename", "origin", "upstream")
        git(teacher, "remote", "add", "origin", str(tmp_path / "fork.git"))
        git(teacher, "push", "--quiet", "--set-upstream", "origin", "main")
    kept = {name: (teacher / name).read_bytes() for name in names}
    change_course(course)
    if pushed:  # they take in the course's changes, and another machine of theirs is brought up to date
        git(teacher, "pull", "--quiet", "--no-rebase", "--no-edit", "upstream", "main")
        assert update.update(teacher) == ["nothing new"]
        git(teacher, "push", "--quiet")
        git(tmp_path, "clone", "--quiet", "fork.git", "elsewhere")
        teacher = tmp_path / "elsewhere"
        git(teacher, "reset", "--quiet", "--hard", "HEAD^")
    update.update(teacher)
    assert {name: (teacher / name).read_bytes() for name in names} == kept
    assert (teacher / FIRST).read_bytes() == (course / FIRST).read_bytes()


def test_what_cannot_be_updated_is_said_and_nothing_changes(places, monkeypatch, capsys, tmp_path):
    course, learner = places
    change_course(course)
    edited(learner)
    mine = (learner / FIRST).read_bytes()
    monkeypatch.setattr(command, "ROOT", learner)
    for broken, mended in ((("checkout", "--detach"), ("checkout", "main")),
                           (("branch", "--unset-upstream"), ("branch", "--set-upstream-to", "origin/main")),
                           (("remote", "set-url", "origin", str(tmp_path / "nowhere")), ("remote", "set-url", "origin", str(course)))):
        git(learner, *broken)
        assert command.main(["update"]) == 1 and len(capsys.readouterr().err.splitlines()) >= 1
        assert (learner / FIRST).read_bytes() == mine and not (learner / "work").exists()
        git(learner, *mended)
    assert command.main(["update"]) == 0 and FIRST in capsys.readouterr().out


def test_copies_follow_the_course_until_somebody_changes_them(places):
    course, learner = places
    (learner / "notebooks/words.md").write_text("words")
    commit(learner)
    assert copies.make(learner) and copies.make(learner) == []
    first, second, words = (learner / "work" / name for name in ("01_a.ipynb", "02_b.ipynb", "words.md"))
    title = nbformat.read(first, as_version=4).cells[0].source
    assert title.endswith("# Title") and "(../notebooks/01_a.ipynb)" in title and words.read_text() == "words"
    assert git(learner, "status", "--porcelain") == ""

    # Opened and saved without a change; run; and then the course changes.
    opened = json.loads(second.read_bytes())
    opened["metadata"]["language_info"] = {"name": "python", "version": "3.13.1"}
    opened["cells"][1]["metadata"]["trusted"] = True
    second.write_text(json.dumps(opened))
    write(first, "a = 1", "print(a)", shown="mine ")
    mine = first.read_bytes()
    for number in (1, 2):
        write(course / f"notebooks/0{number}_{'ab'[number - 1]}.ipynb", "new = 1")
    commit(course)
    said = update.update(learner)
    assert first.read_bytes() == mine and any("work/01_a.ipynb" in line for line in said)
    assert "new = 1" in second.read_text(encoding="utf-8") and not any("work/02_b" in line for line in said)
    first.rename(first.with_name("01_mine.ipynb"))
    copies.make(learner)
    assert "new = 1" in first.read_text(encoding="utf-8") and first.with_name("01_mine.ipynb").read_bytes() == mine


def test_copies_need_the_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.main(["lab"]) == 1 and "clone" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["lab", "update"])
def test_a_course_that_cannot_be_written_is_a_sentence_with_its_remedy(places, monkeypatch, capsys, typed):
    """An administrator's, for instance. Root may write anywhere, so the answer of the system is replaced."""
    course, learner = places
    change_course(course)
    before = git(learner, "rev-parse", "HEAD"), sorted(learner.rglob("*"))
    monkeypatch.setattr(command, "ROOT", learner)
    monkeypatch.setattr("os.access", lambda path, mode: learner not in (path, *path.parents))
    assert command.main([typed]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and str(learner) in said[0] and "a folder of your own" in said[0]
    assert (git(learner, "rev-parse", "HEAD"), sorted(learner.rglob("*"))) == before


def test_a_file_that_is_no_notebook_is_copied_as_it_is(places):
    _, learner = places
    odd = {"empty.ipynb": b"", "half.ipynb": b'{"cells": [', "list.ipynb": b"[]", "none.ipynb": b'{"cells": []}'}
    for name, content in odd.items():
        (learner / "notebooks" / name).write_bytes(content)
    copies.make(learner)
    assert {name: (learner / "work" / name).read_bytes() for name in odd} == odd
    assert (learner / "work" / "01_a.ipynb").exists()
