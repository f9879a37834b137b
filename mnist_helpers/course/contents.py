"""The contents of ``notebooks/``, as the notebook that JupyterLab opens first: ``notebooks/index.ipynb``."""

import json
import re
from pathlib import Path

from . import catalogue, notebooks

FILE = "index.ipynb"
BEFORE, AFTER = "by_hand", "robustness"  # the lessons


def content() -> str:
    """The notebook as text: a list of every notebook of the course, with its title and its question."""
    known = {notebooks.name_of(path): path for path in notebooks.every()}
    lessons = [BEFORE, *(network.notebook for network in catalogue.lessons()), AFTER]
    challenges = list(dict.fromkeys(network.notebook for network in catalogue.challenges()))
    challenges += [name for name in known if name.startswith("challenges/") and name not in challenges]
    beside = [name for name in known if name not in (*lessons, *challenges)]
    text = ["# The notebooks", "A click opens one here. Run its cells in order, with Shift and Enter."]
    for title, names in (("The lessons, in their order", lessons), ("Beside the lessons", beside),
                         ("The challenges", challenges)):
        text += [f"## {title}", "\n".join(_line(known[name], name) for name in names if name in known)]
    text += ["## And", "- [The glossary](glossary.md) explains the words.\n- The folder `solutions` has a notebook for "
                       "each of these: write an answer of your own first."]
    cell = {"cell_type": "markdown", "id": "contents", "metadata": {},
            "source": "\n\n".join(text).splitlines(keepends=True)}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5},
                      ensure_ascii=False, indent=1) + "\n"


def _line(path: Path, name: str) -> str:
    """A notebook's title, as a link, and the question that it opens with."""
    first = notebooks.read(path).cells[0].source
    title = re.search(r"^# (?:\d+\. )?(.+)$", first, re.MULTILINE)[1]
    paragraph = re.search(r"\*\*The question\.\*\* (.+)", first)
    plain = notebooks.COMMENT.sub("", paragraph[1]) if paragraph else ""
    questions = re.findall(r"(?:^|(?<=[.?!:] ))[^.?!]*\?", plain)
    number = next((f"{network.lesson}. " for network in catalogue.lessons() if network.notebook == name), "")
    question = f"{'' if title.endswith('?') else ':'} {questions[-1].strip()}" if questions else ""
    return f"- [{number}{title}]({name}.ipynb){question}"
