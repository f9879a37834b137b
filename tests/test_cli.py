"""The command line on a small project of its own: what runs, what is kept, what ends, what each exit code means."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import project as small
import psutil
import pytest
import torchvision

from mnist_helpers import __main__ as command
from mnist_helpers import data, files
from mnist_helpers.__main__ import main
from mnist_helpers.course import doctor, notebooks, publish, records

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path, monkeypatch):
    small.make(tmp_path)
    small.settle(tmp_path, monkeypatch.setattr)
    monkeypatch.delenv("MNIST_COLLECT", raising=False)
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(project, name="runs"):
    return [(run["notebook"], run["seed"]) for run in
            files.read_records(project / "results" / f"{name}.jsonl", records.KEYS)]


# ---------------------------------------------------------------- run


def test_a_full_run_is_saved_and_failures_are_named(project, capfd):
    path = project / "notebooks" / "01_good.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["jupytext"] = {"formats": "ipynb,py"}
    notebook.cells[0].metadata["slideshow"] = {"slide_type": "slide"}
    nbformat.write(notebook, path)
    others = [project / "notebooks" / f"{name}.ipynb" for name in ("02_bad", "03_digits")]
    before = [other.read_bytes() for other in others]
    assert main(["run", "01_good", "02_bad", "03_digits", "--profile", "full", "--save"]) == 1
    out, err = capfd.readouterr()
    assert "ZeroDivisionError" in err and err.splitlines()[-1] == "failed: 02_bad.ipynb, 03_digits.ipynb"
    assert "done, with seed 5" in out and "95.00 %" in out

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
    assert records.stale(records.course_records()[0]) is None
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


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_run(tmp_path, number):
    small.make(tmp_path)
    process = psutil.Popen([sys.executable, small.__file__, tmp_path, "run", "04_slow"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, env=os.environ | {"MNIST_PROFILE": "quick"})
    deadline, family = time.monotonic() + 60, []
    while not any("ipykernel" in " ".join(each.cmdline()) for each in family):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
        family = process.children(recursive=True)
    process.send_signal(number)
    process.wait(30)
    assert psutil.wait_procs(family, timeout=15)[1] == []


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
    {"edited": ("step 1", "step 2")}, {"error": "it failed"}, {"kept": {}},
    {"records": [small.record("Good", "01_good", profile="quick")]},
    {"records": [small.record("Good", "01_good", dataset="digits")]},
    {"records": [small.record("Bad", "02_bad")]}, {"records": [small.record("Mine", "yours")]},
], ids=["edited while it ran", "failed", "replayed", "quick", "digits", "of another notebook", "not in the catalogue"])
def test_what_is_not_the_courses_is_refused(project, changes):
    run = execution(project, **changes)
    before = contents(project)
    with pytest.raises(ValueError, match=r"01_good\.ipynb"):
        notebooks.save(run)
    assert contents(project) == before


def test_a_comment_edited_while_it_ran_stays(project):
    notebooks.save(execution(project, edited=("import json", "# a comment\\nimport json")))
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

    def replayed(paths, profile):
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
    assert contents(project / "results") == results


# ---------------------------------------------------------------- wrong commands, and what stands in the way


@pytest.mark.parametrize("arguments", [
    ["run", "--save", "--profile", "quick"], ["run", "--save", "--profile", "full", "--seed", "1"],
    ["run", "--threads", "0"], ["study", "--seeds", "0"], ["study", "--workers", "0"], ["run", "09_missing"]])
def test_wrong_commands_are_refused(project, capsys, arguments):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--seed", "x"]])
def test_argparse_refuses_the_rest(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_a_misspelt_notebook_is_guessed(project, capsys):
    assert main(["run", "01_godo"]) == 2
    assert "did you mean 01_good?" in capsys.readouterr().err


def test_help_and_version_need_no_torch():
    for option in ("--help", "--version"):
        code = f"import runpy, sys; sys.modules['torch'] = None; sys.argv = ['', {option!r}]; " \
               "runpy.run_module('mnist_helpers', run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout


def test_a_kernel_with_another_package_is_noticed(project, capsys, monkeypatch):
    other = project / "mnist_helpers"
    other.mkdir()
    (other / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(project))  # as in another clone
    assert main(["run", "01_good", "--profile", "quick"]) == 1
    err = capsys.readouterr().err
    assert str(other) in err and str(ROOT / "mnist_helpers") in err


def test_data_without_network_fails_with_the_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(tmp_path / "data"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    assert main(["data"]) == 1
    assert "MNIST_ROOT" in capsys.readouterr().err


# ---------------------------------------------------------------- doctor


def findings():
    return {name: (ok, finding, remedy) for name, ok, finding, remedy in doctor.checks()}


def test_doctor_names_what_is_wrong_and_the_remedy(project, monkeypatch):
    (project / "requirements.txt").write_text("# needed\ntorch>=2\nno-such-package>=1\nnumpy>=999\n-e .\n")
    monkeypatch.setattr(data, "damaged", lambda: {"train": "missing"})
    found = findings()
    assert found["torch"][0] and not any(found[name][0] for name in ("no-such-package", "numpy", "MNIST"))
    assert all(remedy for ok, _, remedy in found.values() if not ok)


@pytest.mark.parametrize("root", ["~nosuchuser/x", "unreadable"])
def test_doctor_reaches_its_end_whatever_is_broken(project, monkeypatch, root):
    monkeypatch.undo()
    monkeypatch.setattr(data, "project_root", lambda: project)  # without requirements, address and kernel
    monkeypatch.setenv("MNIST_ROOT", root)
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    found = findings()
    assert found["Python"][0] is True and list(found)[-1] == "address"
    assert not any(found[name][0] for name in ("packages", "MNIST", "kernel", "address"))
    assert main(["doctor"]) == 1


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


def test_doctor_is_content_with_this_machine(mnist_root, capsys):
    assert main(["doctor"]) == 0, capsys.readouterr().out


# ---------------------------------------------------------------- publish


@pytest.fixture
def stamped(project):
    """The project with files of the course that bear its address."""
    names = ["pyproject.toml", "README.md", "notebooks/01_baseline.ipynb", "notebooks/reading_the_numbers.ipynb"]
    for name in names:
        (project / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return [project / name for name in names]


def test_publish_stamps_every_address_and_keeps_the_outputs(stamped, capsys):
    before = notebooks.read(stamped[2])
    assert main(["publish", "git@github.com:some-one/my.course.git", "--branch", "autumn"]) == 0
    assert notebooks.repository() == "some-one/my.course"
    after = notebooks.read(stamped[2])
    assert "github/some-one/my.course/blob/autumn/notebooks/01_baseline.ipynb" in after.cells[0].source
    setup = notebooks.tagged(after, "setup")[0].source
    assert '"--branch", "autumn"' in setup and '"https://github.com/some-one/my.course"' in setup
    assert notebooks.code_digest(after) == notebooks.code_digest(before)
    assert not any("OWNER/mnist-course" in path.read_text(encoding="utf-8") for path in stamped)
    capsys.readouterr()
    assert main(["publish", "some-one/my.course", "--branch", "autumn"]) == 0
    assert capsys.readouterr().out == "", "a second time changes nothing"


@pytest.mark.parametrize("written", [1, 2, 3])
def test_an_interrupted_publish_is_finished_under_another_name(stamped, monkeypatch, written):
    replace, calls = files.replace_file, []

    def fails(path, content):
        calls.append(path)
        if len(calls) == written + 1:
            raise OSError("no space left")
        replace(path, content)

    monkeypatch.setattr(files, "replace_file", fails)
    assert main(["publish", "some-one/first"]) == 1
    assert main(["publish", "another/second"]) == 0
    assert not any(old in path.read_text(encoding="utf-8") for path in stamped for old in ("some-one", "OWNER/mnist"))


def test_addresses_are_taken_as_people_copy_them():
    for address in ("a-b/c.d", "https://github.com/a-b/c.d", "https://github.com/a-b/c.d.git", "http://github.com/a-b/c.d/",
                    "git@github.com:a-b/c.d.git", "ssh://git@github.com/a-b/c.d.git", "https://me:x@github.com/a-b/c.d"):
        assert publish.parsed(address) == "a-b/c.d"
    for address in ("OWNER/mnist-course", "../..", "-a/-b", "a-/b", "a--b/c", "a/..", "a", "a/b/c", "a b/c", "ä/b", "",
                    "https://example.com/a/b", "a" * 40 + "/b", "a/b;c"):
        with pytest.raises(ValueError):
            publish.parsed(address)


def test_publish_takes_gits_origin_and_refuses_odd_branches(stamped, monkeypatch):
    subprocess.run(["git", "init", "-q"], cwd=stamped[0].parent, check=True)
    assert main(["publish"]) == 1, "there is no origin"
    subprocess.run(["git", "remote", "add", "origin", "https://github.com/x/y.git"], cwd=stamped[0].parent, check=True)
    for branch in ("-a", "a..b", "a b", "a/", ""):
        assert main(["publish", f"--branch={branch}"]) == 1
    assert main(["publish"]) == 0 and notebooks.repository() == "x/y"
