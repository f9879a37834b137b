"""Translations, in ``notebooks/lang/de/`` and the like: copies of notebooks whose texts somebody translates, and which
follow their English cell by cell, by the cells' ids.

A cell bears in its metadata the digest of the English source that it was made from. So a cell that nobody has touched
follows its English, and a translated one stays; it is stale once its English is another. Links and the records' marked
figures (see `pages`) are no part of the digest: they are brought up to date. The words of figures and tables are in a
file of their own (see `words`).
"""

import hashlib
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .. import words
from ..files import replace_file
from . import notebooks
from .pages import MARK, PRINTED
from .site import LINK

KEY = "mnist_translation"  # of the digest, in a cell's metadata
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass
class Translation:
    """A notebook of a language, as it will be, and what is to be said of its cells."""

    path: Path
    original: Path
    home: Path  #: the folder of the language
    root: Path  #: the folder of the notebooks
    others: set  #: paths of the language that will be there, too
    notebook: object = None
    found: list = field(default_factory=list)  #: pairs of a cell and what is to be said of it
    translated: list = field(default_factory=list)  #: for each text, whether it is

    def lines(self) -> list[str]:
        count = f"{sum(self.translated)} of {len(self.translated)} texts are translated"
        return [f"{notebooks.name_of(self.path)}: {count}", *(
            f"  {said}: {cell.id} ({textwrap.shorten(notebooks.COMMENT.sub('', cell.source), 60, placeholder=' ...')})"
            for cell, said in self.found)]


def translate(language: str, names: Iterable[str] = (), done: Iterable[str] = ()) -> list[str]:
    """Begin translations of the notebooks called ``names``, or bring them up to date; by default all that are there in
    this language. Return what is to be said, a line each. ``done`` are ids of stale cells in the one notebook that was
    named: they are translated anew.

    Raises `FileNotFoundError` or `ValueError` before anything is written: no language, notebook or stale cell.
    """
    if not LANGUAGE.fullmatch(language):
        raise ValueError(f"{language!r} is no language: give its code first, such as de or pt-BR")
    root = notebooks.folder().resolve()
    home, done = root / notebooks.LANG / language, set(done)
    originals = {home / path.relative_to(root): path for path in _named(names, root)} if names else {
        path: root / path.relative_to(home) for path in notebooks.translations(language)}
    if not originals:
        raise FileNotFoundError(f"there is no translation to {language} yet: name notebooks, such as 01_baseline")
    if done and len(originals) != 1:
        raise ValueError("--done is about the cells of one notebook: name that one")
    made = [Translation(path, original, home, root, set(originals)) for path, original in originals.items()]
    there = [each for each in made if each.original.is_file()]
    spoken = dict.fromkeys(words.WORDS, "") | words.read(words.file_of(language))
    for each in there:
        _read(each, done)
    for each in there:
        each.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(each.path, notebooks.as_json(each.notebook) + "\n")
    replace_file(words.file_of(language), json.dumps(spoken, ensure_ascii=False, indent=1) + "\n")
    lines = [line for each in made for line in (each.lines() if each in there else [
        f"{notebooks.name_of(each.path)}: the course has no such notebook any more"])]
    return [*lines, f"{words.NAME}: {sum(map(bool, spoken.values()))} of {len(spoken)} words of figures and tables"]


def _named(names, root):
    paths = notebooks.find(names)
    for path in paths:
        if not path.is_relative_to(root) or path.is_relative_to(root / notebooks.LANG):
            raise ValueError(f"{path.name}: name a notebook of the course, or of own/")
    return paths


