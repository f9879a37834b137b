"""The command line: ``python -m benchmarks epoch | startup [--json FILE]``."""

import argparse
import json
import os
from pathlib import Path

import torch

from mnist_helpers import training

from . import epoch, startup

BENCHMARKS = {"epoch": epoch, "startup": startup}


def machine():
    """What the figures were measured on."""
    return (f"{training.describe(torch.device('cpu'))}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and print a table.")
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are taken over them (default: 5)")
    parser.add_argument("--images", type=int, help="of an epoch (default: all 55,000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="and write the measurements there")
    options = parser.parse_args()
    module = BENCHMARKS[options.benchmark]
    if options.images and module is not epoch:
        parser.error("--images is for the benchmark of an epoch")
    more = {"images": options.images} if options.images else {}
    measured = module.run(repeats=options.repeats, **more)
    print(machine())
    print(module.table(measured))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "measured": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
