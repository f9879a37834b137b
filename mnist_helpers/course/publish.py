"""Copies of the course that bear its address on GitHub, on a branch of their own: ``published``.

The main branch bears no address but a placeholder that is no valid account, so that a fork can take in changes without
a conflict. What a reader opens on Colab is the copy: buttons above the notebook's title, and a set-up cell that brings
the package of the very release. All is done with git and Python's standard library, on git's objects: no file of the
checkout changes.
"""

import json
import re
import tempfile
import tomllib
from pathlib import Path

from .git import git, lines

ADDRESS = re.compile(r"(?:https?://(?:[^@/]+@)?(?:www\.)?github\.com/|(?:ssh://)?git@github\.com[:/])?"
                     r"([^/\s:]+)/([^/\s:]+?)(?:\.git)?/?")
# What GitHub takes: letters, digits and single hyphens inside; names of repositories have dots and underscores, too,
# and no .git at their end.
OWNER = re.compile(r"(?=.{1,39}$)[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
NAME = re.compile(r"(?!\.{1,2}$)(?!-)(?!(?i:.*\.git$))[\w.-]{1,100}", re.ASCII)
PLACEHOLDER, BRANCH = "-OWNER-", "published"
# The buttons above the title of a notebook at ``path``. A codespace is made from the default branch.
BUTTONS = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{address}/blob/{branch}/{path})",
    "[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
    "(https://kaggle.com/kernels/welcome?src=https://github.com/{address}/blob/{branch}/{path})",
    "[![Launch Binder](https://mybinder.org/badge_logo.svg)]"
    "(https://mybinder.org/v2/gh/{address}/{branch}?urlpath=lab/tree/{path})",
    "[![Open in GitHub Codespaces](https://github.com/codespaces/badge.svg)]"
    "(https://codespaces.new/{address}?quickstart=1)",
)
RELEASE = re.compile(r'(?<=\\"--branch\\", \\")[\w./-]+(?=\\")')  # in the set-up cell, as JSON has it


def parsed(address: str) -> str:
    """``OWNER/NAME`` of an address as people copy it: with https or ssh, with or without ``.git``.

    Raises `ValueError` for anything that is no address on GitHub.
    """
    found = ADDRESS.fullmatch(address.strip())
    owner, name = found.groups() if found else ("", "")
    if not OWNER.fullmatch(owner) or not NAME.fullmatch(name) or owner == "OWNER":  # as the help has it
        raise ValueError(f"{address!r} is no address of a repository: give OWNER/NAME, as in https://github.com/OWNER/NAME")
    return f"{owner}/{name}"


def origin(root: Path) -> str:
    """The address that git fetches this checkout from. Raises `ValueError` if there is none."""
    try:
        return git(root, "remote", "get-url", "origin")
    except ValueError as error:
        raise ValueError("git knows no origin of this folder: give the address, OWNER/NAME") from error


def publish(root: Path, address: str | None = None, commit: str = "HEAD") -> str | None:
    """Commit the course as ``commit`` has it, with an address (by default `origin`), to the branch `BRANCH` of the
    repository in ``root``. Return the new commit, or None if the branch has these very files already.

    Set-up cells bring the release: the newest tag ``v...`` of this commit, or the branch where there is none. Raises
    `ValueError` for what is no address, or what git refuses.
    """
    new, source = parsed(address or origin(root)), git(root, "rev-parse", f"{commit}^{{commit}}")
    tags = git(root, "tag", "--points-at", source, "--list", "v*", "--sort=version:refname").split()
    old = tomllib.loads(git(root, "show", f"{source}:pyproject.toml"))["project"]["urls"]["repository"]
    files = lines(root, "ls-tree", "-r", "--name-only", "-z", source)
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", source, **index)
        # Without the workflows: they are for the main branch, and GitHub lets no workflow push one.
        git(root, "rm", "-r", "--cached", "--quiet", "--ignore-unmatch", ".github", **index)
        for path in files:
            if path.endswith(".ipynb") or path in ("pyproject.toml", "README.md"):
                text = git(root, "show", f"{source}:{path}") + "\n"
                blob = git(root, "hash-object", "-w", "--stdin",
                           text=stamped(path, text, old, new, tags[-1] if tags else BRANCH))
                git(root, "update-index", "--cacheinfo", f"100644,{blob},{path}", **index)
        tree = git(root, "write-tree", **index)
    known = git(root, "for-each-ref", "--format=%(objectname)", f"refs/heads/{BRANCH}", f"refs/remotes/origin/{BRANCH}")
    before = known.split()[:1]
    if before and git(root, "rev-parse", f"{before[0]}^{{tree}}") == tree:
        git(root, "update-ref", f"refs/heads/{BRANCH}", before[0])
        return None
    message = f"{tags[-1] if tags else source[:10]}, for https://github.com/{new}"
    # In the name of who made the commit: so that a workflow needs none.
    name, email = git(root, "show", "--no-patch", "--format=%an%n%ae", source).split("\n")
    made = git(root, "commit-tree", tree, "-m", message, *(part for parent in before for part in ("-p", parent)),
               GIT_AUTHOR_NAME=name, GIT_AUTHOR_EMAIL=email, GIT_COMMITTER_NAME=name, GIT_COMMITTER_EMAIL=email)
    git(root, "update-ref", f"refs/heads/{BRANCH}", made)
    return made


def stamped(path: str, text: str, old: str, new: str, release: str) -> str:
    """The text of a file of the course with an address in place of ``old``; of a notebook, with its buttons, and with
    ``release`` as what its set-up cell brings."""
    text = re.sub(rf"{re.escape(old)}(?=\.git\b|(?![\w-]|\.\w))", f"https://github.com/{new}", text)
    # GitHub finds the site by itself only on its own pages.
    text = text.replace("../../deployments/github-pages", re.sub("(.+)/(.+)", r"https://\1.github.io/\2/", new))
    if not path.endswith(".ipynb"):
        return text
    notebook = json.loads(RELEASE.sub(release, text))
    first = notebook["cells"][0]
    # Only a notebook with a set-up cell runs elsewhere: no index, no sheet of solutions.
    runs = any("setup" in cell["metadata"].get("tags", []) for cell in notebook["cells"])
    if first["cell_type"] == "markdown" and runs:
        buttons = " ".join(button.format(address=new, branch=BRANCH, path=path) for button in BUTTONS)
        first["source"] = [f"{buttons}\n", "\n", *"".join(first["source"]).splitlines(keepends=True)]
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
