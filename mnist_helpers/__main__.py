"""The command line: ``python -m mnist_helpers run | lab | update | study | verify | ...``.

Exit codes: 0 all went well, 1 something failed (and is named), 2 the command was wrong, 130 interrupted (143 by a
signal to end). What a command needs is imported when it runs.
"""

import argparse
import difflib
import os
import re
import sys
from pathlib import Path

from .version import __version__

ROOT = Path(__file__).resolve().parents[1]
INSTALL = "run `pip install -r requirements.txt` in the course's folder, with the Python that runs this"
LESSONS, EXAMPLE = "by default the seven lessons", "such as 03_twenty_epochs"
PROFILES = ("full", "quick", "recorded")
JOBS = "notebooks at once (default: as many as cores and free memory allow)"
THREADS = "that PyTorch may use in each notebook (default: OMP_NUM_THREADS, or 1)"


class Parser(argparse.ArgumentParser):
    """One that asks whether the nearest word was meant, as argparse does itself from Python 3.14 on."""

    def error(self, message):
        found = re.search(r"invalid choice: '(.+?)' \(choose from (.+)\)$", message)
        near = difflib.get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), 1) if found else []
        super().error(f"there is no {found[1]!r}; did you mean {near[0]}?" if near else message)


def parser() -> argparse.ArgumentParser:
    main = Parser(prog="python -m mnist_helpers", description="Run the course's notebooks.")
    main.add_argument("--version", action="version", version=f"mnist-helpers {__version__}")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, function, help, notebooks=None):
        added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:])
        added.set_defaults(function=function)
        if notebooks:
            added.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help=f"{EXAMPLE}; {notebooks}")
        return added

    run = command("run", run_notebooks, "execute notebooks, several at once, and show their results (1 to 15 minutes a "
                  "lesson; with --profile recorded a minute a lesson, with quick half of one)", LESSONS)
    run.add_argument("--seed", type=int, help="instead of the seed written in each notebook")
    run.add_argument("--profile", choices=PROFILES, help="default: MNIST_PROFILE, or full")
    run.add_argument("--threads", type=int, metavar="N", help=THREADS)
    run.add_argument("--jobs", type=int, metavar="N", help=JOBS)
    run.add_argument("--save", action="store_true",
                     help="keep outputs and records as the course's own (full runs on MNIST)")
    study = command("study", study_seeds, "run notebooks under many seeds, on all cores; go on where it stopped "
                    "(hours)", LESSONS)
    study.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (default: 5)")
    study.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default: 0)")
    study.add_argument("--workers", type=int, metavar="N", help=JOBS)
    study.add_argument("--threads", type=int, default=1, metavar="N", help="that each worker may use (default: 1)")
    study.add_argument("--scheduler", metavar="ADDRESS", help="run on the Dask cluster at tcp://HOST:PORT or "
                       "tls://HOST:PORT instead; over tcp anyone who reaches the port can run code on the workers")
    verify = command("verify", verify_records, "train the first hundred steps of each recorded run again, compare, and "
                     "stamp it (10 seconds a notebook and seed)", "by default every one with records")
    verify.add_argument("--seeds", action="store_true", help="every recorded seed, instead of seed 0")
    verify.add_argument("--since", metavar="COMMIT", help="on another processor than the records': compare with what "
                        "the code of this commit computes here, and let those records stand that belong to it")
    refresh = command("refresh", refresh_outputs, "store outputs anew without training: recorded runs are replayed (a "
                      "minute a notebook)", "by default all")
    refresh.add_argument("--train", action="store_true", help="train where there is no recorded run to replay, "
                         "and keep what experiments train")
    refresh.add_argument("--jobs", type=int, metavar="N", help=JOBS)
    table = command("table", show_tables, "show the course's results (seconds)")
    table.add_argument("--write", action="store_true",
                       help="and write them, and every marked figure, into the pages and notebooks")
    command("data", fetch_data, "download MNIST if need be, and verify it (seconds; 12 MB)")
    command("second-test", open_second_test, "evaluate the kept networks on QMNIST's 50,000 further test digits (about "
            "10 MB to download; minutes)")
    command("doctor", check_machine, "check Python, packages, device, data and Jupyter (seconds)")
    command("lab", open_lab, "open JupyterLab on your own copies of the notebooks, in work/; options of jupyter lab "
            "can follow")
    command("update", update_course, "bring the course up to date; what you changed in its files is put aside, and "
            "nothing is lost (seconds)")
    gift = command("gift", give_network, "write a notebook with a network and its weights for a friend, which needs "
                   "torch, numpy and matplotlib and nothing of the course (seconds)")
    gift.add_argument("notebook", metavar="NOTEBOOK", help=f"that defines the network, {EXAMPLE}; or a path")
    gift.add_argument("--network", metavar="CLASS", help="(default: the lesson's, or the idea's)")
    gift.add_argument("--idea", type=int, metavar="N", help="with the weights of this idea of mh.ideas()")
    gift.add_argument("--weights", metavar="FILE", help="with these: a state_dict of torch.save or safetensors")
    gift.add_argument("--to", metavar="FILE", help="(default: the network's name, in this folder)")
    slides = command("slides", write_slides, "write a deck of slides of each notebook: question, finding, figures, "
                     "result box (seconds)", LESSONS)
    slides.add_argument("--to", default=".", metavar="FOLDER", help="(default: this folder)")
    slides.add_argument("--reveal", metavar="WHERE", help="an address of reveal.js or, for a room without a network, a "
                        "folder with it (default: jsdelivr.net)")
    paper = command("print", print_notebooks, "print notebooks as they are stored to PDFs, with the Chromium, Chrome "
                    "or Edge that is there (seconds)", LESSONS)
    paper.add_argument("--to", default=".", metavar="FOLDER", help="(default: this folder)")
    release = command("release", make_release, "write constraints.txt and the changelog's numbers, and say what stands "
                      "in the way of a release; with a version, make it: commit and tag (seconds)")
    release.add_argument("version", nargs="?", metavar="VERSION", help="two or three numbers, such as 1.2")
    handout = command("handout", write_handout, "write pupils' copies: without answers and outputs, with cells for "
                      "nbgrader (a second)", LESSONS)
    handout.add_argument("--to", required=True, metavar="FOLDER")
    handout.add_argument("--seed-from", metavar="NAMES", help="a text file of names, one a line: each gets a folder "
                         "and a seed")
    grading = command("grade", grade_submissions, "execute and check each notebook made by handout below a folder, in "
                      "the quick profile, and write a CSV (1 to 3 minutes each)")
    grading.add_argument("folder", metavar="FOLDER")
    grading.add_argument("--limit", type=int, default=600, metavar="SECONDS", help="for each (default: 600)")
    grading.add_argument("--csv", metavar="FILE", help="(default: grades.csv in that folder)")
    grading.add_argument("--jobs", type=int, metavar="N", help=JOBS)
    collect = command("collect", collect_runs, "draw the test accuracies that a class handed in as a histogram of "
                      "seeds (seconds)")
    collect.add_argument("folder", metavar="FOLDER")
    translate = command("translate", translate_notebooks, "copy notebooks to notebooks/lang/LANGUAGE/, to be "
                        "translated there, or bring the copies up to date: what is translated stays, and what is stale "
                        "is listed (seconds)")
    translate.add_argument("language", metavar="LANGUAGE", help="its code, such as de")
    translate.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help=f"{EXAMPLE}; by default all that "
                           "are there")
    translate.add_argument("--done", nargs="+", default=(), metavar="CELL", help="these stale cells of the notebook "
                           "are translated anew")
    bundle = command("bundle", write_bundle, "write the course, its wheels and MNIST into one folder, for machines "
                     "without a network (minutes; 0.3 to 0.5 GB)")
    bundle.add_argument("--to", required=True, metavar="FOLDER")
    bundle.add_argument("--platform", choices=("windows", "macos", "linux"), help="of those machines, on x86-64 or, "
                        "for macOS, Apple silicon (default: this one's)")
    bundle.add_argument("--python", metavar="VERSION", help="of those machines, such as 3.12 (default: this one's)")
    bundle.add_argument("--index", metavar="URL", help="where torch and torchvision come from (default: for Linux "
                        "PyTorch's builds without CUDA, else where pip finds all)")
    bundle.add_argument("--newest", action="store_true", help="the newest versions, instead of those in "
                        "constraints.txt, which the course's numbers come from")
    publish = command("publish", publish_copies, "commit copies with the course's address, for Colab, to the branch "
                      "published (seconds)")
    publish.add_argument("repository", metavar="OWNER/NAME", nargs="?", help="or its https or ssh address; by default "
                         "the one that git calls origin")
    publish.add_argument("--commit", default="HEAD", help="what to publish (default: HEAD)")
    site = command("site", build_site, "build the course's site, without a network (half a minute)")
    site.add_argument("folder", nargs="?", metavar="FOLDER", help="where to (default: build/site)")
    return main


