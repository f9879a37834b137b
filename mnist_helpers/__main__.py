"""The command line: ``python -m mnist_helpers run | study | table | data | doctor | publish``.

Exit codes: 0 all went well, 1 something failed (and is named), 2 the command was wrong, 130 interrupted.
"""

import argparse
import io
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

try:
    from . import data, doctor, notebooks, plots, results, scoreboard
    from .study import WorkersLost, missing, study
except ModuleNotFoundError as error:
    sys.exit(f"{error}: run `pip install -r requirements.txt` in the course's folder, with the Python that runs this")


def parser():
    main = argparse.ArgumentParser(prog="python -m mnist_helpers", description="Run the course's notebooks.")
    commands = main.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="execute notebooks (by default the seven lessons) and show their results")
    run.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="such as 03_twenty_epochs")
    run.add_argument("--seed", type=int, help="instead of the seed written in each notebook")
    run.add_argument("--profile", choices=("full", "quick"), help="default: MNIST_PROFILE, or full")
    run.add_argument("--save", action="store_true",
                     help="keep the outputs in the notebooks and the runs as the course's own (full runs on MNIST)")
    seeds = commands.add_parser("study", help="run notebooks under many seeds, on all cores; go on where it stopped")
    seeds.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="by default the seven lessons")
    seeds.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N-1 (default: 5)")
    seeds.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    seeds.add_argument("--scheduler", metavar="ADDRESS", help="run on the Dask cluster at tcp://HOST:PORT instead")
    table = commands.add_parser("table", help="show the recorded results")
    table.add_argument("--write", action="store_true", help="and write the course's own into README.md")
    address = commands.add_parser("publish", help="stamp the course's address into badges and set-up cells")
    address.add_argument("repository", metavar="OWNER/NAME")
    address.add_argument("--branch", default="main")
    commands.add_parser("data", help="download MNIST if need be, and verify it")
    commands.add_parser("doctor", help="check Python, packages, device, data and Jupyter")
    return main


def main(arguments=None):
    options = parser().parse_args(arguments)
    try:
        commands = {"run": run, "study": seed_study, "table": table, "data": fetch, "doctor": check,
                    "publish": publish}
        return commands[options.command](options)
    except FileNotFoundError as error:
        return fail(error, 2)
    except (data.DataError, ValueError, ModuleNotFoundError, OSError) as error:
        return fail(error, 1)
    except KeyboardInterrupt:
        return fail("interrupted", 130)


def fail(message, code):
    print(message, file=sys.stderr)
    return code


def run(options):
    profile = options.profile or data.profile()
    if options.save and profile != "full":
        return fail("--save keeps full runs only: leave out --profile quick", 2)
    if options.save and options.seed is not None:
        return fail("--save keeps the seed written in each notebook: leave out --seed", 2)
    paths = notebooks.find(options.notebooks)
    if not paths:
        return fail(f"there are no notebooks in {notebooks.folder()}", 2)
    runs, failed = [], []
    try:
        for number, path in enumerate(paths, start=1):
            print(f"\n[{number}/{len(paths)}] {path.name}", flush=True)
            execution = in_own_process(path, options.seed, profile)
            error = keep(execution, options.save)
            runs += execution.runs
            if error:
                failed.append(path.name)
                fail(f"{path.name} failed after {execution.seconds:.0f} s:\n{error}", 1)
            else:
                print(f"[{number}/{len(paths)}] {path.name}: done in {execution.seconds:.0f} s", flush=True)
    finally:  # also for whoever interrupts the last of seven
        if runs:
            print(f"\n{results.table(runs)}")
        if options.save:
            write_readme()
    return fail(f"failed: {', '.join(failed)}", 1) if failed else 0


def keep(execution, save):
    """Record the runs of an execution, and with ``save`` its outputs; return what went wrong in it or here, or None."""
    error = execution.error
    try:
        if save and not error:
            notebooks.save(execution)
    except (ValueError, OSError) as refusal:
        error = str(refusal)
    try:
        for record in execution.runs:
            if save and not error:
                record["reference"] = True
            if record["profile"] == "full":
                results.append(record)
    except OSError as failure:
        error = error or str(failure)
    return error


def seed_study(options):
    if options.seeds < 1 or (options.workers is not None and options.workers < 1):
        return fail("--seeds and --workers must be at least 1", 2)
    paths, seeds, failures = notebooks.find(options.notebooks), range(options.seeds), 0
    if not options.scheduler:
        data.fetch()  # once, and not by every run
    try:
        for execution in study(paths, seeds, options.workers, options.scheduler):
            if execution.error:
                failures += 1
                fail(f"{execution.path.name} failed after {execution.seconds:.0f} s:\n{execution.error}", 1)
    except (WorkersLost, OSError) as error:
        fail(error, 1)
    recorded = results.read()
    print(f"\n{results.table(results.latest(recorded, reference=True, seed=0).values(), recorded)}")
    left = missing(paths, seeds, recorded)
    for path in dict.fromkeys(path for path, _ in left):
        fail(f"missing: {path.name}, seeds {', '.join(str(seed) for other, seed in left if other == path)}", 1)
    return 1 if failures or left else 0


def in_own_process(path, seed, profile):
    """`notebooks.execute` in a fresh process, spawned so that it is the same on every system."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(notebooks.execute, path, seed, profile).result()
        except BrokenProcessPool:
            return notebooks.Execution(path, error="its process was killed (out of memory?)")


def table(options):
    runs = results.read()
    if not runs:
        return fail(f"no runs are recorded in {results.runs_file()}: python -m mnist_helpers run", 1)
    print(results.table(results.latest(runs).values(), runs))
    if options.write:
        write_readme()
    return 0


def write_readme():
    """The README's table and the figure below it, from the course's own runs."""
    runs = results.read()
    readme = data.project_root() / "README.md"
    text = results.readme_table(readme.read_text(encoding="utf-8"), runs)
    data.replace_file(readme, scoreboard.readme_section(text))
    if means := results.means(runs):
        tests, measured = zip(*means.values(), strict=True)
        figure = plots.accuracies(
            [name.removesuffix(".ipynb") for name in means], [mean.mean for mean in tests],
            [(mean.low, mean.high) for mean in tests], [mean.mean for mean in measured],
            [results.PUBLISHED[name][0] for name in means], "MNIST", "Seven networks, three measures: means over seeds")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120, metadata={"Description": results.digest(means)})
        data.replace_file(results.figure_file(), picture.getvalue())


def publish(options):
    for path in notebooks.publish(options.repository, options.branch):
        print(path.relative_to(data.project_root()))
    return 0


def fetch(options):
    print(f"four verified files in {data.fetch()}")
    return 0


def check(options):
    return 0 if doctor.report() else 1


if __name__ == "__main__":
    sys.exit(main())
