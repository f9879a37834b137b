"""The command line on a small project of its own: what runs, what is kept, what ends, what each exit code means."""

import contextlib
import json
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import project as small
import psutil
import pytest
import torch
import torchvision
from jupyter_client.provisioning import LocalProvisioner

import mnist_helpers as mh
from mnist_helpers import __main__ as command
from mnist_helpers import data, device, files, places
from mnist_helpers import train as fitting
from mnist_helpers.__main__ import main
from mnist_helpers.course import doctor, notebooks, processes, records, stamps, study

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.make(tmp_path)
    small.settle(tmp_path, monkeypatch.setattr)
    monkeypatch.delenv("MNIST_COLLECT", raising=False)
    monkeypatch.setattr(doctor, "step_times", lambda counts: dict.fromkeys(counts, 1.0))
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(project, name="runs"):
    return [(run["notebook"], run["seed"]) for run in
            files.read_records(project / "results" / f"{name}.jsonl", records.KEYS)]


# ---------------------------------------------------------------- run


BARS = """
for epoch in (1, 2):
    print(f"\\repoch {epoch}/2   0%|          | 00:00", flush=True)
    print(f"\\repoch {epoch}/2 100%|████| 00:09, loss 0.1, 98.50%; val 0.05, 98.7{epoch}%", flush=True)
    time.sleep(1)
"""


def test_full_runs_are_shown_and_saved_and_failures_are_named(project, capfd, monkeypatch):
    path = project / "notebooks" / "01_good.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["jupytext"] = {"formats": "ipynb,py"}
    notebook.cells[0].metadata["slideshow"] = {"slide_type": "slide"}
    nbformat.write(notebook, path)
    small.write(project / "notebooks" / "05_bars.ipynb", small.cell("import time"), small.cell(BARS))
    others = [project / "notebooks" / f"{name}.ipynb" for name in ("02_bad", "03_digits")]
    before = [other.read_bytes() for other in others]
    times = {"01_good": 1, "02_bad": 9, "03_digits": 0, "05_bars": 5}
    monkeypatch.setattr(study, "EVERY", 0)
    monkeypatch.setattr(study, "expected", lambda path: times[path.stem])
    assert main(["run", *times, "--profile", "full", "--save", "--jobs", "2"]) == 1
    out, err = capfd.readouterr()
    assert "ZeroDivisionError" in err and err.splitlines()[-1] == "failed: 02_bad.ipynb, 03_digits.ipynb"
    started = [line.partition(":")[0] for line in out.splitlines() if line.endswith(": started")]
    assert started == ["02_bad", "05_bars", "01_good", "03_digits"], "the longest first"
    assert "05_bars: epoch 2/2, val 98.72 %" in out and "done, with seed" not in out
    assert "01_good.ipynb: done in" in out
    assert [line.split()[0] for line in out.splitlines() if "95.00 %" in line][:2] == ["Good", "Bad"], "as they were named"

    # The good one keeps its outputs as a reader sees them, and what other tools keep in it.
    saved = nbformat.read(path, as_version=4)
    assert saved.cells[1].outputs[0].text == "done, with seed 5\n" and saved.cells[1].execution_count == 2
    assert saved.metadata.mnist_helpers.code == notebooks.code_digest(saved)
    assert saved.metadata.jupytext and saved.cells[0].metadata.slideshow and len(saved.cells) == 2
    assert "papermill" not in json.dumps(saved)
    assert [other.read_bytes() for other in others] == before
    # Only it is the course's, with its weights; a notebook that failed after its record is not.
    assert kept(project) == [("01_good", 5)] and kept(project, "mine") == []
    assert {path.name for path in (project / "results" / "kept").iterdir()} == {"Good-s5-0.safetensors"}
    assert stamps.stale(records.course_records()[0]) is None
    # Outputs belong to the code, whatever its comments and spaces are.
    saved.cells[1].source += "\n# a comment"
    assert saved.metadata.mnist_helpers.code == notebooks.code_digest(saved)
    saved.cells[1].source += "\nprint(1)"
    assert saved.metadata.mnist_helpers.code != notebooks.code_digest(saved)


