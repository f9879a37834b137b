"""A deck of slides of a notebook, by one rule: its question, its finding, every figure under the heading of its
section, the result box, the questions. Nothing about slides is kept in the notebooks."""

import re
from pathlib import Path

from ..files import replace_file
from . import notebooks

CDN = "https://cdn.jsdelivr.net/npm/reveal.js@4.6.1"
# nbconvert's deck, which loads reveal.js through three other libraries; so a folder with reveal.js is enough.
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock html_head_js -%}
{%- block footer_js -%}
<script src="{{ resources.reveal.url_prefix }}/dist/reveal.js"></script>
<script>Reveal.initialize({hash: true, slideNumber: 'c', width: 1100, height: 700, center: false});</script>
{%- endblock footer_js -%}"""
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)")
HEADING = re.compile(r"^##+ +(.+)$", re.MULTILINE)
STYLE = """<style>
.reveal .slides { text-align: left; }
.reveal .jp-RenderedHTMLCommon { font-size: 31px; line-height: 1.35; }
.reveal .jp-RenderedHTMLCommon h1 { font-size: 50px; } .reveal .jp-RenderedHTMLCommon h2 { font-size: 40px; }
.reveal .jp-RenderedHTMLCommon blockquote { width: 100%; box-sizing: border-box; font-size: 27px; margin: 0;
  padding: 0 1em; font-style: normal; }
.reveal .jp-RenderedHTMLCommon img { display: block; margin: 0 auto; width: 96%; height: 560px; object-fit: contain; }
.reveal .jp-InputPrompt, .reveal .jp-Collapser { display: none; }
</style>"""


def deck(path: Path):
    """The slides of a notebook as a notebook: each cell is a slide, with the notebook's stored figures as they are.

    Raises `ValueError` for a notebook without a title.
    """
    import nbformat

    notebook = notebooks.read(path)
    first = next((cell.source for cell in notebook.cells if re.search(r"^# ", cell.source, re.MULTILINE)
                  and cell.cell_type == "markdown"), None)
    if first is None:
        raise ValueError(f"{path.name} has no title, `# ...`, to begin a deck with")
    title = re.search(r"^# .+$", first, re.MULTILINE)[0]
    found = {name: re.search(rf"^\*\*The {name}[.:]\*\* .+$", first, re.MULTILINE) for name in ("question", "finding")}
    pages = [_text(title, *(match[0] for match in found.values() if match))]
    heading, shown = "", 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = HEADING.findall(cell.source)
            heading = headings[-1] if headings else heading
            if "result" in cell.metadata.get("tags", []):
                pages.append(_text("## What we found", cell.source))
            elif "## Questions\n" in cell.source:
                pages.append(_text("## Questions", cell.source.partition("## Questions\n")[2]))
            continue
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                shown += 1
                alt = output.get("metadata", {}).get("image/png", {}).get("alt", heading)
                pages.append(_figure(heading, output.data["image/png"], alt, shown))
    made = nbformat.v4.new_notebook(cells=pages, metadata={"title": title.removeprefix("# ")})
    for number, page in enumerate(made.cells):
        page.id = f"slide-{number}"
        page.metadata["slideshow"] = {"slide_type": "slide"}
    made.cells[0].source += f"\n\n{STYLE}"
    return made


def _text(*parts):
    import nbformat

    text = "\n\n".join(part.strip() for part in parts)
    return nbformat.v4.new_markdown_cell(LINK.sub(r"\1", notebooks.COMMENT.sub("", text)))


def _figure(heading, content, alt, number):
    """A slide of a PNG in base64 with the text that says what is seen."""
    import nbformat

    name, alt = f"figure-{number}.png", re.sub(r"[\[\]\n]", " ", alt)
    cell = nbformat.v4.new_markdown_cell(f"## {heading}\n\n![{alt}](attachment:{name})")
    cell.attachments = {name: {"image/png": content.replace("\n", "")}}
    return cell


def write(path: Path, target: Path, reveal: str = CDN) -> Path:
    """Write the deck of a notebook as HTML to ``target``. ``reveal`` is where reveal.js is: an address, or a folder, as
    the page finds it."""
    from nbconvert import SlidesExporter

    target = Path(target)
    exporter = SlidesExporter(reveal_url_prefix=reveal, raw_template=TEMPLATE)
    html, _ = exporter.from_notebook_node(deck(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, html)
    return target
