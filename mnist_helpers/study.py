"""Many runs: every notebook under every seed, on all cores of this machine or on a Dask cluster, resumable."""

from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import joblib
import nbformat
from tqdm import tqdm

from . import notebooks, results


class WorkersLost(RuntimeError):
    """Worker processes died; what was recorded before is kept."""


def missing(paths, seeds, runs):
    """The pairs ``(path, seed)`` for which the tables show no run, full, on MNIST, of the notebook's code as it stands,
    among those of ``runs`` that are kept for the course. Raises `ValueError` for a notebook elsewhere."""
    if outside := [str(path) for path in paths if not path.is_relative_to(notebooks.folder())]:
        raise ValueError(f"{', '.join(outside)}: only notebooks below {notebooks.folder()} can be studied")
    # As the tables count them: after going back to older code its runs are older too, and do not show.
    done = {(run["notebook"], run["seed"], run.get("code"))
            for counted in results.by_seed(runs, reference=True).values() for run in counted.values()}
    codes = {path: notebooks.fingerprint(nbformat.read(path, as_version=4)) for path in paths}
    return [(path, seed) for seed in seeds for path in paths
            if (path.relative_to(notebooks.folder()).as_posix(), seed, codes[path]) not in done]


def study(paths, seeds, workers=None, scheduler=None):
    """Run every notebook under every seed, except where a record of it exists; yield each run's `Execution`.

    ``workers`` processes (by default one a core) share the cores; or, with ``scheduler``, the workers of the Dask
    cluster at that address do the work. Each run is recorded as soon as it is done and none is held in memory, so that
    whoever stops the study loses only the runs under way, and the same call does the rest.

    Raises `WorkersLost` if worker processes are killed.
    """
    todo = missing(paths, seeds, results.read())
    total = len(paths) * len(seeds)
    print(f"{total} runs, {total - len(todo)} of them done before")
    jobs = ((path, nbformat.writes(nbformat.read(path, as_version=4)), seed) for path, seed in todo)
    executions = on_dask(jobs, scheduler) if scheduler else on_this_machine(jobs, len(todo), workers)
    with tqdm(total=total, initial=total - len(todo), unit="run") as bar:
        for execution in executions:
            for run in execution.runs:
                if run["dataset"] != "mnist":
                    execution.error = execution.error or "it ran on the digits sample: MNIST was not there"
                elif problem := notebooks.misnamed(execution.path, run):
                    execution.error = execution.error or problem
                else:
                    results.append(run | {"reference": True})
            bar.update()
            yield execution


def on_this_machine(jobs, count, workers=None):
    """Executions as they are done, by ``workers`` processes of this machine that share its cores."""
    cores = joblib.cpu_count()  # those this process may use: a container may have been given fewer
    workers = max(1, min(workers or cores, count))
    with joblib.parallel_config("loky", inner_max_num_threads=max(1, cores // workers)):
        pool = joblib.Parallel(workers, return_as="generator_unordered", pre_dispatch=workers, batch_size=1)
        try:
            yield from pool(joblib.delayed(_run)(*job) for job in jobs)
        except BrokenProcessPool as error:
            raise WorkersLost("a worker was killed (out of memory?). What was recorded is kept, and the same command "
                              "does the rest; fewer --workers need less memory.") from error


def on_dask(jobs, scheduler):
    """Executions as they are done, by the workers of a Dask cluster, those that join later included, two jobs a worker
    under way at a time.

    A job carries its notebook and returns its records, so that workers need no shared disk: they need this package
    with its requirements, and MNIST (``MNIST_ROOT`` in their environment, or a network). One thread each. A job whose
    worker is lost is run again by another.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--scheduler needs Dask's distributed: pip install distributed") from error
    with Client(scheduler) as client:
        def submit(job):
            return client.submit(_run, *job, pure=False, retries=1)

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


def _run(path, text, seed):
    return notebooks.execute(path, seed, show=False, text=text)
