"""The command line: ``python -m benchmarks [BENCHMARK ...] [--save]``."""

import argparse
import json
import os
from pathlib import Path

import torch

import mnist_helpers as mh
from mnist_helpers import data, files
from mnist_helpers.course import pages

from . import busy, epoch, growth, job, levers, limit, pipelines, startup, time_to_accuracy

BENCHMARKS = {"epoch": epoch, "time-to-accuracy": time_to_accuracy, "limit": limit, "growth": growth,
              "startup": startup, "busy": busy, "job": job, "levers": levers}
ON_GPU = ("epoch", "time-to-accuracy")  # the others measure a processor


def machine():
    """What the figures were measured on."""
    devices = " and ".join(mh.device.describe(torch.device(name)) for name in pipelines.devices())
    return f"{devices}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def results_file():
    return data.project_root() / "results" / "benchmarks.json"


def page():
    """The page that shows the course's own measurements."""
    return data.project_root() / "site" / "speed.md"


def key(name, device):
    """What the measurements of a benchmark are kept under."""
    return name if device == "cpu" else f"{name}, {device}"


def text(measured):
    """The tables of ``{key: {"machine", "measured"}}`` as Markdown: the processor's, then a GPU's."""
    parts = []
    for device, heading in (("cpu", []), ("cuda", ["### On a GPU"])):
        tables, on = [], {}
        for name, module in BENCHMARKS.items():
            if kept := measured.get(key(name, device)):
                tables += [f"{caption}\n\n{table._repr_markdown_()}"
                           for caption, table in module.tables(kept["measured"]).items()]
                on.setdefault(kept["machine"], []).append(name)
        parts += (heading if tables else []) + tables + [
            f"Measured on {machine}: {', '.join(names)}." for machine, names in on.items()]
    return "\n\n".join([*parts, *missing(measured)])


def missing(measured):
    """Which figures a GPU would add."""
    names = [f"`{name}`" for name in ON_GPU if name in measured and key(name, "cuda") not in measured]
    return [f"Not measured on a GPU: {' and '.join(names)}."] if names else []


def with_tables(measured):
    """The text of `page` with the tables of ``measured``. Raises `ValueError` if the page lacks their markers."""
    return pages.between(page().read_text(encoding="utf-8"), "benchmarks", text(measured))


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, and print tables.")
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are taken over them (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="and write the measurements there")
    parser.add_argument("--save", action="store_true",
                        help="and keep them as the course's own, in results/benchmarks.json and site/speed.md")
    options = parser.parse_args()
    if unknown := set(options.benchmarks) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    try:
        if data.profile() != "full":
            parser.error("only the full profile is measured: unset MNIST_PROFILE")
        if options.json:  # find out before measuring, not after it
            open(options.json, "a", encoding="utf-8").close()
        if pipelines.mnist().name != "mnist":
            parser.error(f"speed is measured on MNIST, and this is {pipelines.mnist()}: python -m mnist_helpers data")
    except (data.DataError, OSError) as error:
        parser.error(str(error))
    kept, measured = {}, {}
    if options.save:
        try:
            kept = json.loads(results_file().read_text(encoding="utf-8")) if results_file().exists() else {}
            with_tables(kept)
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            parser.error(f"{page()} cannot show what {results_file()} holds ({error!r}). Check the page's two markers. "
                         "If the measurements are of another version, move them away and measure everything.")
    print(machine())
    (device,) = pipelines.devices()
    for name in options.benchmarks or (BENCHMARKS if device == "cpu" else ON_GPU):
        found = BENCHMARKS[name].run(repeats=options.repeats)
        measured[key(name, device)] = {"machine": machine(), "measured": found}
        for caption, table in BENCHMARKS[name].tables(found).items():
            print(f"\n{caption}\n\n{table}", flush=True)
        if options.save:
            files.replace_file(results_file(), json.dumps(kept | measured, indent=1) + "\n")
            files.replace_file(page(), with_tables(kept | measured))
        if options.json:
            files.replace_file(options.json, json.dumps(measured, indent=1) + "\n")
    print("", *missing(measured), sep="\n")


if __name__ == "__main__":
    main()
