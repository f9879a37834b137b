"""Many runs: every notebook under every seed, on all cores of this machine or on a Dask cluster, resumable."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from . import catalogue, notebooks, processes, records, stamps


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
    recorded = records.by_seed()
    done = {(name, seed) for name, runs in recorded.items() for seed, run in runs.items() if not stamps.stale(run)}
    return [(path, seed) for seed in seeds for path, own in names.items() if {(name, seed) for name in own} - done]


def study(paths: Iterable[Path], seeds: Iterable[int], workers: int | None = None, scheduler: str | None = None,
          threads: int = 1) -> Iterator[notebooks.Execution]:
    """Run every notebook under every seed, except where an up-to-date record exists; yield each run's `Execution`.

    ``workers`` processes (by default one a core) share the work; or, with ``scheduler``, the workers of the Dask
    cluster at that address do it. Each run is recorded as soon as it is done and none is held in memory, so that
    whoever stops the study loses only the runs under way, and the same call does the rest.

    Raises `WorkersLost` if the workers of a cluster are killed.
    """
    from tqdm import tqdm

    paths, seeds = list(paths), list(seeds)
    todo = missing(paths, seeds)
    total = len(paths) * len(seeds)
    print(f"{total} runs, {total - len(todo)} of them done before", flush=True)
    jobs = ((path, seed, "full", False, path.read_text(encoding="utf-8"), threads) for path, seed in todo)
    executions = on_dask(jobs, scheduler) if scheduler else on_this_machine(jobs, workers)
    with tqdm(total=total, initial=total - len(todo), unit="run") as bar:
        for execution in executions:
            if not execution.error:
                try:
                    notebooks.keep(execution)
                except (ValueError, OSError) as refusal:
                    execution.error = str(refusal)
            bar.update()
            yield execution


def cores() -> int:
    """How many this process may use: a container may have been given fewer than the machine has."""
    import joblib

    return joblib.cpu_count()


def on_this_machine(jobs, workers=None):
    """Executions as they are done, each in a process of its own, ``workers`` at a time."""
    for job, execution in processes.each_in_a_process(notebooks.execute, jobs, workers or cores()):
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
            return client.submit(notebooks.execute, *job, pure=False, retries=1)

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
