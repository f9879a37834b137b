"""What starting costs: the imports, and opening MNIST from verified files, each in processes of its own."""

import statistics
import subprocess
import sys

from mnist_helpers.results import Table

STEPS = {
    "import torch": "import torch",
    "import mnist_helpers": "import mnist_helpers",
    "import mnist_helpers, load_mnist()": "import mnist_helpers; mnist_helpers.load_mnist(verbose=False)",
}
CLOCK = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def run(repeats=5):
    """``[{step: seconds}]``, the steps of a round one after another."""
    return [{name: float(subprocess.check_output([sys.executable, "-c", CLOCK.format(step)], text=True))
             for name, step in STEPS.items()} for _ in range(repeats)]


def tables(measured):
    rows = []
    for name in STEPS:
        values = sorted(each[name] for each in measured)
        beyond = statistics.median(each[name] - each["import torch"] for each in measured)
        rows.append([name, f"{statistics.median(values):.2f} s [{values[0]:.2f}, {values[-1]:.2f}]", f"{beyond:.2f} s"])
    return {"Start-up, each step in a fresh process:": Table(
        ["step", "seconds [smallest, largest]", "beyond torch's own import"], rows)}
