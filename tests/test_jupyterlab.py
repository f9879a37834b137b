"""Lesson 1 as a learner sees it: a real JupyterLab in a real browser, Run All Cells, look at the page."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from mnist_helpers import notebooks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab that serves the first lesson, without its outputs, in the quick profile."""
    notebook = nbformat.read(notebooks.folder() / "01_baseline.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, tmp_path / "01_baseline.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_DATA_DIR": str(tmp_path / "data"),
                "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "MNIST_PROFILE": "quick"}
    # Or JupyterLab keeps only the visible cells on the page.
    tracker = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text('{"windowingMode": "none"}')
    process = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
         "--IdentityProvider.token=", "--ServerApp.password=", str(tmp_path)],
        env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/lab"
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
        with urllib.request.urlopen(lab.removesuffix("/lab") + "/api/sessions", timeout=5) as reply:
            kernels = [session["kernel"] for session in json.load(reply)]
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return
        assert time.monotonic() < deadline, f"the page did not reach its kernel: {kernels}"
        time.sleep(0.2)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_lesson_1_runs_in_jupyterlab(lab, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1300, "height": 9_000})
        page.goto(f"{lab}/tree/01_baseline.ipynb?reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=90_000)
        wait_for_kernel(lab)
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells >> nth=0")
        page.wait_for_function(  # every code cell has its number, the last one too
            "() => { const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];"
            " return prompts.length > 15 && prompts.every(p => /\\[\\d+\\]/.test(p.textContent)); }", timeout=240_000)
        text = page.inner_text(".jp-NotebookPanel")
        figures = page.locator(".jp-OutputArea-output img").count()
        errors = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'],"
                              ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count()
        page.screenshot(path=tmp_path / "lesson.png")
        browser.close()
    assert "epoch 1/1 100%" in text and "Total params: 26,714" in text, "the progress bar and the summary"
    assert "01_baseline (" in text and "quick" in text, "the table, of this run"
    assert figures == 7 and errors == 0
    assert (tmp_path / "lesson.png").stat().st_size > 100_000
