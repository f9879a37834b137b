"""Git, asked by its command line."""

import os
import subprocess
from pathlib import Path


def git(root: Path, *arguments: str, text: str | None = None, **settings: str) -> str:
    """What git prints, in the folder ``root``, without white space around it. ``text`` is its input, ``settings`` are
    environment variables. Raises `ValueError` with what git says if it fails, or if there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, input=text, env=os.environ | settings, capture_output=True,
                              encoding="utf-8")
    except OSError as error:
        raise ValueError(f"git does not run: {error}") from error
    if done.returncode:
        raise ValueError(f"git {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def answer(root: Path, *arguments: str) -> str:
    """What git prints, or ``""`` if it fails."""
    try:
        return git(root, *arguments)
    except ValueError:
        return ""


def lines(root: Path, *arguments: str) -> list[str]:
    """The entries that git prints with ``-z``, which keeps names of files as they are."""
    return [entry for entry in git(root, *arguments).split("\0") if entry]
