"""The course's address on GitHub, stamped into badges, set-up cells and pyproject.toml."""

import re
import subprocess
from pathlib import Path

from . import notebooks

ADDRESS = re.compile(r"(?:https?://(?:[^@/]+@)?(?:www\.)?github\.com/|(?:ssh://)?git@github\.com[:/])?"
                     r"([^/\s:]+)/([^/\s:]+?)(?:\.git)?/?")
# What GitHub takes: letters, digits and single hyphens inside; names of repositories have dots and underscores, too.
OWNER = re.compile(r"(?=.{1,39}$)[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
NAME = re.compile(r"(?!\.{1,2}$)(?!-)[\w.-]{1,100}", re.ASCII)
BRANCH = re.compile(r"(?![-/.])(?!.*(\.\.|//|\.lock$|[/.]$))[\w./-]+", re.ASCII)
PLACEHOLDER = "OWNER"
BADGE = re.compile(r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/[\w./-]+?/notebooks/")


def parsed(address: str) -> str:
    """``OWNER/NAME`` of an address as people copy it: with https or ssh, with or without ``.git``.

    Raises `ValueError` for anything that is no address on GitHub.
    """
    found = ADDRESS.fullmatch(address.strip())
    owner, name = found.groups() if found else ("", "")
    if not OWNER.fullmatch(owner) or not NAME.fullmatch(name) or owner == PLACEHOLDER:
        raise ValueError(f"{address!r} is no address of a repository: give OWNER/NAME, as in https://github.com/OWNER/NAME")
    return f"{owner}/{name}"


def origin() -> str:
    """The address that git fetches this checkout from. Raises `ValueError` if there is none."""
    try:
        return subprocess.run(["git", "remote", "get-url", "origin"], cwd=notebooks.folder().parent, check=True,
                              capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError("git knows no origin of this folder: give the address, OWNER/NAME") from error


def publish(address: str | None = None, branch: str = "main") -> list[Path]:
    """Stamp an address (by default `origin`) and a branch wherever the course's own stands; return the changed files.

    All new contents are made before the first is written. Whoever is interrupted while they are written calls it again,
    with this address or another one. Raises `ValueError` for an address or branch that cannot be.
    """
    from .. import files

    new = parsed(address or origin())
    if not BRANCH.fullmatch(branch):
        raise ValueError(f"{branch!r} is no name of a branch")
    root, contents = notebooks.folder().parent, {}
    # Notebooks last: an interrupted call leaves older addresses too, and then one of them has it in its badge.
    texts = {path: path.read_text(encoding="utf-8") for path in
             (root / "pyproject.toml", root / "README.md", *notebooks.every())}
    known = {notebooks.repository()} | {match[1] for text in texts.values() for match in BADGE.finditer(text)}
    ours = re.compile(rf"https://github\.com/(?:{'|'.join(map(re.escape, sorted(known)))})(?=\.git\b|(?![\w-]|\.\w))")
    for path, before in texts.items():
        after = BADGE.sub(f"colab.research.google.com/github/{new}/blob/{branch}/notebooks/", before)
        after = ours.sub(f"https://github.com/{new}", after)
        after = re.sub(r'\\"--branch\\", \\"[\w./-]+\\"', f'\\\\"--branch\\\\", \\\\"{branch}\\\\"', after)
        if after != before:
            contents[path] = after
    for path, content in contents.items():
        files.replace_file(path, content)
    return list(contents)
