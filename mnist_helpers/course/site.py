"""The course's site: its pages, its notebooks with their stored outputs, and what moves, as a folder of HTML.

Pages and notebooks are copied to one place, with links as the site has them, and Sphinx makes HTML of them (the theme
and its settings: site/conf.py). The live pieces of site/live/ need no building: they are copied beside the pages, with
their data.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from ..data import project_root
from ..files import replace_file
from . import explain, glossary, live, notebooks

NEEDS = "the site needs Sphinx and its theme: run `pip install -e .[site]` in the course's folder"
# Where the site has what is neither a page of site/ nor a notebook.
MOVED = {"README.md": "index.md", "notebooks/challenges": "challenges.md", "notebooks/glossary.md": "glossary.md",
         "CONTRIBUTING.md": "contributing.md", "results/plan.md": "plan.md"}
LINK = re.compile(r'(\]\(|src=")(?![a-z]+:|#)([^)"#\s]+)(#[^)"\s]*)?')
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
# GitHub's way to have a picture in two versions, and the theme's.
PICTURE = re.compile(r'<picture>\n<source .*srcset="(.*?)">\n<img src="(.*?)" (.*)>\n</picture>')
BOTH = r'<img class="only-light" src="\2" \3>\n<img class="only-dark" src="\1" \3>'
WIDGET = re.compile(r'\bwidget\("(\w+)"\)$')
LOADER = '\n\n<script type="module" src="{}live/start.js"></script>\n'


def repository() -> str:
    """``OWNER/NAME`` of the repository whose site this is: a workflow knows it, the main branch has a placeholder."""
    return os.environ.get("GITHUB_REPOSITORY") or notebooks.repository()


def place(path: Path, root: Path) -> Path | None:
    """Where below the site's sources a page, notebook or picture of the repository stands, or None for other files."""
    name = path.relative_to(root).as_posix()
    if name in MOVED:
        return Path(MOVED[name])
    if path.parent == root / "site" and path.suffix == ".md":
        return Path(path.name)
    if path.suffix == ".png" or (path.suffix == ".ipynb" and path.is_relative_to(root / "notebooks")
                                  and not notebooks.apart(path)):
        return Path(name.removeprefix("site/"))
    return None


def relinked(text: str, source: Path, target: Path, root: Path) -> str:
    """``text`` of the file ``source`` with its links as the page ``target`` of the site needs them. Files that the site
    does not have are shown by GitHub; a link to a file that does not exist stays, and Sphinx refuses it."""
    def link(match):
        start, name, anchor = match.groups()
        found = Path(os.path.normpath(source.parent / name))
        if not found.exists() or not found.is_relative_to(root):
            return match[0]
        to = place(found, root)
        if to is None:
            kind = "tree" if found.is_dir() else "blob"
            return (f"{start}https://github.com/{repository()}/{kind}/HEAD/{found.relative_to(root).as_posix()}"
                    f"{anchor or ''}")
        kept = "" if found == root / "README.md" else anchor or ""
        return start + Path(os.path.relpath(to, target.parent)).as_posix() + kept

    return LINK.sub(link, text)


def page(source: Path, target: Path, root: Path) -> str:
    """The text of a page of the site: without marks, with anchors that Sphinx checks."""
    text = PICTURE.sub(BOTH, notebooks.COMMENT.sub("", source.read_text(encoding="utf-8")))
    text = relinked(ANCHOR.sub(r"[]{#\1}", text), source, target, root)
    return text + LOADER.format("../" * (len(target.parts) - 1)) * ('class="live"' in text)


def notebook(source: Path, target: Path, root: Path) -> str:
    """A notebook of the site, as JSON: as it is stored, with the set-up folded and widgets that move."""
    import nbformat

    content, up = notebooks.read(source), "../" * (len(target.parts) - 1)
    words = glossary.read((root / "notebooks" / "glossary.md").read_text(encoding="utf-8"))
    explained = glossary.linker(words, f"{up}glossary.md")
    cells, moving = [], False
    for cell in content.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = explained(relinked(notebooks.COMMENT.sub("", cell.source), source, target, root))
            continue
        if "setup" in cell.metadata.get("tags", []):
            cell.metadata.tags = [*cell.metadata.tags, "hide-input"]
        if (found := WIDGET.search(cell.source)) and found[1] in explain.PIECES:
            cell.outputs, moving = [], True
            with Image.open(explain.folder() / f"{found[1]}.png") as picture:
                alt = picture.info["Description"]
            cells.append(nbformat.v4.new_markdown_cell(
                f'<div class="live" data-piece="{found[1]}">\n\n![{alt}]({up}live/{found[1]}.png)\n\n</div>'))
    if moving:
        cells.append(nbformat.v4.new_markdown_cell(LOADER.format(up).strip()))
    content.cells = cells
    return nbformat.writes(content)


def write_sources(folder: Path, root: Path) -> int:
    """Write into ``folder`` what Sphinx reads; return the number of pages."""
    pages = [*sorted((root / "site").glob("*.md")), *(root / name for name in MOVED if name.endswith(".md")
                                                      and name != "README.md"), *notebooks.every(),
             *notebooks.every_solution()]
    for source in pages:
        target = place(source, root)
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        made = notebook if source.suffix == ".ipynb" else page
        replace_file(folder / target, made(source, target, root))
    for picture in [*(root / "results").glob("*.png"), *(root / "site" / "live").glob("*.png")]:
        (folder / place(picture, root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / place(picture, root))
    return len(pages)


def write_live(folder: Path) -> None:
    """Write the live pieces and their data into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in explain.folder().iterdir():
        replace_file(folder / path.name, path.read_bytes())
    explain.write(folder)
    live.write(folder)


def write_html(sources: Path, folder: Path, settings: Path) -> None:
    """Have Sphinx make HTML of ``sources``, with the conf.py in ``settings``. Raises `ValueError` if it warns
    of anything, such as a link that leads nowhere, and `ModuleNotFoundError` where it is not installed."""
    try:
        import myst_nb  # noqa: F401
        import sphinx_book_theme  # noqa: F401
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NEEDS) from error

    with tempfile.TemporaryDirectory(prefix="mnist-doctrees-") as doctrees:
        if build_main(["-q", "-W", "--keep-going", "-c", str(settings), "-d", doctrees, str(sources), str(folder)]):
            raise ValueError("the site has the problems above")


def build(folder: Path) -> int:
    """Build the site into ``folder`` and return the number of its pages. It needs no network. Raises what `write_html`
    does."""
    root = project_root()
    with tempfile.TemporaryDirectory(prefix="mnist-site-") as sources:
        pages = write_sources(Path(sources), root)
        write_html(Path(sources), folder, root / "site")
    write_live(folder / "live")
    return pages
