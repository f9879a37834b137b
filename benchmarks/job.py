"""The main job, all seven lessons by ``python -m mnist_helpers run``, on a quiet machine and beside a busy program."""

import statistics
import subprocess
import sys
import time

from mnist_helpers.course.tables import Table

from . import busy, spread

COMMAND = ["-m", "mnist_helpers", "run", "--profile", "quick"]  # the full job takes a third of an hour


def seconds():
    """How long the job takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *COMMAND], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def run(repeats=5):
    """``[{"quiet": seconds, "beside a busy program": seconds}]``, the two of a round one after another."""
    rounds = []
    for _ in range(repeats):
        rounds.append({"quiet": seconds()})
        with busy.busy_program():
            rounds[-1]["beside a busy program"] = seconds()
    return rounds


def tables(measured):
    rows = []
    for condition in measured[0]:
        ratio = statistics.median(each[condition] / each["quiet"] for each in measured)
        rows.append([condition, spread([each[condition] for each in measured], ".0f"), f"{ratio:.2f}x"])
    return {f"All seven lessons, by `python {' '.join(COMMAND)}`, in {len(measured)} rounds:": Table(
        ["the machine", "seconds [smallest, largest]", "times as long as quiet"], rows)}
