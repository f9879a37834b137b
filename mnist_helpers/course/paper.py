"""A notebook on paper: a PDF of it as it is stored, printed by the browser that is there."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..files import replace_file
from . import notebooks
from .slides import LINK

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
            "msedge")
PLACES = {  # where the path does not lead
    "darwin": [f"/Applications/{name}.app/Contents/MacOS/{name}"
               for name in ("Google Chrome", "Chromium", "Microsoft Edge")],
    "win32": [str(Path(os.environ.get(programs, ""), *place.split())) for place in (
        "Google Chrome Application chrome.exe", "Microsoft Edge Application msedge.exe")
        for programs in ("ProgramFiles", "ProgramFiles(x86)", "LocalAppData")],
}
PATIENCE = 120  # seconds
# nbconvert's page without its style, which is for a screen, and without scripts but those that set formulas.
TEMPLATE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js -%}{%- endblock html_head_js -%}
{%- block notebook_css -%}<style>
@page { size: A4; margin: 15mm 14mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; } }
body { font: 10pt/1.4 sans-serif; margin: 0; }
h1, h2, h3 { break-after: avoid; line-height: 1.2; }
pre { font: 7.7pt/1.35 monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 0 1em; tab-size: 4; }
code { font-size: 90%; overflow-wrap: anywhere; }
.input_area { border-left: 2pt solid #999; margin: 1em 0 0.6em; }
.input_area pre, table, tr, img, svg, blockquote { break-inside: avoid; }
img, svg { display: block; max-width: 100%; max-height: 240mm; height: auto; }
table { border-collapse: collapse; font-size: 8.5pt; margin: 0.6em 0; max-width: 100%; }
th, td { border-bottom: 0.5pt solid #999; padding: 0.15em 0.6em; overflow-wrap: break-word; vertical-align: top; }
blockquote { border: 0.5pt solid #666; margin: 1em 0; padding: 0 1em; }
.anchor-link, .prompt { display: none; }
</style>{%- endblock notebook_css -%}"""


def browser() -> str:
    """The path of a Chromium, Chrome or Edge. Raises `LookupError` where there is none."""
    found = next(filter(None, map(shutil.which, [*COMMANDS, *PLACES.get(sys.platform, [])])), None)
    if found is None:
        raise LookupError("printing takes Chromium, Chrome or Edge, and none is installed here: install one")
    return found


def page(path: Path) -> str:
    """A notebook with its stored outputs as HTML for paper; the set-up cell, the same in all, is left
    out, and so are links to files."""
    from nbconvert import HTMLExporter

    notebook = notebooks.read(path)
    setup = notebooks.tagged(notebook, "setup")
    notebook.cells = [cell for cell in notebook.cells if cell not in setup]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"\1", cell.source)
    exporter = HTMLExporter(template_name="classic", raw_template=TEMPLATE, embed_images=True)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem, "path": str(path.parent)}})
    return html


def write(path: Path, target: Path) -> Path:
    """Print a notebook to the PDF ``target``. Raises `LookupError` without a browser, `ValueError` if it fails."""
    target, program = Path(target), browser()
    # A profile of its own: else a browser that is open takes the order and does not say when it is done.
    with tempfile.TemporaryDirectory(prefix="mnist-", ignore_cleanup_errors=True) as temporary:
        html, made = Path(temporary) / f"{path.stem}.html", Path(temporary) / "made.pdf"
        html.write_bytes(page(path).encode())
        # Root has no sandbox; the page is of the reader's own files.
        root = ["--no-sandbox"] * (hasattr(os, "geteuid") and os.geteuid() == 0)
        order = [program, "--headless", "--disable-gpu", *root, f"--user-data-dir={temporary}/profile",
                 "--no-first-run", "--no-pdf-header-footer", "--virtual-time-budget=10000",
                 f"--print-to-pdf={made}", html.as_uri()]
        try:
            done = subprocess.run(order, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE)
            said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        except subprocess.TimeoutExpired:
            said = [f"not done after {PATIENCE} seconds"]
        if not made.is_file():
            raise ValueError(f"{program} did not print {path.name}: {said[0]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, made.read_bytes())
    return target
