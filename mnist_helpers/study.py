"""Many runs: every notebook under every seed, on all cores, resumable."""

import os

import joblib
import nbformat
from tqdm import tqdm

from . import notebooks, results


def missing(paths, seeds, runs):
    """The pairs ``(path, seed)`` for which ``runs`` has no full MNIST run of the notebook's code as it stands."""
    done = {(run["notebook"], run["seed"], run.get("code")) for run in runs
            if run["profile"] == "full" and run["dataset"] == "mnist"}
    codes = {path: notebooks.fingerprint(nbformat.read(path, as_version=4)) for path in paths}
    return [(path, seed) for seed in seeds for path in paths
            if (path.relative_to(notebooks.folder()).as_posix(), seed, codes[path]) not in done]


def study(paths, seeds, workers=None, profile="full"):
    """Run every notebook under every seed, except where a record of it exists; return what failed, as executions.

    ``workers`` processes (one a core by default) share the cores. Each run is recorded as soon as it is done, so that
    whoever stops the study loses only the runs under way, and the same command does the rest.
    """
    todo = missing(paths, seeds, results.read() if profile == "full" else [])
    workers = max(1, min(workers or os.cpu_count(), len(todo)))
    total = len(paths) * len(seeds)
    print(f"{total} runs, {total - len(todo)} of them done before; {workers} workers")
    failed = []
    with (joblib.parallel_config("loky", inner_max_num_threads=max(1, os.cpu_count() // workers)),
          tqdm(total=total, initial=total - len(todo), unit="run") as bar):
        jobs = (joblib.delayed(notebooks.execute)(path, seed, profile, show=False) for path, seed in todo)
        for execution in joblib.Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers,
                                         batch_size=1)(jobs):
            for run in execution.runs:
                if profile == "full":
                    results.append(run | {"reference": True})
            if execution.error:
                failed.append(execution)
            bar.set_postfix_str(execution.path.stem, refresh=False)
            bar.update()
    return failed
