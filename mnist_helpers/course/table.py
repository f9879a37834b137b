"""A table that shows itself as Markdown in a notebook and aligned on a terminal."""

import re
import textwrap
from itertools import zip_longest

from .. import words

LINE = 80  # characters of a terminal
SHORT = {"parameters": "params", "validation": "val", "published": "publ."}  # where a line would be longer
# A narrow page may break a cell between figures, not within one.
FIGURE = re.compile(r"\[[^]|]{,20}\]|\((?:n = )?\d+\)|[\d.]+ %|[\d.]+ ± [\d.]+(?: \(\d+\))?")


class Code(str):
    """Text of a cell that is shown as code."""


class Table:
    """Rows under a header, and a note under them.

    A row is a list of as many texts as the header has, or one text that heads the rows after it.
    """

    def __init__(self, header: list[str], rows: list[list[str] | str], note: str | None = None):
        self.header, self.rows, self.note = list(header), list(rows), note

    def _spoken(self):
        """The table in the language of the notebook."""
        if not (spoken := words.spoken()):
            return self

        def said(text):
            return text if isinstance(text, Code) else words.said(str(text), spoken)

        rows = [said(row) if isinstance(row, str) else list(map(said, row)) for row in self.rows]
        return Table(list(map(said, self.header)), rows, self.note and said(self.note))

    def _repr_markdown_(self) -> str:
        return self._spoken()._markdown()

    def __str__(self) -> str:
        return self._spoken()._text()

    __repr__ = __str__

    def _markdown(self):
        alignment = ["---"] + ["--:"] * (len(self.header) - 1)
        rows = [[f"**{_markdown(row)}**"] + [""] * (len(self.header) - 1) if isinstance(row, str) else
                list(map(_markdown, row)) for row in self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in (list(map(_markdown, self.header)), alignment, *rows)]
        text = FIGURE.sub(lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), "\n".join(lines))
        return text + (f"\n\n{_markdown(self.note)}" if self.note else "")

    def _text(self):
        text = self._aligned(list(map(_terminal, self.header)))
        if max(map(len, text.splitlines())) > LINE:
            text = self._aligned([SHORT.get(name, name) for name in map(_terminal, self.header)])
        return text + (f"\n\n{textwrap.fill(_terminal(self.note), LINE)}" if self.note else "")

    def _aligned(self, header):
        rows = [_terminal(row) if isinstance(row, str) else list(map(_terminal, row)) for row in self.rows]
        columns = list(zip(header, *(row for row in rows if isinstance(row, list)), strict=True))
        widths = [max(map(len, [*name.split(), *cells])) for name, *cells in columns]
        # The words of a name stand below each other where the column is narrower than they are.
        names = [textwrap.wrap(name, max(1, width)) for name, width in zip(header, widths, strict=True)]
        above = reversed(list(zip_longest(*(name[::-1] for name in names), fillvalue="")))
        rule = "-" * sum(widths, 2 * (len(widths) - 1))
        return "\n".join(row if isinstance(row, str) else "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in (*above, rule, *rows))


def _terminal(text):
    """Text on one line, without characters that steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(text))


def _markdown(text):
    """Text that Markdown shows as it stands, in a cell."""
    plain = _terminal(text)
    if isinstance(text, Code):
        return "`" + plain.replace("`", "'").replace("|", "\\|") + "`" if plain.strip() else ""
    return re.sub(r"[\\`*_$|]|\](?=\()", r"\\\g<0>", plain.replace("&", "&amp;").replace("<", "&lt;"))