def test_a_learners_run_touches_only_what_git_ignores(project, capfd):
    before = contents(project)
    assert main(["run", "01_good", "--profile", "full", "--seed", "3"]) == 0
    assert "done, with seed 3" in capfd.readouterr().out
    assert kept(project, "mine") == [("01_good", 3)] and records.course_records() == []
    new = {path.relative_to(project).as_posix() for path in set(contents(project)) - set(before)}
    assert before.items() <= contents(project).items()
    done = subprocess.run(["git", "check-ignore", "--no-index", *new], cwd=ROOT, capture_output=True, text=True)
    assert set(done.stdout.split()) == new


def test_whoever_interrupts_keeps_what_was_done(project, capfd, monkeypatch):
    def interrupted(paths, *settings):
        yield execution(project), "[1/2]"
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "executions", interrupted)
    assert main(["run", "01_good", "02_bad", "--profile", "full", "--save"]) == 130
    assert "90.00 %" in capfd.readouterr().out
    assert kept(project) == [("01_good", 0)] and (project / "README.md").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("several", [1, 2])
def test_no_process_outlives_a_run(tmp_path, number, several):
    process, family = slow_runs(tmp_path, several)
    process.send_signal(number)
    process.wait(60)
    assert psutil.wait_procs(family, timeout=15)[1] == []
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}.get(number, -9)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_a_killed_notebook_is_named_and_the_others_go_on(tmp_path):
    process, family = slow_runs(tmp_path, 2)
    worker = next(each for each in process.children() if any(map(is_kernel, each.children())))
    kernel = next(filter(is_kernel, worker.children()))
    worker.kill()
    assert psutil.wait_procs([worker, kernel], timeout=15)[1] == [], "nor does a kernel outlive its worker"
    others = [each for each in family if each.is_running() and is_kernel(each)]
    assert len(others) == 1 and process.poll() is None
    process.terminate()
    assert processes.KILLED in process.communicate(timeout=60)[1]


def is_kernel(process):
    try:
        return "ipykernel" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def slow_runs(folder, several):
    """A `run` of several notebooks at once that take ten minutes each, and its family once all their kernels run."""
    small.make(folder)
    names = [f"04_slow{number}" for number in range(several)]
    for name in names:
        shutil.copy(folder / "notebooks" / "04_slow.ipynb", folder / "notebooks" / f"{name}.ipynb")
    process = psutil.Popen([sys.executable, small.__file__, folder, "run", *names, "--jobs", str(several)],
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                           env=os.environ | {"MNIST_PROFILE": "quick"})
    deadline, family = time.monotonic() + 120, []
    while sum(map(is_kernel, family)) < several:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
        family = process.children(recursive=True)
    return process, family


# ---------------------------------------------------------------- memory


LIGHT = """
import sys
from pathlib import Path
from mnist_helpers.__main__ import main
from mnist_helpers.course import notebooks, study
plain, recording = map(Path, sys.argv[1:])
assert main(["run", str(plain), "--profile", "quick", "--jobs", "1"]) == 0  # as whoever waits for a kernel's process
done = notebooks.execute(recording, profile="quick", show=False)  # as whoever waits for a kernel
assert done.error is None and done.records, done.error
assert study.expected(notebooks.lessons()[0]) > 1
print("torch" in sys.modules)
"""


