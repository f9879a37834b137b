"""Settings for every test: the quick profile unless MNIST_PROFILE says otherwise, and a hard limit for each cell."""

import os

SECONDS_PER_CELL = {"quick": 120, "full": 7200}
NBVAL_DEFAULT = 2000


def pytest_configure(config):
    # Kernels started by nbval inherit these.
    profile = os.environ.setdefault("MNIST_PROFILE", "quick")
    if config.option.nbval_cell_timeout == NBVAL_DEFAULT:
        config.option.nbval_cell_timeout = SECONDS_PER_CELL.get(profile, NBVAL_DEFAULT)
