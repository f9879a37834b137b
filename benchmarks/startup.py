"""What starting costs: the imports, opening MNIST from verified files, the doctor; each in processes of its own."""

import statistics
import subprocess
import sys

from mnist_helpers.course.tables import Table

from . import spread

STEPS = {
    "import torch": "import torch",
    "import mnist_helpers": "import mnist_helpers",
    "import mnist_helpers, load_mnist()": "import mnist_helpers; mnist_helpers.load_mnist(verbose=False)",
    "python -m mnist_helpers doctor": "from mnist_helpers.course import doctor; doctor.report()",
}
CLOCK = "import time; started = time.perf_counter(); {}; print(time.perf_counter() - started)"


def run(repeats=5):
    """``[{step: seconds}]``, the steps of a round one after another."""
    return [{name: seconds(step) for name, step in STEPS.items()} for _ in range(repeats)]


def seconds(step):
    said = subprocess.check_output([sys.executable, "-c", CLOCK.format(step)], text=True)
    return float(said.splitlines()[-1])  # before it stands what the step itself prints


def tables(measured):
    rows = []
    for name in STEPS:
        beyond = statistics.median(each[name] - each["import torch"] for each in measured)
        rows.append([name, spread([each[name] for each in measured], ".2f", " s"),
                     f"{beyond:.2f} s" if beyond >= 0 else "torch is not imported"])
    return {f"Start-up, in {len(measured)} rounds, each step in a fresh process:": Table(
        ["step", "seconds [smallest, largest]", "beyond torch's own import"], rows)}
