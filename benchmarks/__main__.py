"""The command line: ``python -m benchmarks [epoch] [time-to-accuracy] [limit] [growth] [startup] [--json FILE]``."""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch

from mnist_helpers import data, results, training

from . import epoch, growth, limit, pipelines, startup, time_to_accuracy

BENCHMARKS = {"epoch": epoch, "time-to-accuracy": time_to_accuracy, "limit": limit, "growth": growth,
              "startup": startup}
MARKERS = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"


def machine():
    """What the figures were measured on."""
    devices = " and ".join(training.describe(torch.device(name)) for name in pipelines.devices())
    return f"{devices}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def results_file():
    return data.project_root() / "results" / "benchmarks.json"


def text(measured):
    """The tables of ``{benchmark: {"machine", "measured"}}`` as Markdown."""
    parts, on = [], {}
    for name, module in BENCHMARKS.items():
        if name in measured:
            parts += [f"{caption}\n\n{table._repr_markdown_()}"
                      for caption, table in module.tables(measured[name]["measured"]).items()]
            on.setdefault(measured[name]["machine"], []).append(name)
    return "\n\n".join([*parts, *(f"Measured on {machine}: {', '.join(names)}." for machine, names in on.items()),
                        *missing(measured)])


def missing(measured):
    """Which figures a GPU would add, where none was there to measure them."""
    names = [f"`{name}`" for name in ("epoch", "time-to-accuracy")
             if name in measured and "cuda" not in measured[name]["machine"]]
    return [f"There was no CUDA device, whose rows are missing: {' and '.join(names)}."] if names else []


def readme_section(readme, measured):
    """The README's text with the tables of ``measured`` between its two markers."""
    return results.between(readme, MARKERS, text(measured))


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and print tables.")
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are taken over them (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="and write the measurements there")
    parser.add_argument("--save", action="store_true",
                        help="and keep them as the course's own, in results/benchmarks.json and the README")
    options = parser.parse_args()
    if unknown := set(options.benchmarks) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if options.json and options.json.is_dir():
        parser.error(f"{options.json} is a folder, not a file")
    try:
        if options.json:  # known before measuring, not after it
            tempfile.TemporaryFile(dir=options.json.absolute().parent).close()
    except OSError as error:
        parser.error(f"{options.json} cannot be written: {error.strerror}")
    try:
        if data.profile() != "full":
            parser.error("only the full profile is measured: unset MNIST_PROFILE")
        if pipelines.mnist().name != "mnist":
            parser.error(f"speed is measured on MNIST, and this is {pipelines.mnist()}: python -m mnist_helpers data")
    except data.DataError as error:
        parser.error(str(error))
    readme, kept = data.project_root() / "README.md", {}
    if options.save:
        try:
            kept = json.loads(results_file().read_text()) if results_file().exists() else {}
            readme_section(readme.read_text(encoding="utf-8"), kept)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            parser.error(f"what {results_file()} holds cannot be shown in the README ({error!r}): see that the README "
                         "has its two markers, or move the file away, if it is of another version, and measure "
                         "everything")
    measured = {}
    print(machine())
    for name in options.benchmarks or BENCHMARKS:
        measured[name] = {"machine": machine(), "measured": BENCHMARKS[name].run(repeats=options.repeats)}
        for caption, table in BENCHMARKS[name].tables(measured[name]["measured"]).items():
            print(f"\n{caption}\n\n{table}", flush=True)
        if options.save:
            data.replace_file(results_file(), json.dumps(kept | measured, indent=1) + "\n")
            data.replace_file(readme, readme_section(readme.read_text(encoding="utf-8"), kept | measured))
        if options.json:
            data.replace_file(options.json, json.dumps(measured, indent=1) + "\n")
    print("", *missing(measured), sep="\n")


if __name__ == "__main__":
    main()
