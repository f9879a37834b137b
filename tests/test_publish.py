"""Copies with an address, and forks that take in changes: real git repositories in a temporary folder."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mnist_helpers import __main__ as command
from mnist_helpers.course import notebooks, publish

ROOT = Path(__file__).parents[1]
NAMES = ["README.md", "pyproject.toml", ".github/workflows/stamp.yml", "mnist_helpers/__init__.py",
         "notebooks/01_baseline.ipynb", "notebooks/challenges/one_epoch.ipynb"]
AS = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")


def git(folder, *arguments):
    return subprocess.run(["git", *AS, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder, message="a change"):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def course(tmp_path):
    """A repository with a few of the course's files, and an origin."""
    folder = tmp_path / "course"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", "course")
    commit(folder)
    git(folder, "remote", "add", "origin", "https://github.com/up-stream/course.git")
    return folder


def published(folder, name):
    return git(folder, "show", f"published:{name}") + "\n"


def test_published_copies_bear_the_address_and_the_release(course, capsys, monkeypatch):
    monkeypatch.setattr(command, "ROOT", course)
    assert command.main(["publish", "git@github.com:some-one/my.course.git"]) == 0
    for name in NAMES[-2:]:
        before = notebooks.read(course / name)
        after = notebooks.parse(published(course, name))
        buttons = after.cells[0].source.splitlines()[0]
        assert f"(https://colab.research.google.com/github/some-one/my.course/blob/published/{name})" in buttons
        assert f"?src=https://github.com/some-one/my.course/blob/published/{name})" in buttons  # Kaggle
        assert f"(https://mybinder.org/v2/gh/some-one/my.course/published?urlpath=lab/tree/{name})" in buttons
        assert "(https://codespaces.new/some-one/my.course?" in buttons and len(publish.BUTTONS) == 4
        assert after.cells[0].source.endswith(before.cells[0].source) and after.cells[2:] == before.cells[2:]
        assert notebooks.code_digest(after) == notebooks.code_digest(before)
        setup = notebooks.tagged(after, "setup")[0].source
        assert '"--branch", "published", "https://github.com/some-one/my.course"]' in setup
    assert "git clone https://github.com/some-one/my.course mnist-course" in published(course, "README.md")
    assert "(https://some-one.github.io/my.course/)" in published(course, "README.md")
    assert "OWNER/" not in published(course, "pyproject.toml")
    assert git(course, "ls-tree", "-r", "--name-only", "published").split() == sorted(set(NAMES) - {NAMES[2]})
    assert git(course, "status", "--porcelain") == "" and git(course, "branch", "--show-current") == "main"

    # A second time changes nothing; a release is what its copies bring, and the branch only ever grows.
    first = git(course, "rev-parse", "published")
    capsys.readouterr()
    assert publish.publish(course, "some-one/my.course") is None and git(course, "rev-parse", "published") == first
    for tag in ("v1.9", "v1.10", "other"):
        git(course, "tag", tag)
    second = publish.publish(course, "some-one/my.course")
    assert '\\"--branch\\", \\"v1.10\\", \\"https' in published(course, NAMES[-1])
    assert git(course, "rev-parse", f"{second}^") == first
    # After the release, main is not what they bring, and an older commit can be published.
    change(course / "README.md", "Seven", "Many")
    commit(course)
    publish.publish(course, "some-one/my.course", "v1.9")
    assert "Seven" in published(course, "README.md") and '"v1.10\\"' in published(course, NAMES[-1])


@pytest.mark.parametrize("first", ["fork", "upstream"])
def test_a_fork_takes_in_changes_without_a_conflict(course, tmp_path, first):
    """Whoever published first, and whatever changed meanwhile."""
    git(tmp_path, "clone", "--quiet", str(course), "fork")
    fork = tmp_path / "fork"
    both = [(fork, "some-one/fork"), (course, "up-stream/course")]
    for folder, address in both if first == "fork" else both[::-1]:
        publish.publish(folder, address)
    change(course / NAMES[-1], "mnist", "MNIST")
    change(course / "README.md", "Seven", "Many")
    commit(course)
    publish.publish(course, "up-stream/course")
    change(fork / "notebooks/01_baseline.ipynb", "A baseline", "Our baseline")
    commit(fork)
    git(fork, "pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")
    assert git(fork, "status", "--porcelain") == ""
    publish.publish(fork, "some-one/fork")
    copy = published(fork, "notebooks/01_baseline.ipynb")
    assert "Our baseline" in copy and "some-one/fork" in copy and "up-stream" not in copy
    for path in fork.rglob("*.ipynb"):
        json.loads(path.read_text(encoding="utf-8"))


def test_addresses_are_taken_as_people_copy_them():
    for address in ("a-b/c.d", "https://github.com/a-b/c.d", "https://github.com/a-b/c.d.git", "http://github.com/a-b/c.d/",
                    "git@github.com:a-b/c.d.git", "ssh://git@github.com/a-b/c.d.git", "https://me:x@github.com/a-b/c.d"):
        assert publish.parsed(address) == "a-b/c.d"
    for address in ("OWNER/mnist-course", "-OWNER-/mnist-course", "a/.git", "a/b.git.git", "a/b.GIT",
                    "../..", "-a/-b", "a-/b", "a--b/c", "a/..", "a", "a/b/c", "a b/c", "ä/b", "",
                    "https://example.com/a/b", "a" * 40 + "/b", "a/b;c"):
        with pytest.raises(ValueError):
            publish.parsed(address)


def test_publish_takes_gits_origin_and_says_what_git_refuses(course, capsys, monkeypatch):
    assert publish.publish(course) and "up-stream/course" in published(course, "README.md")
    monkeypatch.setattr(command, "ROOT", course)
    assert command.main(["publish", "--commit", "nothing"]) == 1
    git(course, "remote", "remove", "origin")
    assert command.main(["publish"]) == 1
    assert "nothing" in (said := capsys.readouterr().err) and "OWNER/NAME" in said
