"""A course of its own, for tests of what keeps a course: notebooks whose runs take a second, and their catalogue.

    python tests/project.py FOLDER ARGUMENT...      its command line, in a process to be killed

Each process that a run spawns imports this module again, so its functions import what takes long.
"""

import signal
import sys
from pathlib import Path

from mnist_helpers.course import catalogue

# Records a run without importing torch. Bad fails after it has recorded, until there is a file called mended.
SOURCE = """
import os, time
from pathlib import Path
from mnist_helpers.course import records
print("step 1", end="\\r")
print("done, with seed", SEED)
time.sleep({seconds})
made, collected = {record}, Path(os.environ["MNIST_COLLECT"])
made |= dict(id=f"{name}-s{{SEED}}-0", seed=SEED, test_correct=90 + SEED, test_accuracy=0.9 + SEED / 100,
             profile=os.environ["MNIST_PROFILE"], mistakes={{str(image): 0 for image in range(10 - SEED)}})
(collected / f"{{made['id']}}.safetensors").write_bytes(b"weights")
records.append(made, collected / "records.jsonl")
if "{name}" == "Bad" and not Path({folder!r}, "mended").exists():
    1 / 0
"""
NETWORKS = {"Good": "01_good", "Bad": "02_bad", "Digits": "03_digits", "Slow": "04_slow"}


def record(name, notebook, **changes):
    """A valid record of a full run on MNIST, seed 0."""
    from mnist_helpers import checkpoint

    card = {"device": "cpu", "threads": 1, "precision": "float32", "versions": {"torch": "2"},
            "package": checkpoint.package_digest()}
    return {"id": f"{name}-s0-0", "notebook": notebook, "model": name, "parameters": 8, "seed": 0, "epochs": 1,
            "profile": "full", "dataset": "mnist", "train_images": 100, "val_accuracy": 0.5, "test_accuracy": 0.9,
            "test_loss": 0.1, "test_correct": 90, "test_total": 100, "seconds": 1.0, "card": card, "val_curve": [0.5],
            "trace": [1.0], "mistakes": {str(image): 0 for image in range(10)}} | changes


def cell(source, *tags):
    import nbformat

    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def write(path, *cells):
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=list(cells))
    notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def make(folder):
    """Write the notebooks of `NETWORKS` below ``folder``."""
    for name, notebook in NETWORKS.items():
        made = record(name, notebook, dataset="digits" if name == "Digits" else "mnist")
        source = SOURCE.format(name=name, folder=str(folder), record=made, seconds=600 if name == "Slow" else 0.5)
        write(folder / "notebooks" / f"{notebook}.ipynb", cell("SEED = 5", "parameters"), cell(source, "recipe"))


def settle(folder, replace=setattr):
    """Have the package take ``folder`` for its project; ``replace`` is `setattr`, or pytest's, which is undone."""
    from mnist_helpers import checkpoint, data
    from mnist_helpers.course import notebooks, pages, records, stamps

    networks = tuple(catalogue.Network(name, notebook, 8, 1, {}, lesson=number, title=name) for number, (name, notebook)
                     in enumerate(NETWORKS.items(), start=1))
    for module in (data, checkpoint, notebooks, records, stamps):
        replace(module, "project_root", lambda: folder)
    replace(catalogue, "read", lambda: networks)
    replace(data, "damaged", lambda root=None: {})
    replace(data, "fetch", lambda: None)  # these notebooks use no images
    replace(pages, "write_pages", lambda: (folder / "README.md").write_text("written", encoding="utf-8"))


if __name__ == "__main__":
    from mnist_helpers.__main__ import main

    # As from a terminal, whatever the tests were started from: nohup and background shells ignore these two.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    settle(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
