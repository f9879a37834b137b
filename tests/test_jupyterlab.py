"""Notebooks as a learner sees them: a real JupyterLab in a real browser, Run All Cells, look at the page."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest

import mnist_helpers as mh
from mnist_helpers.course import notebooks

pytestmark = pytest.mark.slow

SHOWN = ["01_baseline", "05_under_20k", "draw_a_digit"]

# Every code cell has its number, the last one too.
NUMBERED = """() => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")]
        .filter(prompt => !prompt.closest(".jp-Cell").querySelector(".jp-Placeholder"));  // the set-up is folded
    return prompts.length > 10 && prompts.every(prompt => /\\[\\d+\\]/.test(prompt.textContent)); }"""


@pytest.fixture
def lab(browser, tmp_path, monkeypatch):  # the browser first: where there is none, nothing is served
    """The address of a JupyterLab that serves `SHOWN`, without their outputs, in the quick profile; to whom has its
    token, for a server without one would run anything for any user of the machine."""
    token = secrets.token_hex(16)
    for name in SHOWN:
        notebook = nbformat.read(notebooks.folder() / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    monkeypatch.setenv("MNIST_IDEAS", str(tmp_path / "own"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_DATA_DIR": str(tmp_path / "data"),
                "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "MNIST_PROFILE": "quick"}
    # Or JupyterLab keeps only the visible cells on the page.
    tracker = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}', encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
         "--ServerApp.password=", str(tmp_path)],
        env=os.environ | settings | {"JUPYTER_TOKEN": token}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/lab?token={token}"
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "JupyterLab did not start"
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def wait_for_kernel(lab):
    """Until the page is connected to its kernel: asked to run anything earlier, JupyterLab opens a dialog instead."""
    deadline = time.monotonic() + 90
    while True:
        with urllib.request.urlopen(lab.replace("/lab?", "/api/sessions?"), timeout=5) as reply:
            kernels = [session["kernel"] for session in json.load(reply)]
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return
        assert time.monotonic() < deadline, f"the page did not reach its kernel: {kernels}"
        time.sleep(0.2)


@contextlib.contextmanager
def run_all(browser, lab, name):
    """The page of a notebook after Run All Cells, every code cell with its number and none with an error."""
    with contextlib.closing(browser.new_page(viewport={"width": 1300, "height": 9_000})) as page:
        page.goto(lab.replace("/lab?", f"/lab/tree/{name}.ipynb?reset&"))
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=90_000)
        wait_for_kernel(lab)
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells >> nth=0")
        page.wait_for_function(NUMBERED, timeout=240_000)
        assert not page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'],"
                                ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count()
        yield page


def test_who_has_no_token_is_not_let_in(lab):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(lab.partition("/lab")[0] + "/api/sessions", timeout=5)


@pytest.mark.parametrize(("name", "said", "figures"), [
    ("01_baseline", ["epoch 1/1 100%", "Total params: 26,714", "this run, "], 9),
    ("05_under_20k", ["epoch 2/2 100%", "Total params: 18,422", "this run, "], 3),
])
def test_a_lesson_runs_in_jupyterlab(browser, lab, tmp_path, name, said, figures):
    with run_all(browser, lab, name) as page:
        text = page.inner_text(".jp-NotebookPanel")
        missing = [each for each in [*said, "quick"] if each not in text]
        assert not missing, "of the progress bar, the summary, and this run's row of the table"
        assert page.locator(".jp-OutputArea-output img").count() == figures
        page.screenshot(path=tmp_path / "lesson.png")
    assert (tmp_path / "lesson.png").stat().st_size > 100_000


def test_a_digit_drawn_with_the_mouse_is_read_and_kept(browser, lab, tmp_path):
    """The page's keys and buttons are the canvas's: JupyterLab would make a heading of a cell at a digit."""
    one, seven = [(150, 60), (140, 130), (130, 220)], [(80, 70), (190, 65), (160, 140), (140, 225)]
    with run_all(browser, lab, "draw_a_digit") as page:
        canvas = page.get_by_label("Draw a digit here")
        answers = page.locator(".draw-digit")
        answers.first.wait_for()
        assert answers.all_inner_texts().count("3") >= 5, "the stored drawing it begins with"
        for digit, (start, *points) in (("1", one), ("7", seven)):
            page.get_by_role("button", name="Clear").click()
            page.wait_for_function("() => !document.querySelector('.draw-digit').textContent")
            box = canvas.bounding_box()
            page.mouse.move(box["x"] + start[0], box["y"] + start[1])
            page.mouse.down()
            for x, y in points:
                page.mouse.move(box["x"] + x, box["y"] + y, steps=8)
            page.mouse.up()
            page.wait_for_function("() => document.querySelector('.draw-digit').textContent")
            assert answers.all_inner_texts().count(digit) >= 5, answers.all_inner_texts()
            page.locator(".draw").screenshot(path=tmp_path / f"{digit}.png")
            assert (tmp_path / f"{digit}.png").stat().st_size > 5_000
        cells = page.locator(".jp-Cell").count()
        page.keyboard.press("7")
        page.wait_for_function("() => document.querySelector('.draw-said').textContent.startsWith('Kept as 7')")
        page.wait_for_function("() => !document.querySelector('.draw-digit').textContent")
        for key in ("Space", "ArrowDown", "PageDown", "Space"):
            page.keyboard.press(key)
        page.wait_for_function("() => document.querySelector('.draw-digit').textContent")
        page.get_by_role("button", name="Keep as 1").focus()
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('.draw-said').textContent.startsWith('Kept as 1')")
        assert page.locator(".jp-Cell").count() == cells and not page.locator(".jp-mod-editMode .cm-focused").count()
        assert mh.drawings().labels.tolist() == [7, 1]