def _read(translation, done):
    """Set a translation's notebook: its English, with the texts of its file."""
    made = notebooks.read(translation.original)
    there = notebooks.read(translation.path) if translation.path.exists() else None
    old = there.cells if there else []
    theirs, ids = {cell.get("id"): cell for cell in old}, {cell.id for cell in made.cells}
    if None in theirs:
        raise ValueError(f"{translation.path.name}: its cells lost their ids, as on Colab. Restore it, and edit it in "
                         "JupyterLab")
    if unknown := sorted(done - {id for id in ids & set(theirs) if _touched(translation, theirs[id])}):
        raise ValueError(f"{translation.path.stem} has no translated cell {', '.join(unknown)}")
    for cell in made.cells:
        _update(translation, cell, theirs.get(cell.id), done)
        if there and cell.id not in theirs:
            translation.found.append((cell, "new"))
    # Other cells stay after those that they came after, unless the English has dropped them untouched.
    others, last = {None: []}, None
    for cell in old:
        if cell.id in ids:
            last = cell.id
        elif _touched(translation, cell):
            others.setdefault(last, []).append(cell)
            translation.found += [(cell, "not in the English")] if KEY in cell.metadata else []
    made.cells = others[None] + [each for cell in made.cells for each in (cell, *others.get(cell.id, ()))]
    made.metadata.pop("mnist_helpers", None)  # it is none of the course's own
    made.metadata |= there.metadata if there else {}
    translation.notebook = made


def _touched(translation, cell):
    """Whether a cell of a translation's file is another than the English that it was made from."""
    return cell.metadata.get(KEY) != _digest(translation, translation.path, cell.source)


def _update(translation, cell, theirs, done):
    """Make an English cell the translation's, which was ``theirs``."""
    english, is_text = cell.source, cell.cell_type == "markdown"
    now = _digest(translation, translation.original, english)
    touched = theirs is not None and _touched(translation, theirs) and (
        _digest(translation, translation.path, theirs.source) != now)
    if is_text:
        cell.source = _linked(translation, translation.original, english)
        translation.translated.append(touched)
    if not touched:
        cell.metadata[KEY] = now
        return
    cell.source = theirs.source
    cell.metadata = {key: value for key, value in theirs.metadata.items() if key != "tags"} | cell.metadata
    if cell.id in done:
        cell.metadata[KEY] = now
    if "attachments" in theirs:
        cell.attachments = theirs.attachments
    if is_text:
        cell.source = _linked(translation, translation.path, _with_figures(theirs.source, english))
    if cell.metadata.get(KEY) != now:
        translation.found.append((cell, "stale, its English has changed" if KEY in cell.metadata else
                                  "perhaps stale, its English is unknown"))
    elif not is_text:
        translation.found.append((cell, "code of its own"))
    elif _figures(cell.source) != _figures(english):
        translation.found.append((cell, "other figures than in the English"))


# ---------------------------------------------------------------- links and figures


def _digest(translation, place, text):
    """The digest of a source, the same for English and for its copy elsewhere, whatever the records' figures are."""
    def figure(match):
        return match[0] if match[3].startswith(PRINTED) else f"{match[2] or ''}<!-- = {match[3]} -->"

    text = _with_links(translation, place, text, lambda inside, found: inside)
    return hashlib.sha256(MARK.sub(figure, text).encode()).hexdigest()[:12]


def _linked(translation, place, text):
    """``text`` of the notebook ``place`` with a translation's links: to what its language has, else to the English."""
    return _with_links(translation, place, text, lambda inside, found: Path(
        os.path.relpath(found, translation.path.parent)).as_posix())


def _with_links(translation, place, text, written):
    """``text`` of the notebook ``place`` with what ``written(inside, found)`` makes of each link: ``inside`` is where
    it leads from the folder of the notebooks or of the language, ``found`` the file, the language's own first. Links
    that lead nowhere stay."""
    def link(match):
        to = Path(os.path.normpath(place.parent / match[2]))
        root = translation.home if to.is_relative_to(translation.home) else translation.root
        inside = Path(os.path.relpath(to, root)).as_posix()
        for found in (translation.home / inside, translation.root / inside):
            if found.exists() or found in translation.others:
                return f"{match[1]}{written(inside, found)}{match[3] or ''}"
        return match[0]

    return LINK.sub(link, text)


def _figures(text):
    return Counter((number, mark) for number, _, mark in MARK.findall(text))


def _with_figures(text, english):
    """``text`` with the records' figures as the English has them. Those that a cell printed stay, for a translation may
    have them in another order."""
    numbers = {}
    for number, _, mark in MARK.findall(english):
        numbers.setdefault(mark, []).append(number)

    def figure(match):
        number, unit, mark = match.groups()
        if not number or mark.startswith(PRINTED) or mark not in numbers:
            return match[0]
        new = numbers[mark]
        return f"{new.pop(0) if len(new) > 1 else new[0]}{unit}<!-- = {mark} -->"

    return MARK.sub(figure, text)
