"""A learner's copies of the notebooks, in ``work/``: git ignores them, and an update leaves a changed one as it is."""

import hashlib
import json
import os
from pathlib import Path

from ..files import replace_file
from ..places import writable

FOLDER = "work"
KNOWN = ".copies.json"  # of each copy, what it was made of and what it was then


def make(root: Path) -> list[str]:
    """Copy what is in ``notebooks/`` to ``work/``, and bring copies up to date that nobody has changed; return what is
    to be said. Copies that were run or edited stay. A copy that was deleted or renamed is made anew.

    Raises `ValueError` if the notebooks are not in ``root``, or nothing can be written there.
    """
    originals, target = root / "notebooks", root / FOLDER
    if not originals.is_dir():
        raise ValueError(f"the notebooks are not in {root}: clone the course, and install it from there")
    refuse_read_only(root)
    target.mkdir(exist_ok=True)
    known, old, made = _known(target), [], 0
    for path in sorted(originals.rglob("*")):
        name = path.relative_to(originals)
        if path.is_dir() or any(part.startswith(".") for part in name.parts) or path.suffix == ".pt":
            continue
        copy, original = target / name, content(path.read_bytes())
        before = known.get(name.as_posix(), {})
        if copy.exists() and content(copy.read_bytes()) != before.get("copy"):
            old += [name.as_posix()] if original != before.get("original") else []
        elif not copy.exists() or original != before.get("original"):
            copy.parent.mkdir(parents=True, exist_ok=True)
            replace_file(copy, new := copied(path, copy))
            known[name.as_posix()] = {"original": original, "copy": content(new)}
            made += 1
    replace_file(target / KNOWN, json.dumps(known, indent=1))
    said = [f"{made} files copied to {FOLDER}/"] if made else []
    return said + [f"{FOLDER}/{name} is yours, and older than notebooks/{name}: rename it, and you get a new copy"
                   for name in old]


def refuse_read_only(root: Path) -> None:
    """Raise `ValueError` with the remedy for a course that its reader cannot write to, such as an administrator's."""
    if not all(writable(place) for place in (root, root / FOLDER)):
        raise ValueError(f"you cannot write in {root}: clone or copy the course into a folder of your own, install it "
                         "from there, and type this there")


def there(root: Path) -> bool:
    """Whether this checkout has copies."""
    return (root / FOLDER / KNOWN).is_file()


def _known(folder):
    try:
        return json.loads((folder / KNOWN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # the first time; or damaged, and then every copy counts as changed
        return {}


def copied(path: Path, copy: Path) -> bytes:
    """What a copy holds: the file, and a notebook with a link to its original above its title."""
    whole = path.read_bytes()
    if path.suffix != ".ipynb":
        return whole
    try:
        notebook = json.loads(whole)
        first = notebook["cells"][0]
        is_text = first["cell_type"] == "markdown"
    except (ValueError, TypeError, LookupError):  # empty, or no notebook: a learner may have put it there
        return whole
    if is_text:
        link = Path(os.path.relpath(path, copy.parent)).as_posix()
        first["source"] = [f"*This is your copy. [The original]({link}) stays as the course has it.*\n", "\n",
                           *"".join(first["source"]).splitlines(keepends=True)]
    return (json.dumps(notebook, ensure_ascii=False, indent=1) + "\n").encode()


def content(whole: bytes) -> str:
    """A digest of a file; of a notebook, of its cells without their metadata: JupyterLab writes some when it only opens
    one."""
    try:
        cells = json.loads(whole)["cells"]
        shown = [[cell["cell_type"], "".join(cell["source"]), cell.get("outputs")] for cell in cells]
        whole = json.dumps(shown).encode()
    except (ValueError, TypeError, KeyError):
        pass
    return hashlib.sha256(whole).hexdigest()[:16]
