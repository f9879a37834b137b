"""Many runs: several notebooks side by side, with one display; and every notebook under every seed, on this machine or
on a Dask cluster, resumable."""

import contextlib
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from . import catalogue, notebooks, processes, records, stamps

EVERY = 10  # seconds between two lines about a notebook, where there is no terminal


class WorkersLost(RuntimeError):
    """The workers of a cluster were killed; what was recorded before is kept."""


def missing(paths: Iterable[Path], seeds: Iterable[int]) -> list[tuple[Path, int]]:
    """The pairs ``(path, seed)`` of which the course lacks an up-to-date record, of any of the notebook's networks.

    Raises `ValueError` for a notebook without a network in the catalogue.
    """
    names = {path: [network.name for network in catalogue.networks() if network.notebook == notebooks.name_of(path)]
             for path in paths}
    if strangers := [path.name for path, own in names.items() if not own]:
        raise ValueError(f"{', '.join(strangers)}: only notebooks with a network in the catalogue can be studied")
    recorded = records.all_seeds()
    done = {(name, seed) for name, runs in recorded.items() for seed, run in runs.items() if not stamps.stale(run)}
    return [(path, seed) for seed in seeds for path, own in names.items() if {(name, seed) for name in own} - done]


def study(paths: Iterable[Path], seeds: Iterable[int], workers: int | None = None, scheduler: str | None = None,
          threads: int = 1) -> Iterator[notebooks.Execution]:
    """Train every notebook's recipe under every seed, except where an up-to-date record exists; yield each `Execution`.

    ``workers`` processes (by default as many as cores and free memory allow) share the work; or, with ``scheduler``,
    the workers of the Dask cluster at that address do it. Each run is recorded as soon as it is done and none is held
    in memory, so that whoever stops the study loses only the runs under way, and the same call does the rest.

    Raises `WorkersLost` if the workers of a cluster are killed.
    """
    from tqdm import tqdm

    paths, seeds = list(paths), list(seeds)
    todo = missing(paths, seeds)
    total = len(paths) * len(seeds)
    print(f"{total} runs, {total - len(todo)} of them done before", flush=True)
    jobs = ((path, seed, path.read_text(encoding="utf-8"), threads) for path, seed in todo)
    executions = on_dask(jobs, scheduler) if scheduler and todo else (
        on_this_machine(notebooks.train, jobs, workers or processes.at_once(threads)))
    with tqdm(total=total, initial=total - len(todo), unit="run") as bar:
        for execution in executions:
            if not execution.error:
                try:
                    notebooks.keep(execution)
                except (ValueError, OSError) as refusal:
                    execution.error = str(refusal)
            bar.update()
            yield execution


def on_this_machine(function, jobs, workers=1, progress=None):
    """The executions that ``function`` returns of jobs ``(path, ...)``, as they are done, each in a process of its own,
    ``workers`` at a time; see `processes.each_in_a_process`."""
    for job, execution in processes.each_in_a_process(function, jobs, workers, progress):
        yield execution or notebooks.Execution(job[0], error=processes.KILLED)


