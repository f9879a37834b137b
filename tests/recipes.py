"""The recipe of a notebook, run for three epochs of the digits sample and stopped in the middle: for the tests."""

import linecache

from torch.optim.optimizer import register_optimizer_step_post_hook

from mnist_helpers import data
from mnist_helpers.course import notebooks
from mnist_helpers.run import Run


def run(path, **parameters):
    """The `Run`s that the recipe of a notebook makes, by name, with other ``parameters`` than those written there.

    The sources are where tracebacks and the recipe's identity look for them, as a kernel keeps them.
    """
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(notebooks.tagged(notebooks.read(path), "parameters", "recipe")):
        name = f"{path.name}, cell {number}"
        linecache.cache[name] = len(cell.source), None, cell.source.splitlines(keepends=True), name
        exec(compile(cell.source, name, "exec"), scope)
        if "parameters" in cell.metadata.tags:
            scope |= parameters
    return {name: value for name, value in scope.items() if isinstance(value, Run)}


def stop_at(step):
    """Interrupt after so many steps of whatever optimiser, as a reader does; returns the handle that ends this."""
    done = []

    def count(*unused):
        done.append(1)
        if len(done) == step:
            raise KeyboardInterrupt
    return register_optimizer_step_post_hook(count)


def no_mnist(*unused, **options):
    raise data.DownloadError("this does without it")


def at_most_three(dataset, full):
    return min(full, 3)
