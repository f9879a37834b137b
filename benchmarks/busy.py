"""Lesson 5's steps on one thread and on all cores, on a quiet machine and beside a program that keeps a core busy."""

import contextlib
import os
import statistics
import subprocess
import sys

from mnist_helpers.course.tables import Table

from . import spread

STEPS = 25
# It ends with the process that started it, however that ends.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
CODE = """
import torch, mnist_helpers as mh
from benchmarks import pipelines
mh.set_threads({threads})
model = pipelines.network("iteration 5")
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
run = mh.fit(model, pipelines.split({steps} * 64), None, epochs=2, optimizer=optimizer)
print(run.history["seconds"][-1] / {steps})
"""


def run(repeats=5):
    """``[{"1 thread, quiet": milliseconds a step, ...}]``, the four of a round one after another."""
    rounds = []
    for _ in range(repeats):
        rounds.append({})
        for busy in (False, True):
            for threads in dict.fromkeys((1, os.cpu_count())):
                with busy_program() if busy else contextlib.nullcontext():
                    rounds[-1][name(threads, busy)] = step(threads)
    return rounds


def name(threads, busy):
    return f"{threads} thread{'s' * (threads > 1)}, {'beside a busy program' if busy else 'quiet'}"


@contextlib.contextmanager
def busy_program():
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def step(threads, steps=STEPS):
    """Milliseconds of one of lesson 5's steps, in a fresh process."""
    code = CODE.format(threads=threads, steps=steps)
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return 1e3 * float(said.stdout.splitlines()[-1])


def tables(measured):
    rows = []
    for each in measured[0]:
        quiet = each.partition(",")[0] + ", quiet"
        ratio = statistics.median(one[each] / one[quiet] for one in measured)
        rows.append([each, spread([one[each] for one in measured], ".1f"), f"{ratio:.1f}x"])
    return {f"Training as lesson 5 does, in {len(measured)} rounds. The lessons use one thread:": Table(
        ["threads", "milliseconds a step [smallest, largest]", "times as long as quiet"], rows)}
