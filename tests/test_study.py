"""The study: resumed after real kills, on this machine's processes and on a local Dask cluster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from mnist_helpers import notebooks, results
from mnist_helpers.__main__ import main
from mnist_helpers.study import missing

# Records a run without importing torch, so that a run takes a second. Seed 2 fails once.
SOURCE = """
import json, os, time
from pathlib import Path
time.sleep(0.5)
trips = Path({folder!r}) / "{name}-trips"
with open(trips, "a") as file:
    file.write(f"{{SEED}}\\n")
if "{name}" == "02_b" and SEED == 2 and trips.read_text().split().count("2") < 2:
    raise ZeroDivisionError("once")
run = dict.fromkeys({keys}, 1) | dict(notebook="{name}.ipynb", profile="full", dataset="mnist", seed=SEED,
                                      test_correct=90 + SEED, test_total=100, test_accuracy=0.9 + SEED / 100)
with open(os.environ["MNIST_RUN_RECORD"], "a") as file:
    file.write(json.dumps(run) + "\\n")
"""


@pytest.fixture
def project(tmp_path):
    """A project of two notebooks whose runs take a second each."""
    (tmp_path / "notebooks").mkdir()
    for name in ("01_a", "02_b"):
        source = SOURCE.format(name=name, folder=str(tmp_path), keys=sorted(results.KEYS))
        cells = [nbformat.v4.new_code_cell("SEED = 0", metadata={"tags": ["parameters"]}),
                 nbformat.v4.new_code_cell(source)]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    return tmp_path


def start(project, *arguments):
    return subprocess.Popen([sys.executable, Path(__file__).with_name("study_to_kill.py"), project, "study",
                             *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def recorded(project):
    path = project / "results" / "runs.jsonl"
    return [(run["notebook"], run["seed"]) for run in results.read(path)]


def wait_for_records(project, count):
    deadline = time.monotonic() + 120
    while len(recorded(project)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(recorded(project)) >= count


EVERY = {(f"{name}.ipynb", seed) for name in ("01_a", "02_b") for seed in range(3)}


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker processes in /proc")
def test_a_study_loses_only_what_was_under_way(project):
    """A worker is killed, then the whole study, then a run fails: each time the same command does the rest."""
    process = start(project, "--seeds", "3", "--workers", "2")
    wait_for_records(project, 1)
    workers = [int(path.name) for path in Path("/proc").glob("[0-9]*")
               if _parent(path) == process.pid and "loky" in (path / "cmdline").read_text()
               and "resource_tracker" not in (path / "cmdline").read_text()]
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "a worker was killed" in err and "missing: " in err
    after_worker = recorded(project)

    process = start(project, "--seeds", "3", "--workers", "2")
    wait_for_records(project, len(after_worker) + 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    after_study = recorded(project)
    assert after_study[: len(after_worker)] == after_worker and len(after_study) < 6
    (project / "02_b-trips").write_text("")  # so that seed 2 fails now, whether it was tried before or not

    process = start(project, "--seeds", "3")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"6 runs, {len(after_study)} of them done before" in out
    assert "ZeroDivisionError: once" in err and "missing: 02_b.ipynb, seeds 2" in err

    process = start(project, "--seeds", "3")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "6 runs, 5 of them done before" in out and "91.00 ± 1.00 (n = 3)" in out
    assert sorted(recorded(project)) == sorted(EVERY), "none lost, none repeated"
    assert all(run["reference"] and run["code"] for run in results.read(project / "results" / "runs.jsonl"))


def _parent(path):
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def test_changed_code_is_run_again(project, monkeypatch):
    monkeypatch.setattr(notebooks, "project_root", lambda: project)
    path = project / "notebooks" / "01_a.ipynb"
    code = notebooks.fingerprint(nbformat.read(path, as_version=4))
    run = {"notebook": "01_a.ipynb", "model": "A", "seed": 0, "profile": "full", "dataset": "mnist", "code": code,
           "reference": True}
    assert missing([path], range(2), [run]) == [(path, 1)]
    for change in ({"code": "other"}, {"profile": "quick"}, {"dataset": "digits"}, {"reference": False}):
        assert missing([path], range(1), [run | change]) == [(path, 0)]
    # After an edit was run and taken back the tables show the edit's run, the last one.
    assert missing([path], range(1), [run, run | {"code": "other"}]) == [(path, 0)]


def test_a_notebook_elsewhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only notebooks below"):
        missing([tmp_path / "mine.ipynb"], [0], [])


def test_the_runs_of_a_copy_are_not_kept(project):
    copy = project / "notebooks" / "02_b-Copy1.ipynb"
    copy.write_bytes((project / "notebooks" / "02_b.ipynb").read_bytes())
    _, err = start(project, "02_b-Copy1", "--seeds", "1").communicate(timeout=60)
    assert "02_b-Copy1.ipynb records its runs as 02_b.ipynb" in err and recorded(project) == []


def test_a_dask_cluster_does_the_same_work_and_survives_a_lost_worker(project):
    distributed = pytest.importorskip("distributed", reason="the cluster is optional: pip install distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        process = start(project, "--seeds", "3", "--scheduler", cluster.scheduler_address)
        wait_for_records(project, 1)
        with distributed.Client(cluster.scheduler_address) as client:
            pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1 and "ZeroDivisionError: once" in err
        assert set(recorded(project)) == EVERY - {("02_b.ipynb", 2)}
        start(project, "--seeds", "3", "--scheduler", cluster.scheduler_address).communicate(timeout=120)
    assert sorted(recorded(project)) == sorted(EVERY)


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--workers", "0"]])
def test_senseless_numbers_are_refused(arguments, capsys):
    assert main(["study", *arguments]) == 2
    assert "must be at least 1" in capsys.readouterr().err
