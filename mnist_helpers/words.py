"""The words of figures and tables, in one place. A translation has its own for them in ``words.json``.

A notebook below a folder ``lang/de`` takes those of ``notebooks/lang/de/words.json``: ``{"epoch": "Epoche", ...}``. A
word without one stays English, and so do sentences: those of `compare`, and what a figure tells who does not see it.
"""

import json
import re
from pathlib import Path

from .data import project_root

NAME = "words.json"
#: What stands between numbers and names in the texts of figures and tables.
WORDS = (
    # what is measured, and on what
    "accuracy (%)", "test accuracy (%)", "accuracy", "training loss", "training (while learning)", "training",
    "training images, augmented", "validation", "held out: choices are made on them", "test", "test images",
    "test images, seen once", "95 % interval", "published", "same measure", "measure", "images", "seeds", "runs",
    "parameters", "epochs", "lesson", "network", "gain", "new run", "this run", "quick", "digits", "yours", "question",
    "recipe", "within noise", "more than noise",
    # axes and legends
    "epoch", "cross-entropy loss", "cross-entropy of the batch", "step (one update of the weights)", "steps", "mean of",
    "rate", "predicted digit", "true digit", "channel", "value", "before", "after", "first weight", "second weight",
    "weight", "pairs of weights", "correlation", "direction", "directions", "eigenvalue, the largest being 1",
    "(logarithmic scale)", "published, one run", "published, single runs", "ours", "ours, one run",
    "ours, lowest to highest of", "ours, measured the same way", "ours, on test images", "original", "draw",
    "taken for", "sure",
    # the picture of a network
    "layer", "output", "multiplications", "together", "new", "removed", "was", "batch norm", "conv", "linear", "pool",
    "flatten",
    # titles
    "Images and their labels", "Before and after augmentation", "Training and validation", "Loss by training step",
    "Confusions", "of", "The surest mistakes", "No mistakes", "First-layer kernels", "Feature maps",
    "Three measures of the same networks", "One dot a seed", "The numbers of each channel",
    "Mean products of the gradients of pairs of weights",
)


def file_of(language: str) -> Path:
    return project_root() / "notebooks" / "lang" / language / NAME


def read(path: Path) -> dict[str, str]:
    """``{English: translated}`` of a file, nothing if there is none. Raises `ValueError` for what is no such file."""
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise ValueError(f'{path} must have the form {{"epoch": "Epoche", "step": "Schritt"}}')
    return words


def spoken() -> dict[str, str]:
    """The words of the language that the working folder belongs to: nothing for English."""
    here = Path.cwd()
    language = next((folder.name for folder in (here, *here.parents) if folder.parent.name == "lang"), None)
    return {english: word for english, word in read(file_of(language)).items() if word} if language else {}


def said(text: str, words: dict[str, str]) -> str:
    """``text`` with each of the ``words`` translated, the longest first."""
    if not words:
        return text
    parts = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{parts})(?!\w)", lambda match: words[match[0]], text)