def test_processes_that_wait_do_without_torch(tmp_path):
    small.make(tmp_path)
    plain = small.write(tmp_path / "plain.ipynb", small.cell("1"))
    done = subprocess.run([sys.executable, "-c", LIGHT, plain, tmp_path / "notebooks" / "01_good.ipynb"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr


def test_what_they_know_is_what_torchs_modules_know(monkeypatch):
    assert places.project_root() == data.project_root()
    assert {*command.PROFILES, "trace"} == set(data.PROFILES)
    for told in ("", "0", "3", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert processes.threads() == device.threads()


@pytest.fixture
def limited():
    """A command before a command, under which it and all that it starts have 1.5 GB, where this user may make a cgroup;
    else None."""
    for root, limit in ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"):
        group = Path(root, f"mnist-{os.getpid()}")
        try:
            group.mkdir()
        except OSError:  # no Linux, another version of cgroups, or not root
            continue
        try:
            (group / limit).write_text(str(LIMIT))
            yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
            return
        except OSError:
            pass
        finally:
            deadline = time.monotonic() + 30
            while group.exists():  # as long as the last of its processes is on its way out
                with contextlib.suppress(OSError):
                    group.rmdir()
                assert time.monotonic() < deadline
                time.sleep(0.1)
    yield None


LIMIT = 1500 * 10**6


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has neither cgroups nor wait4")
def test_lesson_5_runs_in_one_and_a_half_gigabytes(mnist_root, limited):
    process = subprocess.Popen([*(limited or ()), sys.executable, "-m", "mnist_helpers", "run", "05_under_20k", "--profile",
                                "quick", "--jobs", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    if limited is None:  # then of its processes the largest, which is the kernel
        assert used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) < LIMIT


# ---------------------------------------------------------------- several at once


def most_at_once(monkeypatch, *arguments, cores=8, memory=64):
    """How many notebooks a command would run at once on such a machine, and with how many threads; None for one."""
    asked = []
    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(processes, "free_memory", lambda: memory * 2**30)
    monkeypatch.setattr(study, "side_by_side",
                        lambda paths, seed, profile, threads, workers: asked.append((workers, threads)) or iter(()))
    monkeypatch.setattr(processes, "each_in_a_process", lambda *_: iter(()))
    assert main(list(arguments)) == 0
    return asked[0] if asked else None


def test_as_many_run_at_once_as_cores_and_memory_allow(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for machine, more, expected in (({}, (), (4, 1)), ({"cores": 2}, (), (2, 1)), ({"cores": 1}, (), None),
                                    ({"memory": 4}, (), (3, 1)), ({"memory": 0}, (), None),
                                    ({}, ("--threads", "4"), (2, 4)), ({}, ("--jobs", "3"), (3, 1)),
                                    ({}, ("--jobs", "1"), None), ({"cores": 1}, ("--jobs", "9"), (4, 1))):
        assert most_at_once(monkeypatch, "run", *more, **machine) == expected, (machine, more)
    assert most_at_once(monkeypatch, "run", "01_good") is None
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert most_at_once(monkeypatch, "run") == (4, 2)
    assert most_at_once(monkeypatch, "refresh", "--train", "--jobs", "2") == (2, 2)


@pytest.mark.parametrize(("limit", "statistics", "allowed"), [
    ("memory.max", "anon 100\nfile 900\n", 900), ("memory/memory.limit_in_bytes", "rss 1\ntotal_rss 300\n", 700)])
def test_a_containers_memory_is_respected(tmp_path, monkeypatch, limit, statistics, allowed):
    monkeypatch.setattr(processes, "CGROUP", tmp_path)
    machine = processes.free_memory()
    file = tmp_path / limit
    file.parent.mkdir(exist_ok=True)
    file.with_name("memory.stat").write_text(statistics)
    file.write_text("1000\n")
    assert processes.free_memory() == allowed < machine
    file.write_text("max\n")
    assert processes.free_memory() > 1000


@pytest.mark.parametrize(("text", "expected"), [
    ("\repoch 3/20  45%|████▌     | 00:03, loss 0.1234, accuracy 95.12%", (3, 20, 0.45, "95.12 %")),
    ("\repoch 1/5 100%|█████| 00:09, loss 0.1, 97.00%; val 0.0512, 98.71%\n\repoch 2/5   0%|    | 00:00", (2, 5, 0.0, "")),
    ("\repoch 20/20 100%|█████| 00:09, loss 0.1, 97.00%; val 0.0512, 98.71%\n", (20, 20, 1.0, "val 98.71 %")),
    ("epoch 3 is the best\n", None), ("", None)])
def test_progress_is_read_from_the_bars_of_fit(text, expected):
    assert notebooks.progress(text) == expected


def test_fit_draws_bars_that_can_be_read(tiny, network, capsys):
    model = network()
    mh.fit(model, tiny, tiny, epochs=2, optimizer=torch.optim.SGD(model.parameters(), 0.01))
    epoch, epochs, part, accuracy = notebooks.progress(capsys.readouterr().out)
    assert (epoch, epochs, part) == (2, 2, 1) and accuracy.startswith("val ")


def test_the_line_of_an_epoch_keeps_its_width_and_tells_the_time_left_of_all(tiny, network, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(fitting.time, "monotonic", lambda: now[0])
    bar = fitting.Bar(epoch=3, epochs=5, total=10, began=100.0, done=1)  # which was trained before, and kept
    bar.n, now[0] = 5, 130  # an epoch and a half in 30 seconds, and two and a half to come
    bar.set_postfix_str("loss 0.1234, accuracy 99.12%", refresh=False)
    assert str(bar).endswith(", loss 0.1234, accuracy 99.12%, 00:50 left") and len(str(bar)) == 79
    assert notebooks.progress(str(bar)) == (3, 5, 0.5, "99.12 %")
    bar.n = 10
    assert "left" not in str(bar), "it is being evaluated"
    stream = fitting.Bar(epoch=3, epochs=5, total=None, began=100.0, done=0)
    stream.n = 7
    assert "left" not in str(stream)
    for each in (bar, stream):
        each.close()


def line_of(terminal):
    """What was written to a terminal's other end, up to the end of the line: one read gives what has arrived so far."""
    said = b""
    while not said.endswith(b"\n") and select.select([terminal], [], [], 10)[0]:
        said += os.read(terminal, 10_000)
    return said.decode()


@pytest.mark.skipif(os.name == "nt", reason="needs a terminal of its own")
@pytest.mark.parametrize("columns", [60, 80])
def test_a_terminal_shows_the_validation_accuracy_whole(tiny, network, monkeypatch, columns):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    monkeypatch.setenv("COLUMNS", str(columns))
    model = network()
    with open(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        run = mh.fit(model, tiny, tiny, epochs=1, optimizer=torch.optim.SGD(model.parameters(), 0.01))
        terminal.flush()
        said = line_of(ours)
    os.close(ours)
    lines = [line for line in said.replace("\r", "\n").split("\n") if line.startswith("epoch")]
    assert {len(line) for line in lines} == {79}, lines
    assert lines[-1].endswith(f"{run.history['val_accuracy'][-1]:.2%}")


def test_a_kernel_ends_without_an_interrupt(project, monkeypatch):
    """It would log one as an error, at the end of each notebook."""
    signals, send = [], LocalProvisioner.send_signal
    monkeypatch.setattr(LocalProvisioner, "send_signal", lambda self, number: signals.append(number) or send(self, number))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    execution = notebooks.execute(project / "notebooks" / "01_good.ipynb", profile="quick", show=False)
    assert execution.error is None and execution.records and signal.SIGINT not in signals


def test_a_kernel_on_a_busy_machine_has_a_minute_for_its_output(project, monkeypatch):
    import papermill.engines

    class Client(papermill.engines.PapermillNotebookClient):
        def execute(self, **options):
            waited.append(self.iopub_timeout)
            return super().execute(**options)

    waited = []
    monkeypatch.setattr(papermill.engines, "PapermillNotebookClient", Client)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert notebooks.execute(project / "notebooks" / "01_good.ipynb", profile="quick", show=False).error is None
    assert waited == [60]


def test_the_display_says_how_far_each_is(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(study.time, "monotonic", lambda: now[0])
    paths = [Path("a.ipynb"), Path("b.ipynb"), Path("c.ipynb")]
    display = study.Display(dict(zip(paths, (100, 50, 30), strict=True)), "full", 2)
    for path in paths[:2]:
        display.start(path)
    display.tell(paths[:1], (1, 10, 0.0, ""))
    now[0] = 20
    display.tell(paths[:1], (2, 10, 0.0, "val 98.71 %"))
    assert display.lines() == ["a: epoch 2/10   0%, val 98.71 %, 3:00 left", "b: 0:20 gone, 0:30 left", "0 of 3 done, 3:00 left"]
    display.tell(paths[:1], (1, 2, 0.5, "95.00 %"))  # another training begins
    assert display.lines()[0] == "a: epoch 1/2  50%, 95.00 %, 1:20 left"
    now[0] = 100
    display.finish(paths[1], 100.0)  # twice as long as expected
    display.start(paths[2])
    assert display.lines()[1:] == ["c: 0:00 gone, 1:00 left", "1 of 3 done, 1:40 left"]


def test_what_still_runs_ends_with_the_command():
    """Whoever is interrupted outside of the loop over results has no generator to close."""
    with pytest.raises(KeyboardInterrupt), processes.ended_by_signals():
        results = processes.each_in_a_process(time.sleep, iter([(0,), (600,), (600,)]), 3)
        next(results)
        family = psutil.Process().children()
        raise KeyboardInterrupt
    assert not multiprocessing.active_children() and not {each.pid for each in psutil.Process().children()} & {
        each.pid for each in family if each.is_running() and "spawn_main" in " ".join(each.cmdline())}
    results.close()


# ---------------------------------------------------------------- what is kept, without a kernel


def execution(project, name="01_good", edited=None, **changes):
    """The `Execution` of a notebook under seed 0, without a kernel; its file was ``edited`` since: ``(old, new)``."""
    path = project / "notebooks" / f"{name}.ipynb"
    executed = nbformat.read(path, as_version=4)
    executed.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="new")]
    if edited:
        path.write_text(path.read_text(encoding="utf-8").replace(*edited), encoding="utf-8")
    made = {"records": [small.record("Good", "01_good")], "kept": {"Good-s0-0.safetensors": b"weights"}}
    return notebooks.Execution(path, notebook=nbformat.writes(executed), **made | changes)


def test_weights_are_kept_with_a_record(project):
    notebooks.save(execution(project))
    assert (project / "results" / "kept" / "Good-s0-0.safetensors").read_bytes() == b"weights"
    notebooks.save(execution(project, kept={"Good-s0-0.safetensors": b"others"}))
    assert (project / "results" / "kept" / "Good-s0-0.safetensors").read_bytes() == b"weights", "they are the record's"
    assert kept(project) == [("01_good", 0)]


@pytest.mark.parametrize("changes", [
    {"edited": ("step 1", "step 2")}, {"edited": ("SEED = 5", "SEED = 6")}, {"error": "it failed"}, {"kept": {}},
    {"records": [small.record("Good", "01_good", profile="quick")]},
    {"records": [small.record("Good", "01_good", dataset="digits")]},
    {"records": [small.record("Bad", "02_bad")]}, {"records": [small.record("Mine", "yours")]},
], ids=["edited while it ran", "edited beside the recipe", "failed", "replayed", "quick", "digits", "of another notebook", "not in the catalogue"])
def test_what_is_not_the_courses_is_refused(project, changes):
    run = execution(project, **changes)
    before = contents(project)
    with pytest.raises(ValueError, match=r"01_good\.ipynb"):
        notebooks.save(run)
    assert contents(project) == before


def test_a_study_keeps_no_record_of_a_recipe_edited_while_it_ran(project):
    with pytest.raises(ValueError, match="its recipe was changed while it ran"):
        notebooks.keep(execution(project, edited=("step 1", "step 2")))
    assert not kept(project)


def test_a_comment_edited_while_it_ran_stays(project):
    notebooks.save(execution(project, edited=("import os", "# a comment\\nimport os")))
    saved = notebooks.read(project / "notebooks" / "01_good.ipynb")
    assert "# a comment" in saved.cells[1].source and saved.cells[1].outputs[0].text == "new"


def test_copies_and_scratch_notebooks_are_none_of_the_course(project):
    folder = project / "notebooks"
    notebooks.save(execution(project))
    every = notebooks.every()
    for name in ("01_good - Copy", "01_good - Copy (2)", "01_good-Copy1", "01_good (1)", "01_good copy 2"):
        (folder / f"{name}.ipynb").write_bytes((folder / "01_good.ipynb").read_bytes())
        with pytest.raises(ValueError, match="copy"):
            notebooks.save(execution(project, name))
    small.write(folder / "scratch.ipynb", small.cell("1"))
    assert notebooks.every() == every and [path.stem for path in notebooks.find()] == list(small.NETWORKS.values())
    assert notebooks.find(["scratch"]) == [folder / "scratch.ipynb"]


# ---------------------------------------------------------------- refresh


def test_refresh_stores_outputs_and_records_nothing(project, monkeypatch):
    notebooks.save(execution(project))
    results, profiles = contents(project / "results"), []

    def replayed(paths, profile, jobs):
        profiles.append(profile)
        yield from ((execution(project, path.stem, kept=trained, profile=profile), "") for path in paths)

    trained = {}
    monkeypatch.setattr(command, "executions", replayed)
    assert main(["refresh", "01_good"]) == 0 and profiles == ["recorded"]
    assert notebooks.read(project / "notebooks" / "01_good.ipynb").metadata.mnist_helpers.profile == "recorded"
    assert main(["refresh", "02_bad"]) == 1, "there is nothing to replay"
    header = json.dumps({"__metadata__": {"run": json.dumps({"card": {"model": "Good"}, "history": {"seconds": [9]}})}})
    trained["Good-s0-1.safetensors"] = len(header).to_bytes(8, "little") + header.encode()
    before = contents(project)
    assert main(["refresh", "01_good"]) == 1 and contents(project) == before, "it was trained instead"
    assert main(["refresh", "01_good", "--train"]) == 0
    after = contents(project / "results")
    assert after.pop(project / "results" / "kept" / "Good-s0-1.safetensors") == trained["Good-s0-1.safetensors"]
    stamped = project / "results" / "stamps.json"
    assert "Good-s0-1" in json.loads(after.pop(stamped)) and results.pop(stamped) and after == results


# ---------------------------------------------------------------- wrong commands, and what stands in the way


@pytest.mark.parametrize("arguments", [
    ["run", "--save", "--profile", "quick"], ["run", "--save", "--profile", "full", "--seed", "1"],
    ["run", "--threads", "0"], ["run", "--jobs", "0"], ["refresh", "--jobs", "0"], ["study", "--seeds", "0"], ["study", "--workers", "0"], ["run", "09_missing"]])
def test_wrong_commands_are_refused(project, capsys, arguments):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--seed", "x"]])
def test_argparse_refuses_the_rest(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


@pytest.mark.parametrize(("arguments", "meant"), [(["docter"], "doctor"), (["run", "--profile", "quik"], "quick")])
def test_a_misspelt_command_is_guessed(arguments, meant, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and f"did you mean {meant}?" in capsys.readouterr().err


def test_a_misspelt_notebook_is_guessed(project, capsys):
    assert main(["run", "01_godo"]) == 2
    assert "did you mean 01_good?" in capsys.readouterr().err


def test_help_and_version_need_no_torch():
    for option in ("--help", "--version"):
        code = f"import runpy, sys; sys.modules['torch'] = None; sys.argv = ['', {option!r}]; " \
               "runpy.run_module('mnist_helpers', run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout


@pytest.mark.parametrize("arguments", [["run", "01_good", "--profile", "quick"], ["study", "01_good"], ["refresh", "01_good"]])
def test_a_kernel_with_another_package_is_noticed(project, capsys, monkeypatch, arguments):
    other = project / "mnist_helpers"
    other.mkdir()
    (other / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(project))  # as in another clone
    before = contents(project)
    assert main(arguments) == 1 and contents(project) == before
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "doctor" in err and str(other) in err and str(ROOT / "mnist_helpers") in err


def test_data_without_network_fails_with_the_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "data"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    assert main(["data"]) == 1
    assert "MNIST_ROOT" in capsys.readouterr().err


# ---------------------------------------------------------------- doctor


def findings():
    return {name: (ok, finding, remedy) for name, ok, finding, remedy in doctor.checks()}


@pytest.mark.parametrize(("cuda", "there", "ok"), [("13.0", False, None), ("13.0", True, True), (None, False, True)])
def test_doctor_notices_cuda_that_nothing_uses(monkeypatch, cuda, there, ok):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(device, "get_device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(sys, "platform", "linux")
    found, text, remedy = doctor._device()
    assert found is ok and ("CUDA" in text) == ("whl/cpu" in remedy) == (ok is None)


def test_a_terminal_without_a_character_shows_the_rest():
    code = "from mnist_helpers.__main__ import main; main(['collect', 'no\\u2013where'])"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "cp437"}, cwd=ROOT,
                          capture_output=True, timeout=120)
    assert b"no?where" in done.stderr and b"Traceback" not in done.stderr


def test_doctor_names_what_is_wrong_and_the_remedy(project, monkeypatch):
    (project / "pyproject.toml").write_text("[project.optional-dependencies]\n"
                                            "course = ['torch>=2', 'no-such-package>=1', 'numpy>=999']\n")
    monkeypatch.setattr(data, "damaged", lambda: {"train": "missing"})
    found = findings()
    assert found["torch"][0] and not any(found[name][0] for name in ("no-such-package", "numpy", "MNIST"))
    assert all(remedy for ok, _, remedy in found.values() if not ok)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["~nosuchuser/x", "unreadable"])
def test_doctor_reaches_its_end_whatever_is_broken(project, monkeypatch, root):
    monkeypatch.undo()
    monkeypatch.setattr(data, "project_root", lambda: project)  # without requirements and kernel
    monkeypatch.setenv("MNIST_ROOT", root)
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    found = findings()
    assert found["Python"][0] is True and list(found)[-1] == "kernel"
    assert not any(found[name][0] for name in ("packages", "MNIST", "kernel"))
    assert main(["doctor"]) == 1


@pytest.mark.parametrize(("times", "load", "mine", "ok", "said"), [
    ({1: 10, 2: 6, 4: 3.5, 8: 3.4}, 0.2, 8, True, "take 4"), ({1: 10, 2: 9, 4: 8.5, 8: 8.4}, 0.2, 8, True, "take 1"),
    ({1: 10, 2: 30, 4: 30, 8: 40}, 0.2, 8, None, "busy"), ({1: 10, 2: 6, 4: 3.5, 8: 3.4}, 6, 8, None, "busy"),
    ({1: 10, 2: 6}, 0.2, 2, True, "2 of 8 cores")], ids=["many", "no gain", "slower together", "load", "quota"])
def test_doctor_says_how_many_threads_to_take(monkeypatch, times, load, mine, ok, said):
    asked = []
    monkeypatch.setattr(doctor, "step_times", lambda counts: asked.extend(counts) or times)
    monkeypatch.setattr(processes, "cores", lambda: mine)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0, 0), raising=False)
    found, finding, remedy = doctor._threads()
    assert asked == list(times) and found is ok and said in finding and bool(remedy) is (ok is None)


def test_doctor_measures_each_number_of_threads_and_puts_it_back():
    before = torch.get_num_threads()
    times = doctor.step_times([1, 2], seconds=0.2)
    assert list(times) == [1, 2] and all(each > 0 for each in times.values())
    assert torch.get_num_threads() == before


def test_doctors_remedy_for_a_shadowing_kernel_cures(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/no/such/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                                "display_name": "Python 3", "language": "python"}))
    ok, finding, remedy = findings()["kernel"]
    assert not ok and "/no/such/python" in finding
    subprocess.run(remedy, shell=True, check=True, capture_output=True)
    assert findings()["kernel"][0]


@pytest.mark.parametrize(("backend", "ok"), [("Agg", None), ("", True), ("module://matplotlib_inline.backend_inline", True)])
def test_doctor_says_where_figures_are_not_shown(monkeypatch, backend, ok):
    monkeypatch.setenv("MPLBACKEND", backend)
    found, finding, remedy = doctor._figures()
    assert found is ok and (backend in finding and "MPLBACKEND" in remedy) is (ok is None)


def test_doctor_is_content_with_this_machine(mnist_root, capsys):
    assert main(["doctor"]) == 0, capsys.readouterr().out
