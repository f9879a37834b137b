"""Bring a learner's course up to date, whatever they edited, ran, committed or stashed in place, and lose nothing.

Files that both the learner and the course have changed are put aside, in a folder of ``work/``. Files that only the
learner has changed stay where they are. The state before, with its commits, stays as a branch. Nothing is merged: two
notebooks merged line by line are often no notebook any more.
"""

import datetime
import shutil
from pathlib import Path

from ..files import replace_file
from . import copies
from .git import answer, git, lines

INSTALL = ("requirements.txt", "pyproject.toml")


def update(root: Path) -> list[str]:
    """Fetch the branch that the checkout in ``root`` follows, and take it over; return what is to be said.

    Raises `ValueError`, with the remedy, before anything changes, where there is nothing to follow, git cannot fetch,
    or the folder cannot be written.
    """
    copies.refuse_read_only(root)
    target, base, head = _to_follow(root)
    unmerged = set(lines(root, "diff", "--name-only", "-z", "--diff-filter=U"))
    if target == head and not unmerged:
        return ["nothing new", *(copies.make(root) if copies.there(root) else [])]
    was, will = _tree(root, base), _tree(root, target)
    ours = set(lines(root, "diff", "--name-only", "-z", "--no-renames", base)) | unmerged
    theirs = {path for path in was.keys() | will.keys() if was.get(path) != will.get(path)}
    mine = {path for path, now in _on_disk(root, ours | theirs).items() if now not in (was.get(path), will.get(path))}
    said, name = [], _free_name(root)
    if mine or head != base:
        # With what is staged, where git can; its commit has the present one as a parent.
        git(root, "branch", name, answer(root, "stash", "create") or head)
        said += [f"the state before is the branch {name}"]
    folder = root / copies.FOLDER / name
    for path in mine:
        _put_aside(root, path, folder / path, path in unmerged)
    git(root, "reset", "--hard", "--quiet", target)
    for path in sorted(mine):
        if path in theirs | unmerged:
            said.append(f"put aside: {path} is in {copies.FOLDER}/{name}/")
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)  # git removed it, if nothing else was there
            shutil.copy2(folder / path, root / path)
            (folder / path).unlink()
    _remove_empty(folder)
    if target != head:
        said.append(f"the course is at: {git(root, 'show', '--no-patch', '--format=%h %s', target)}")
    if theirs & set(INSTALL):
        said.append("its requirements may have changed: type pip install -r requirements.txt")
    return said + (copies.make(root) if copies.there(root) else [])


def _to_follow(root):
    """The commit to take over, the last one that it shares with the present one, and the present one."""
    folder = Path(root, git(root, "rev-parse", "--git-dir"))
    if (folder / "rebase-merge").exists() or (folder / "rebase-apply").exists():
        raise ValueError("a rebase is under way: end it by `git rebase --abort`, then type this again")
    if not answer(root, "symbolic-ref", "--quiet", "HEAD"):
        raise ValueError("no branch is checked out: type `git switch main`, then this again")
    if not answer(root, "rev-parse", "--abbrev-ref", "@{upstream}"):
        raise ValueError("this branch follows none: type `git branch --set-upstream-to origin/main`, then this again")
    git(root, "fetch", "--quiet")
    head, new = git(root, "rev-parse", "HEAD"), git(root, "rev-parse", "@{upstream}")
    base = answer(root, "merge-base", head, new) or head
    return (head if base == new else new), base, head


def _tree(root, commit):
    """The object of each file in a commit."""
    return {path: entry.split()[2] for entry, path in (
        line.split("\t", 1) for line in lines(root, "ls-tree", "-r", "-z", commit))}


def _on_disk(root, paths):
    """The object that each of these files would be, for those that exist."""
    there = sorted(path for path in paths if (root / path).is_file())
    objects = git(root, "hash-object", "--stdin-paths", text="".join(f"{path}\n" for path in there)).split()
    return dict(zip(there, objects, strict=True))


def _free_name(root):
    """A name that neither a branch nor a folder of ``work/`` has."""
    today, number = f"before-update-{datetime.date.today()}", 1
    while (name := f"{today}-{number}") and (
            (root / copies.FOLDER / name).exists() or answer(root, "rev-parse", "--quiet", "--verify", name)):
        number += 1
    return name


def _put_aside(root, path, target, unmerged):
    target.parent.mkdir(parents=True, exist_ok=True)
    if not unmerged:
        shutil.copy2(root / path, target)
        return
    # The learner's side of a conflict; what git made of both, with its marks, beside it.
    shutil.copy2(root / path, target.with_name(f"{target.name}.conflict"))
    side = 2 if answer(root, "rev-parse", "--quiet", "--verify", "MERGE_HEAD") else 3
    if answer(root, "rev-parse", "--quiet", "--verify", f":{side}:{path}"):
        replace_file(target, f"{git(root, 'show', f':{side}:{path}')}\n")


def _remove_empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