def main(arguments=None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal may lack a character, such as the minus of a table
    main = parser()
    options, options.rest = main.parse_known_args(arguments)
    if options.rest and options.function is not open_lab:
        main.error(f"unrecognized arguments: {' '.join(options.rest)}")
    errors = ValueError, OSError, LookupError
    try:
        if options.function in STANDARD_LIBRARY:
            return options.function(options)
        from .course.processes import ended_by_signals
        from .download import DataError

        errors += (DataError,)

        with ended_by_signals():
            return options.function(options)
    except FileNotFoundError as error:
        return fail(error, 2)
    except ModuleNotFoundError as error:
        return fail(error if "pip install" in str(error) else f"{error}: {INSTALL}", 1)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except Exception as error:
        if isinstance(error, errors) and str(error):
            return fail(error, 1)
        raise


def fail(message, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def too_few(options, *names) -> str | None:
    """The message about a number below 1 among these options, or None."""
    wrong = [f"--{name}" for name in names if (value := getattr(options, name)) is not None and value < 1]
    return f"{' and '.join(wrong)} must be at least 1" if wrong else None


# ---------------------------------------------------------------- run


def run_notebooks(options) -> int:
    from .course import notebooks

    profile = options.profile or os.environ.get("MNIST_PROFILE") or "full"
    if profile not in PROFILES:
        return fail(f"the profile is {profile!r}: set MNIST_PROFILE to one of {', '.join(PROFILES)}, or unset it", 2)
    if options.save and profile != "full":
        return fail(f"--save keeps full runs only: leave out the profile {profile}, or see refresh", 2)
    if options.save and options.seed is not None:
        return fail("--save keeps the seed written in each notebook: leave out --seed, or see study", 2)
    if message := too_few(options, "threads", "jobs"):
        return fail(message, 2)
    paths, rows, failed = notebooks.find(options.notebooks), {}, set()
    if problem := notebooks.other_package():
        return fail(f"{problem}. `python -m mnist_helpers doctor` tells the remedy", 1)
    try:
        for execution, place in executions(paths, options.seed, profile, options.threads, options.jobs):
            rows[execution.path] = execution.records
            if error := keep(execution, options.save):
                failed.add(execution.path)
                fail(f"{execution.path.name} failed after {execution.seconds:.0f} s:\n{error}", 1)
            else:
                print(f"{place} {execution.path.name}: done in {execution.seconds:.0f} s", flush=True)
    finally:  # also for whoever interrupts the last of seven
        if any(rows.values()):
            print(f"\n{table_of([row for path in paths for row in rows.get(path, ())])}")
            if options.save:
                from .course import pages

                pages.write_pages()
    return fail(f"failed: {', '.join(path.name for path in paths if path in failed)}", 1) if failed else 0


def executions(paths, seed=None, profile="full", threads=None, jobs=None):
    """Yield ``(execution, "[1/7]")`` of each notebook as it is done, ``jobs`` at a time. Of several at once a display
    shows how far they are; of one at a time its output is shown as it comes."""
    from .course import notebooks, processes
    from .course.study import on_this_machine, side_by_side

    def announced():
        for number, path in enumerate(paths, start=1):
            print(f"\n[{number}/{len(paths)}] {path.name}", flush=True)
            yield path, seed, profile, True, None, threads

    threads = threads or processes.threads()
    jobs = min(len(paths), jobs or processes.at_once(threads))
    results = side_by_side(paths, seed, profile, threads, jobs) if jobs > 1 else (
        on_this_machine(notebooks.execute, announced()))
    for number, execution in enumerate(results, start=1):
        yield execution, f"[{number}/{len(paths)}]"


def keep(execution, save) -> str | None:
    """With ``save`` keep an execution as the course's own, else note its full runs on MNIST among the reader's; return
    what went wrong in it or here, or None."""
    from .course import notebooks

    try:
        if save and not execution.error:
            notebooks.save(execution)
        elif not save:
            notebooks.note(execution)
    except (ValueError, OSError) as refusal:
        return execution.error or str(refusal)
    return execution.error


def table_of(rows):
    """The records of these runs, a row each."""
    from .course import tables

    return tables.Table(["network", "seed", "parameters", "epochs", "validation", "test [95 % interval]", "seconds"], [
        [record["model"] + "".join(f", {note}" for note in (record["profile"], record["dataset"])
                                   if note not in ("full", "mnist")),
         str(record["seed"]), f"{record['parameters']:,}", str(record["epochs"]),
         tables.percent(record["val_accuracy"]), tables.with_interval(record), f"{record['seconds']:.0f}"]
        for record in rows])


# ---------------------------------------------------------------- study, verify, refresh


def study_seeds(options) -> int:
    from . import data
    from .course import notebooks
    from .course.study import WorkersLost, missing, study

    if message := too_few(options, "seeds", "workers", "threads"):
        return fail(message, 2)
    paths, seeds, failures = notebooks.find(options.notebooks), range(options.first, options.first + options.seeds), 0
    if not options.scheduler:
        if problem := notebooks.other_package():
            return fail(f"{problem}. `python -m mnist_helpers doctor` tells the remedy", 1)
        data.fetch()  # once, and not by every run
    try:
        for execution in study(paths, seeds, options.workers, options.scheduler, options.threads):
            if execution.error:
                failures += 1
                fail(f"{execution.path.name} failed after {execution.seconds:.0f} s:\n{execution.error}", 1)
    except (WorkersLost, OSError) as error:
        fail(error, 1)
    left = missing(paths, seeds)
    for path in dict.fromkeys(path for path, _ in left):
        fail(f"missing: {path.name}, seeds {', '.join(str(seed) for other, seed in left if other == path)}", 1)
    if not left:
        print("every seed is recorded; `python -m mnist_helpers table --write` shows them and writes the pages")
    return 1 if failures or left else 0


def verify_records(options) -> int:
    from . import checkpoint, data
    from .course import catalogue, notebooks
    from .course.verify import unchanged_since, verify

    if options.since and options.seeds:
        return fail("--since compares seed 0: leave out --seeds", 2)
    # Experiments are stamped too, also in notebooks without a network of the catalogue.
    stamped = [stamp["notebook"] for stamp in checkpoint.stamps().values()]
    names = [network.notebook for network in catalogue.networks()] + stamped
    paths = notebooks.find(options.notebooks or dict.fromkeys(names))
    data.fetch()
    verdicts = []
    for verdict in unchanged_since(options.since, paths) if options.since else verify(paths, options.seeds):
        print(verdict, flush=True)
        verdicts.append(verdict)
    stale = [verdict.id for verdict in verdicts if not verdict.same]
    if stale:
        return fail(f"out of date: {', '.join(stale)}. `run --save` or `study` records them anew", 1)
    print(f"{len(verdicts)} recorded runs belong to the code as it stands")
    return 0


def refresh_outputs(options) -> int:
    from . import data
    from .course import notebooks, verify

    if message := too_few(options, "jobs"):
        return fail(message, 2)
    paths = notebooks.find(options.notebooks) if options.notebooks else notebooks.every()
    if problem := notebooks.other_package():
        return fail(f"{problem}. `python -m mnist_helpers doctor` tells the remedy", 1)
    data.fetch()
    failed = []
    if not options.train:
        for path, reason in ((path, verify.not_replayable(path)) for path in paths):
            if reason:
                failed.append(path.name)
                fail(f"{path.name}: {reason}. --train trains it all the same", 1)
    paths = [path for path in paths if path.name not in failed]
    for execution, place in executions(paths, profile="recorded", jobs=options.jobs):
        try:
            if execution.error:
                raise ValueError(execution.error)
            trained = [] if options.train else verify.trained_anew(execution)
            if trained:
                raise ValueError(f"it trained {', '.join(trained)} instead of replaying a record; --train allows it")
            if options.train:
                notebooks.keep_experiments(execution)
            notebooks.store(execution)
            print(f"{place} {execution.path.name}: stored after {execution.seconds:.0f} s", flush=True)
        except (ValueError, OSError) as error:
            failed.append(execution.path.name)
            fail(f"{execution.path.name} failed after {execution.seconds:.0f} s:\n{error}", 1)
    return fail(f"failed: {', '.join(failed)}", 1) if failed else 0


# ---------------------------------------------------------------- a class


def write_handout(options) -> int:
    from .course import handout, notebooks

    names = handout.students(options.seed_from) if options.seed_from else []
    for path in handout.handout(notebooks.find(options.notebooks), options.to, names):
        print(path)
    return 0


def grade_submissions(options) -> int:
    from . import data
    from .course import grading, processes

    if message := too_few(options, "limit", "jobs"):
        return fail(message, 2)
    print(grading.WARNING, flush=True)
    data.fetch()
    folder, rows = Path(options.folder), []
    target = Path(options.csv) if options.csv else folder / "grades.csv"
    try:
        for row in grading.grade(folder, options.limit, options.jobs or processes.at_once()):
            rows.append(row)
            remark = f" ({row['remark']})" if row["remark"] else ""
            print(f"{row['student']}, {row['notebook']}: {row['points']} of {row['of']} points{remark}", flush=True)
    finally:  # also for whoever interrupts the last of sixty
        if rows:
            grading.write_csv(sorted(rows, key=lambda row: (row["notebook"], row["student"])), target)
            print(f"written: {target}")
    return 0


def collect_runs(options) -> int:
    from .course import grading

    for path, line in grading.collect(options.folder).items():
        print(f"{line}\n{path}")
    return 0


def give_network(options) -> int:
    from .course import gift, notebooks

    print(gift.write(notebooks.find([options.notebook])[0], options.to, network=options.network, number=options.idea,
                     weights=options.weights))
    return 0


def write_slides(options) -> int:
    from .course import notebooks, slides

    for path in notebooks.find(options.notebooks):
        target = Path(options.to) / f"{path.stem}.slides.html"
        print(slides.write(path, target, options.reveal or slides.CDN))
    return 0


def translate_notebooks(options) -> int:
    from .course.translate import translate

    for line in translate(options.language, options.notebooks, options.done):
        print(line)
    return 0


def print_notebooks(options) -> int:
    from .course import notebooks, paper

    for path in notebooks.find(options.notebooks):
        print(paper.write(path, Path(options.to) / f"{path.stem}.pdf"), flush=True)
    return 0


def write_bundle(options) -> int:
    from .course import bundle

    made = bundle.bundle(ROOT, options.to, options.platform or bundle.HERE, options.python, options.index,
                         options.newest)
    wheels = [path.stat().st_size for path in (made / "wheels").iterdir()]
    print(f"{made}: the course, MNIST and {len(wheels)} wheels ({sum(wheels) / 1e6:,.0f} MB). The two lines to type "
          f"there are in INSTALL.txt")
    return 0


# ---------------------------------------------------------------- the rest


def show_tables(options) -> int:
    from .course import pages, records, tables

    if not records.course_records():
        return fail("no runs of the course are recorded: python -m mnist_helpers run --save", 1)
    print(f"{tables.lessons_table(narrow=True)}\n\n{tables.scoreboard()}")
    if options.write:
        pages.write_pages()
    return 0


def fetch_data(options) -> int:
    from . import data

    print(f"four verified files in {data.fetch()}")
    return 0


def open_second_test(options) -> int:
    from .course import pages, second_test

    second_test.measure()
    pages.write_pages()
    return 0


def check_machine(options) -> int:
    from .course import doctor

    return 0 if doctor.report() else 1


def open_lab(options) -> int:
    from .course import copies

    for line in copies.make(ROOT):
        print(line)
    from jupyterlab.labapp import LabApp

    # In the course's folder, so that the originals and the pages are one click away.
    LabApp.launch_instance([f"--ServerApp.root_dir={ROOT}",
                            f"--LabApp.default_url=/lab/tree/{copies.FOLDER}/index.ipynb", *options.rest])
    return 0


def update_course(options) -> int:
    from .course.update import update

    for line in update(ROOT):
        print(line)
    return 0


def make_release(options) -> int:
    from .course import release

    if options.version:
        print(f"to publish it: git push origin HEAD {release.release(options.version)}")
        return 0
    problems = release.prepare()
    for problem in problems:
        fail(problem, 1)
    if problems:
        return fail("no release can be made yet", 1)
    print("nothing stands in the way of a release: commit constraints.txt and CHANGELOG.md, then give its version")
    return 0


def publish_copies(options) -> int:
    from .course import publish

    made = publish.publish(ROOT, options.repository, options.commit)
    print(f"{made[:10]}: git push origin {publish.BRANCH}" if made else f"{publish.BRANCH} has these files already")
    return 0


def build_site(options) -> int:
    from .course import site

    folder = Path(options.folder or ROOT / "build" / "site").resolve()
    print(f"{site.build(folder)} pages in {folder}. To see them: python -m http.server --directory {folder}")
    return 0


# Commands that start where torch is missing or broken: to say so, to bring the course up to date, in a workflow.
STANDARD_LIBRARY = (check_machine, open_lab, update_course, publish_copies)


if __name__ == "__main__":
    sys.exit(main())
