"""Pupils' copies of the notebooks: without answers and outputs, tagged for nbgrader, with a seed of their own."""

import re
from collections.abc import Iterable
from pathlib import Path

from ..files import replace_file
from . import answers, catalogue, notebooks

SCHEMA = 3  # of nbgrader's metadata
FIRST_SEED = 1001  # of a class: far from every seed that the course has used
POINTS = 1  # for each answer that is checked, and for each that somebody reads
EXERCISE_POINTS = 2
BADGE = re.compile(r"^\[!\[Open in Colab\].*\n+", re.MULTILINE)
SOLUTIONS = re.compile(r"^\[Solutions\]\(.*\n*", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)[^)]+\)")  # to a file of the course, which a copy does not have
UNSAFE = re.compile(r"[^\w. -]|^[. ]+|[. ]+$")  # in the name of a folder


def students(path: Path) -> list[str]:
    """The names in a text file, one a line; empty lines and those that begin with # do not count.

    Raises `FileNotFoundError`; `ValueError` for a file without names, or names that would share a folder.
    """
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    folders = [folder_of(name).casefold() for name in names]
    twice = sorted({name for name, own in zip(names, folders, strict=True) if folders.count(own) > 1})
    if twice or not names:
        raise ValueError(f"{path}: {', '.join(twice) + ' would share a folder' if twice else 'no names in it'}; write "
                         "one name a line, each another")
    return names


def folder_of(student: str) -> str:
    """The name of a student's folder."""
    return UNSAFE.sub("_", student)


def handout(paths: Iterable[Path], folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Write a copy of each notebook to ``folder``, or one for each of these students to a folder of their own below it,
    with seeds from `FIRST_SEED` on in the order of the names; return the files.

    Raises `FileExistsError` before anything is written if one of them is there: it may have somebody's answers.
    """
    folder, names = Path(folder), list(names)
    copies = {}
    for path in paths:
        name = notebooks.name_of(path)
        for number, student in enumerate(names):
            copies[folder / folder_of(student) / f"{name}.ipynb"] = path, student, FIRST_SEED + number
        if not names:
            copies[folder / f"{name}.ipynb"] = path, "", 0
    if there := [str(target) for target in copies if target.exists()]:
        raise FileExistsError(f"{there[0]} is there already: name another folder, or remove it")
    for target, (path, student, seed) in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        text = notebooks.as_json(pupils_copy(path, student, seed)) + "\n"
        replace_file(target, text)
    return list(copies)


def pupils_copy(path: Path, student: str = "", seed: int = 0):
    """A notebook as a pupil gets it, as nbformat has it."""
    notebook, name = notebooks.read(path), notebooks.name_of(path)
    key, cells, letter = answers.key(name), [], ""
    for cell, following in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type == "markdown":
            found = answers.EXERCISE.search(cell.source)
            letter = found[1] if found else letter
            is_questions = "## Questions\n" in cell.source
            cell.source = LINK.sub(r"\1", SOLUTIONS.sub("", BADGE.sub("", cell.source)))
        else:
            cell.outputs, cell.execution_count = [], None
            is_questions = False
        if "parameters" in tags:
            cell.source = re.sub(r"^SEED = \d+", f"SEED = {seed}", cell.source, flags=re.MULTILINE)
        if "check" in tags:
            cells += [_graded("code", f'assert mh.check_answers("{name}", globals(), "{each}")', each, POINTS)
                      for each in key]
            continue
        if "answer" in tags:
            checked = following is not None and "check" in following.metadata.get("tags", [])
            cell.source = cell.source.replace("run both cells", "run this cell and those below it")
            _mark(cell, "answers" if checked else f"exercise-{letter}", None if checked else EXERCISE_POINTS, True)
        cells.append(cell)
        if is_questions:
            cells += [_graded("markdown", f"**Answer to question {number}:**", f"question-{number}", POINTS, True)
                      for number in open_questions(notebook, key)]
    for network in networks_of(name):
        if network.limit:
            cells.append(_graded("code", f"assert mh.count_weights({network.name}()) <= {network.limit:_}",
                                 f"budget-{network.name}", 0))
    if any("record = mh.record(" in cell.source for cell in cells):
        cells.append(new_cell("code", "# For your class's histogram: run this cell last, and save.\nmh.hand_in(record)",
                          "hand-in"))
    notebook.cells = cells
    notebook.metadata.pop("mnist_helpers", None)  # it is none of the course's own
    notebook.metadata["mnist_handout"] = {"notebook": name, "student": student, "seed": seed}
    return notebook


def open_questions(notebook, key: dict) -> list[str]:
    """The numbers of the questions that no key answers, for somebody to read."""
    numbers = re.findall(r"^(\d+)\. ", answers.questions(notebook), re.MULTILINE)
    return [number for number in numbers if not any(each.startswith(f"q{number}_") for each in key)]


def networks_of(name: str) -> list[catalogue.Network]:
    """The networks of the catalogue that a notebook trains."""
    return [network for network in catalogue.networks() if network.notebook == name]


def new_cell(kind: str, source: str, id: str):
    """A cell of code or of Markdown, as nbformat makes it."""
    import nbformat

    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    return make(source, id=id)


def _graded(kind, source, id, points, solution=False):
    cell = new_cell(kind, source, id)
    if kind == "code":
        cell.metadata["tags"] = ["raises-exception"]  # "Run all" goes on after a wrong answer
    return _mark(cell, id, points, solution)


def _mark(cell, id, points, solution):
    """Tell nbgrader of a cell: one with points is graded, by running it or, where it is a solution, by hand."""
    cell.metadata["nbgrader"] = {
        "schema_version": SCHEMA, "grade_id": id, "cell_type": cell.cell_type, "grade": points is not None,
        "solution": solution, "locked": not solution, "task": False, **({} if points is None else {"points": points})}
    return cell
