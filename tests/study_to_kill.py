"""The command line on a project given by its folder: python study_to_kill.py FOLDER ARGUMENT... (see test_study)."""

import sys
from pathlib import Path

from mnist_helpers import data, notebooks, results
from mnist_helpers.__main__ import main

if __name__ == "__main__":
    for module in (data, notebooks, results):
        module.project_root = lambda: Path(sys.argv[1])
    data.fetch = lambda: None  # these notebooks use no images
    sys.exit(main(sys.argv[2:]))
