"""Words of a page of the site that lead to the glossary, with the glossary's sentence as their tooltip."""

import html
import re
from collections.abc import Callable

ENTRY = re.compile(r"^\*\*(.+?)\*\*((?:<a id=\"[^\"]+\"></a>)+) \(.*?\)\)\. (.+)$", re.MULTILINE)
# What stays as it is: blocks of code, headings, tables, pictures and HTML; in a line code, formulas, links and marks.
APART = re.compile(r"^(?:```.*?^```|[#|<! ].*?$)|`[^`]*`|\$[^$\n]*\$|!?\[[^\]]*\]\([^)]*\)|<[^>]*>|\*\*[^*]*\*\*",
                   re.MULTILINE | re.DOTALL)
# They mean something else as often.
SMALL = {"batch", "control", "kernel", "loss", "step", "training", "validation and test images"}


def read(text: str) -> dict[str, tuple[str, str]]:
    """``{word: (anchor, sentence)}`` of the glossary, words in lower case."""
    words = {}
    for names, anchors, meaning in ENTRY.findall(text):
        ids = re.findall(r'"(.+?)"', anchors)
        sentence = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.split(r"(?<!\b[A-Z])\. ", meaning)[0])
        for name in names.lower().split(", "):
            anchor = re.sub(r"[^a-z0-9]+", "-", name)
            words[name] = anchor if anchor in ids else ids[0], re.sub("[*`]", "", sentence).rstrip(".") + "."
    return {word: found for word, found in words.items() if word not in SMALL}


def linker(words: dict[str, tuple[str, str]], page: str) -> Callable[[str], str]:
    """A function of Markdown that makes the first mention of each word a link to the glossary at ``page``. It remembers
    what it has linked: one for each page."""
    left = dict(words)
    any_word = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    pattern = re.compile(rf"{APART.pattern}|\b(?P<word>{any_word})s?\b",
                         re.MULTILINE | re.DOTALL | re.IGNORECASE)

    def link(match):
        word = match["word"]
        if not word or word.lower() not in left:
            return match[0]
        anchor, sentence = left.pop(word.lower())
        return f'[{match[0]}]({page}#{anchor} "{html.escape(sentence)}"){{.term}}'

    return lambda text: pattern.sub(link, text)