def on_dask(jobs, scheduler):
    """Executions as they are done, by the workers of a Dask cluster, those that join later included, two jobs a worker
    under way at a time.

    A job carries its notebook and returns its records, so that workers need no shared disk: they need this package
    with its requirements, and MNIST (``MNIST_ROOT`` in their environment, or a network). A job whose worker is lost is
    run again by another. Over ``tcp://`` whoever reaches the scheduler's port can run code on its workers: keep the
    port to a network you trust, or start scheduler and workers with certificates and pass ``tls://``.

    Raises `ValueError` for an address that cannot be used.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--scheduler needs Dask's distributed: pip install distributed") from error
    try:
        client = Client(scheduler)
    except (TypeError, ValueError, OSError) as error:  # tls:// without a configuration is a TypeError
        raise ValueError(f"no cluster at {scheduler} ({error}). An address is tcp://HOST:PORT; tls:// takes the "
                         "certificates that Dask's configuration names under distributed.comm.tls") from error
    with client:
        def submit(job):
            return client.submit(notebooks.train, *job, pure=False, retries=1)

        def room():  # scheduler_info() names no more than five workers in some versions
            return 2 * max(1, len(client.nthreads()))

        under_way = as_completed([submit(job) for job in islice(jobs, room())])
        for future in under_way:
            try:
                execution = future.result()
            except KilledWorker as error:
                raise WorkersLost(f"a job's workers were killed, each in turn (out of memory?). What was recorded is "
                                  f"kept, and the same command does the rest. {error}") from error
            yield execution
            for job in islice(jobs, max(0, room() - under_way.count())):
                under_way.add(submit(job))


# ---------------------------------------------------------------- side by side


def expected(path: Path) -> float:
    """The seconds that recorded runs of a notebook's networks took (ten an epoch for those without a record); 0 for a
    notebook that is not in the catalogue."""
    recorded = records.course_records()
    return sum(next((run["seconds"] for run in recorded if records.matches(run, network)), 10 * network.epochs)
               for network in catalogue.networks() if network.notebook == notebooks.name_of(path))


def side_by_side(paths: Iterable[Path], seed: int | None, profile: str, threads: int,
                 workers: int) -> Iterator[notebooks.Execution]:
    """Run notebooks, ``workers`` at a time, the longest first, and show how far each is; yield each run's `Execution`
    as it is done. Meanwhile the display is away, for whatever is to be printed."""
    display = Display({path: expected(path) for path in paths}, profile, workers)

    def jobs():
        for path in sorted(display.expected, key=display.expected.get, reverse=True):
            display.start(path)
            yield path, seed, profile, False, None, threads

    try:
        for execution in on_this_machine(notebooks.execute, jobs(), workers, display.tell):
            display.finish(execution.path, execution.seconds)
            yield execution
    finally:
        display.close()


class Display:
    """What several runs show: on a terminal a line for each that is under way and one for the whole, kept up to date;
    elsewhere a line when a notebook starts, and one for a finished epoch, not more often than every ten seconds."""

    def __init__(self, expected: dict[Path, float], profile: str, workers: int):
        self.expected = expected  # seconds of a full run, by path
        self.pace = 1.0 if profile == "full" else 0.1  # seconds here for one of those, until a notebook is done
        self.workers, self.live = workers, sys.stdout.isatty()
        self.waiting, self.running, self.done, self.bars = list(expected), {}, {}, []

    def start(self, path):
        now = time.monotonic()
        self.waiting.remove(path)
        self.running[path] = {"started": now, "printed": now, "first": None, "last": None}
        if not self.live:
            print(f"{notebooks.name_of(path)}: started", flush=True)

    def tell(self, job, message):
        """Take a `notebooks.progress` of a job, or None for the time that goes on."""
        now = time.monotonic()
        if message:
            state, (epoch, epochs, part, accuracy) = self.running[job[0]], message
            trained = (epoch - 1 + part) / epochs
            if state["last"] is None or epochs != state["last"][1] or trained < state["trained"]:  # another training
                state["first"] = now, trained
            state |= {"last": message, "trained": trained}
            if not self.live and accuracy.startswith("val") and now - state["printed"] >= EVERY:
                state["printed"] = now
                print(self.line(job[0]), flush=True)
        self.draw()

    def finish(self, path, seconds):
        del self.running[path]
        self.done[path] = seconds
        usual = sum(self.expected[each] for each in self.done)
        self.pace = sum(self.done.values()) / usual if usual else self.pace
        self.close()

    def left(self, path) -> float:
        """Seconds until a notebook is done: by the expected time, or what its training needs at its pace, if longer."""
        state, now = self.running[path], time.monotonic()
        left = self.pace * self.expected[path] - (now - state["started"])
        if state["last"] and state["trained"] > state["first"][1]:
            pace = (now - state["first"][0]) / (state["trained"] - state["first"][1])
            left = max(left, pace * (1 - state["trained"]))
        return max(left, 0)

    def whole_left(self) -> float:
        lefts = [self.left(path) for path in self.running]
        waiting = self.pace * sum(self.expected[path] for path in self.waiting)
        return max(*lefts, 0, (sum(lefts) + waiting) / self.workers)

    def line(self, path) -> str:
        """How far a notebook is: epoch, accuracy, time left."""
        said, state = [], self.running[path]
        if state["last"]:
            epoch, epochs, part, accuracy = state["last"]
            said = [f"epoch {epoch}/{epochs}" + (f" {part:4.0%}" if part < 1 else ""), *filter(None, [accuracy])]
        said += [f"{clock(time.monotonic() - state['started'])} gone"] if not said else []
        said += [f"{clock(left)} left"] if (left := self.left(path)) else []
        return f"{notebooks.name_of(path)}: {', '.join(said)}"

    def lines(self) -> list[str]:
        whole = f"{len(self.done)} of {len(self.expected)} done"
        left = self.whole_left()
        return [*map(self.line, self.running), f"{whole}, {clock(left)} left" if left else whole]

    def draw(self):
        if not self.live:
            return
        from tqdm import tqdm

        lines = self.lines()
        while len(self.bars) < len(lines):
            self.bars.append(tqdm(bar_format="{desc}", position=len(self.bars), leave=False, file=sys.stdout))
        width = shutil.get_terminal_size().columns - 1
        for bar, line in zip(self.bars, lines + [""] * (len(self.bars) - len(lines)), strict=True):
            bar.set_description_str(line[:width])

    def close(self):
        """Take the lines away; the next `draw` brings them back."""
        while self.bars:
            with contextlib.suppress(OSError):  # the terminal was closed
                self.bars.pop().close()


def clock(seconds: float) -> str:
    """``"2:10"``, ``"1:02:03"``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
