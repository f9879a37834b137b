"""Whether a record belongs to the code as it stands: stamps, in ``results/stamps.json``.

A stamp is what a training ran through: digests of the notebook's recipe and of the package, under the record's id.
"""

import functools
import json

import filelock

from .. import files
from ..places import project_root
from . import catalogue


def stamp(id: str, *, trace: str, notebook: str, recipe: str | None = None, package: str | None = None) -> None:
    """Note which code a record belongs to: by default, the notebook's recipe and the package as they stand.

    ``trace`` is ``"recorded"`` by that very code, ``"verified"`` by training its first steps again, or ``"differs"``.
    """
    from .. import checkpoint  # here, since it imports torch

    new = {"recipe": recipe or recipe_now(notebook), "package": package or checkpoint.package_digest(), "trace": trace,
           "notebook": notebook}
    path = checkpoint.stamps_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        every = checkpoint.stamps() | {id: new}
        lines = [f"{json.dumps(key)}: {json.dumps(every[key])}" for key in sorted(every)]  # apart: git can merge them
        files.replace_file(path, "{\n" + ",\n".join(lines) + "\n}\n")


def stale(record: dict, known: dict | None = None) -> str | None:
    """Why a record does not belong to the code as it stands, or None. ``known`` are the stamps, read if not given."""
    from .. import checkpoint

    found = (checkpoint.stamps() if known is None else known).get(record["id"])
    if found is None:
        return "it was never verified"
    if found["trace"] == "differs":
        return "training its first steps again gives other losses"
    network = catalogue.network(record["model"])
    notebook = network.notebook if network else record["notebook"]
    if found["recipe"] != recipe_now(notebook):
        return f"the recipe in {notebook}.ipynb has changed since"
    return None if found["package"] == checkpoint.package_digest() else "the package has changed since"


def recipe_now(notebook: str) -> str | None:
    """The digest of a notebook's recipe as its file stands; None if there is no such file, or it cannot be read."""
    path = project_root() / "notebooks" / f"{notebook}.ipynb"
    return _recipe(path, path.stat().st_mtime_ns) if path.is_file() else None


@functools.lru_cache(maxsize=64)
def _recipe(path, modified):
    from . import notebooks  # not above, where it would import this module in turn

    try:
        return notebooks.recipe_digest(path)
    except (SyntaxError, ValueError):  # half an edit, of which a table elsewhere should not fail
        return None
