"""The study: resumed after real kills, on this machine's processes and on a local Dask cluster."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import project as small
import psutil
import pytest
import torch

from mnist_helpers import checkpoint, data, files
from mnist_helpers.course import notebooks, records, stamps, study

EVERY = [(name, seed) for name in ("Bad", "Good") for seed in range(3)]


@pytest.fixture
def project(tmp_path):
    small.make(tmp_path)
    return tmp_path


def start(project, *arguments):
    return psutil.Popen([sys.executable, small.__file__, project, "study", "01_good", "02_bad", "--seeds", "3",
                         *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def recorded(project):
    return [(run["model"], run["seed"]) for run in files.read_records(project / "results" / "runs.jsonl")]


def wait_for_records(project, count):
    deadline = time.monotonic() + 120
    while len(recorded(project)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_worker(process):
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie, too
        return False


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_study_loses_only_what_was_under_way(project):
    """A worker is killed and runs fail, then the whole study is killed: each time the same command does the rest."""
    process = start(project, "--workers", "2")
    wait_for_records(project, 1)
    deadline = time.monotonic() + 60
    while not (workers := [each for each in process.children() if is_worker(each)]):  # between two runs
        assert time.monotonic() < deadline
    workers[0].kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "ZeroDivisionError" in err and "missing: 02_bad.ipynb, seeds 0, 1, 2" in err
    assert {name for name, _ in recorded(project)} == {"Good"}, "a run that failed after its record is not kept"

    (project / "mended").touch()
    before = recorded(project)
    process = start(project, "--workers", "2")
    wait_for_records(project, len(before) + 1)
    family = process.children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert psutil.wait_procs(family, timeout=15)[1] == []
    assert recorded(project)[: len(before)] == before and len(recorded(project)) < 6

    process = start(project)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    # A run that was recorded and not yet stamped is made again, of which the later record counts: one a worker.
    assert sorted(set(recorded(project))) == EVERY and len(recorded(project)) <= len(EVERY) + 2, "none lost"
    # A process killed while it writes leaves a temporary file, whose name begins with a dot.
    kept = {path.stem for path in (project / "results" / "kept").glob("[!.]*")}
    assert kept == {f"{name}-s{seed}-0" for name, seed in EVERY}


def test_what_is_out_of_date_is_run_again(project, monkeypatch):
    small.settle(project, monkeypatch.setattr)
    path = project / "notebooks" / "01_good.ipynb"
    text = path.read_text(encoding="utf-8")
    records.keep(small.record("Good", "01_good"), notebooks.recipe_digest(path))
    assert study.missing([path], range(2)) == [(path, 1)]
    for edited, left in (("# a comment", []), ("print(2)", [(path, 0)])):
        path.write_text(text.replace("import os", f"{edited}\\nimport os"), encoding="utf-8")
        assert study.missing([path], range(1)) == left
    path.write_text(text, encoding="utf-8")
    with monkeypatch.context() as other:
        other.setattr(checkpoint, "package_digest", lambda: "changed")
        assert study.missing([path], range(1)) == [(path, 0)]
    stamps.stamp("Good-s0-0", trace="differs", notebook="01_good")
    assert study.missing([path], range(1)) == [(path, 0)]
    with pytest.raises(ValueError, match=r"mine\.ipynb"):
        study.missing([small.write(project / "notebooks" / "mine.ipynb")], [0])


@pytest.mark.slow
def test_a_dask_cluster_does_the_same_work_and_survives_a_lost_worker(project):
    distributed = pytest.importorskip("distributed", reason="the cluster is optional: pip install distributed")
    (project / "mended").touch()
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        process = start(project, "--scheduler", cluster.scheduler_address)
        wait_for_records(project, 1)
        with distributed.Client(cluster.scheduler_address) as client:
            pids = client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGTERM)
        _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert sorted(recorded(project)) == EVERY


@pytest.mark.slow
def test_a_cluster_with_a_certificate_lets_nobody_in_without(project, tmp_path, monkeypatch):
    """With the files that CONTRIBUTING.md shows."""
    distributed = pytest.importorskip("distributed", reason="the cluster is optional: pip install distributed")
    text = (data.project_root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (command,), (settings,) = (re.findall(rf"```{kind}\n({start}.*?)```", text, re.DOTALL)
                               for kind, start in (("", "openssl"), ("yaml", "distributed")))
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    subprocess.run(shlex.split(command), cwd=tmp_path, check=True, capture_output=True)
    settings = re.sub(r"\b(cert|key)\.pem", lambda file: str(tmp_path / file[0]), settings)
    (tmp_path / "dask.yaml").write_text(settings, encoding="utf-8")
    (project / "mended").touch()
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path))
    told, dask = tmp_path / "scheduler.json", [sys.executable, "-m", "dask"]
    started = [psutil.Popen([*dask, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for arguments in (
        ["scheduler", "--protocol", "tls", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", told], ["worker", "--scheduler-file", told, "--nthreads", "1", "--no-dashboard"])]
    try:
        deadline = time.monotonic() + 60
        while not told.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        address = json.loads(told.read_text())["address"]
        assert address.startswith("tls://")
        with pytest.raises((OSError, TypeError)):  # this process has no certificate
            distributed.Client(address, timeout=5)
        process = start(project, "--scheduler", address)
        _, err = process.communicate(timeout=180)
    finally:
        for each in started:
            each.terminate()
            each.wait(timeout=30)
    assert process.returncode == 0, err
    assert sorted(recorded(project)) == EVERY


def test_an_address_that_cannot_be_used_is_a_sentence(project, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the cluster is optional: pip install distributed")

    def refuse(address):
        raise TypeError("TLS expects a `ssl_context` argument of type ssl.SSLContext")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(ValueError, match=r"tls://"):
        next(study.on_dask(iter([]), "tls://127.0.0.1:9"))


@pytest.mark.slow
def test_a_recipe_alone_comes_to_the_record_of_the_seed(mnist_root, monkeypatch):
    """Lesson 1 under the seed of its notebook: the record that the whole notebook made."""
    for name in ("MNIST_PROFILE", "MNIST_COLLECT", "MNIST_CHECK", "MPLBACKEND", "OMP_NUM_THREADS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")  # what `train` sets goes again
    threads = torch.get_num_threads()
    path = notebooks.folder() / "01_baseline.ipynb"
    done = notebooks.train(path, 0, path.read_text(encoding="utf-8"))
    torch.set_num_threads(threads)
    assert done.error is None
    (made,), course = done.records, records.all_seeds()["Baseline"][0]
    assert made["id"] == course["id"] and f"{made['id']}.safetensors" in done.kept
    same = [key for key in made if made[key] == course[key]]
    if all(made["card"][key] == course["card"][key] for key in ("device", "instructions", "versions")):
        assert {"trace", "mistakes", "test_correct", "val_curve", "augmented_train_accuracy"} <= set(same)
    else:
        assert abs(made["test_correct"] - course["test_correct"]) <= 40


def test_of_fresh_seeds_the_weights_are_not_kept(project, monkeypatch):
    small.settle(project, monkeypatch.setattr)
    path = project / "notebooks" / "01_good.ipynb"
    text = path.read_text(encoding="utf-8")
    for seed in (1, 100):
        made = small.record("Good", "01_good", id=f"Good-s{seed}-0", seed=seed)
        notebooks.keep(notebooks.Execution(path, notebook=text, records=[made],
                                           kept={f"{made['id']}.safetensors": b"weights"}))
    assert [seed for _, seed in recorded(project)] == [1, 100]
    assert [file.name for file in checkpoint.kept_folder().iterdir()] == ["Good-s1-0.safetensors"]


@pytest.mark.parametrize(("tag", "kept"), [("experiment", True), ("figure", False)])
def test_only_what_a_tagged_cell_trained_is_kept(project, monkeypatch, tag, kept):
    """A lesson that compares its own loop with `fit`, bit for bit, must train both wherever it runs."""
    small.settle(project, monkeypatch.setattr)
    checkpoint.kept_folder().mkdir(parents=True)
    path = small.write(project / "notebooks" / "05_other.ipynb", small.cell("train()", tag))
    notebooks.keep_experiments(notebooks.Execution(path, notebook=path.read_text(encoding="utf-8"),
                                                   kept={"Other-s0-0.safetensors": b"weights"}))
    assert (checkpoint.kept_folder() / "Other-s0-0.safetensors").exists() == kept
