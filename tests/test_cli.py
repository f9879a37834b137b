"""The command line on a small project of its own: what runs, what is kept, what each exit code means."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torchvision

from mnist_helpers import data, notebooks, results, scoreboard
from mnist_helpers.__main__ import main

TRAIN = """
import sys
import torch, mnist_helpers as mh
from types import SimpleNamespace
split = mh.data.Split(torch.zeros(4, 1, 28, 28).byte(), torch.zeros(4).long(), "MNIST")
dataset = mh.data.Dataset("{dataset}", mh.data.profile(), split, split, split)
history = dict(seconds=[1.0], images=100, val_accuracy=[0.5], device="cpu", threads=1, precision="float32",
               interrupted=False)
for step in range(3):
    print(f"step {{step}}", end="\\r")
print("done, with seed", SEED)
test = SimpleNamespace(accuracy=0.75, correct=3, total=4, logits=torch.eye(10)[[0, 0, 7, 0]])
mh.record("{name}.ipynb", dataset, torch.nn.Linear(3, 2), history, test, SEED, augmented_train_accuracy=0.5)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the notebooks 01_good, 02_bad and 03_digits, and a README."""
    (tmp_path / "notebooks").mkdir()
    for name, source in (("01_good", TRAIN.format(name="01_good", dataset="mnist")),
                         ("02_bad", TRAIN.format(name="02_bad", dataset="mnist") + "1 / 0  # a floor is missed"),
                         ("03_digits", TRAIN.format(name="03_digits", dataset="digits"))):
        parameters = nbformat.v4.new_code_cell("SEED = 5", metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(source)])
        notebook.metadata.kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "README.md").write_text("\n".join((*results.MARKERS, *scoreboard.MARKERS)))
    for module in (data, notebooks, results, scoreboard):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    monkeypatch.setitem(results.PUBLISHED, "01_good.ipynb", (None, ""))  # so that it counts as a lesson
    monkeypatch.delenv("MNIST_RUN_RECORD", raising=False)
    return tmp_path


def test_a_full_run_is_saved_and_failures_are_named(project, capfd):
    before = (project / "notebooks" / "03_digits.ipynb").read_bytes()
    assert main(["run", "--profile", "full", "--save"]) == 1
    out, err = capfd.readouterr()
    assert "ZeroDivisionError: division by zero" in err and "failed: 02_bad.ipynb, 03_digits.ipynb" in err
    assert "only full runs on MNIST are saved, and this was full digits" in err
    assert "done, with seed 5" in out and "75.00 %" in out

    # The good one keeps its outputs as a reader sees them, with the fingerprint of its code.
    saved = nbformat.read(project / "notebooks" / "01_good.ipynb", as_version=4)
    assert saved.cells[1].outputs[0].text == "done, with seed 5\n" and saved.cells[1].execution_count == 2
    assert saved.metadata.mnist_helpers.fingerprint == notebooks.fingerprint(saved)
    assert len(saved.cells) == 2 and "papermill" not in json.dumps(saved)
    assert (project / "notebooks" / "03_digits.ipynb").read_bytes() == before

    # Both full runs are recorded; only the saved one is the course's own, and stands in the README.
    runs = results.read(project / "results" / "runs.jsonl")
    assert [(run["notebook"], run.get("reference", False)) for run in runs] == [
        ("01_good.ipynb", True), ("02_bad.ipynb", False), ("03_digits.ipynb", False)], "a disappointing run is kept"
    assert "| 01_good | 8 | 1 |" in (project / "README.md").read_text()
    assert main(["table"]) == 0 and "01_good" in capfd.readouterr().out

    # Changing the code makes the outputs stale.
    saved.cells[1].source += "\n"
    assert saved.metadata.mnist_helpers.fingerprint != notebooks.fingerprint(saved)


def test_a_full_disk_loses_one_record_and_not_the_rest(project, capfd, monkeypatch):
    append = results.append

    def fails(run, path=None):
        if run["notebook"].startswith("01"):
            raise OSError("no space left")
        append(run, path)

    monkeypatch.setattr(results, "append", fails)
    assert main(["run", "01_good", "02_bad", "--profile", "full"]) == 1
    out, err = capfd.readouterr()
    assert "01_good.ipynb failed" in err and "no space left" in err and "| 01_good" not in err
    assert "01_good" in out.rpartition("iteration")[2], "its row is shown all the same"
    assert [run["notebook"] for run in results.read(project / "results" / "runs.jsonl")] == ["02_bad.ipynb"]


def test_whoever_interrupts_keeps_what_was_done(project, capfd, monkeypatch):
    import mnist_helpers.__main__ as command

    execute = command.in_own_process

    def interrupted(path, *arguments):
        if path.stem == "02_bad":
            raise KeyboardInterrupt
        return execute(path, *arguments)

    monkeypatch.setattr(command, "in_own_process", interrupted)
    assert main(["run", "--profile", "full", "--save"]) == 130
    assert "75.00 %" in capfd.readouterr().out
    assert "| 01_good | 8 | 1 |" in (project / "README.md").read_text(), "the README tells what is recorded"


def test_a_copy_of_a_notebook_is_no_lesson_and_not_saved(project, capfd):
    """Jupyter's "Duplicate" leaves the name under which the runs are recorded."""
    copy = project / "notebooks" / "01_good-Copy1.ipynb"
    copy.write_bytes((project / "notebooks" / "01_good.ipynb").read_bytes())
    assert copy not in notebooks.find()
    before = copy.read_bytes()
    assert main(["run", "01_good-Copy1", "--profile", "full", "--save"]) == 1
    assert "01_good-Copy1.ipynb records its runs as 01_good.ipynb: a copy?" in capfd.readouterr().err
    assert copy.read_bytes() == before
    assert not any(run.get("reference") for run in results.read(project / "results" / "runs.jsonl"))


def test_a_quick_run_under_another_seed_shows_its_row_and_keeps_nothing(project, capfd):
    before = (project / "notebooks" / "01_good.ipynb").read_bytes()
    assert main(["run", "01_good", "--profile", "quick", "--seed", "11"]) == 0
    out, _ = capfd.readouterr()
    assert "done, with seed 11" in out and "01_good (quick)" in out
    assert not (project / "results").exists()
    assert (project / "notebooks" / "01_good.ipynb").read_bytes() == before


@pytest.mark.parametrize(("arguments", "message"), [
    (["run", "--save", "--profile", "quick"], "--save keeps full runs only"),
    (["run", "--save", "--profile", "full", "--seed", "1"], "leave out --seed"),
    (["run", "09_missing"], "there is no notebook '09_missing'; there are: 01_good, 02_bad, 03_digits"),
])
def test_wrong_commands_are_refused(project, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--seed", "x"]])
def test_argparse_refuses_the_rest(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_a_table_without_runs_says_how_to_get_them(project, capsys):
    assert main(["table"]) == 1
    assert "python -m mnist_helpers run" in capsys.readouterr().err


def test_data_without_network_fails_with_the_remedy(project, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(project / "data"))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    assert main(["data"]) == 1
    assert "set MNIST_ROOT" in capsys.readouterr().err


def test_doctor_names_what_is_wrong_and_the_line_that_mends_it(project, capsys, monkeypatch):
    (project / "requirements.txt").write_text("# needed\ntorch>=2\nno-such-package>=1\nnumpy>=999\n-e .\n")
    monkeypatch.setenv("MNIST_ROOT", str(project / "data"))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "ok   torch" in said
    assert "BAD  no-such-package not installed\n     -> pip install -r requirements.txt" in said
    assert "BAD  numpy" in said and ">=999 is needed" in said
    assert "BAD  MNIST" in said and "-> python -m mnist_helpers data" in said


def test_doctor_is_content_with_this_machine(mnist_root, capsys):
    assert main(["doctor"]) == 0, capsys.readouterr().out
    assert "everything is ready" in capsys.readouterr().out


def test_doctor_without_a_package_of_its_own_names_the_remedy():
    code = "import runpy, sys; sys.modules['joblib'] = None; runpy.run_module('mnist_helpers', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "pip install -r requirements" in done.stderr


def test_an_interrupted_publish_can_be_repeated(project, monkeypatch, capsys):
    root = Path(__file__).parents[1]
    for name in ("pyproject.toml", "README.md"):
        (project / name).write_text((root / name).read_text(encoding="utf-8"), encoding="utf-8")
    replace, calls = data.replace_file, []

    def fails_at_the_second(path, content):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("no space left")
        replace(path, content)

    monkeypatch.setattr(notebooks, "replace_file", fails_at_the_second)
    assert main(["publish", "some-one/my-course"]) == 1
    assert "no space left" in capsys.readouterr().err
    assert main(["publish", "some-one/my-course"]) == 0 and len(calls) == 3
    assert "OWNER/mnist-course" not in (project / "README.md").read_text(encoding="utf-8")


def test_publish_stamps_every_address_and_keeps_the_outputs_valid(project, capsys):
    root = Path(__file__).parents[1]
    for name in ("pyproject.toml", "README.md", "notebooks/01_baseline.ipynb", "notebooks/reading_the_numbers.ipynb"):
        (project / name).write_text((root / name).read_text(encoding="utf-8"), encoding="utf-8")
    before = nbformat.read(project / "notebooks" / "01_baseline.ipynb", as_version=4)
    assert main(["publish", "some-one/my.course", "--branch", "autumn"]) == 0
    assert "README.md" in capsys.readouterr().out
    assert notebooks.repository() == "some-one/my.course"
    after = nbformat.read(project / "notebooks" / "01_baseline.ipynb", as_version=4)
    assert "github/some-one/my.course/blob/autumn/notebooks/01_baseline.ipynb)" in after.cells[0].source
    setup = next(cell.source for cell in after.cells if "setup" in cell.metadata.get("tags", []))
    assert '"--branch", "autumn"' in setup and '"https://github.com/some-one/my.course"' in setup
    assert notebooks.fingerprint(after) == notebooks.fingerprint(before)
    for path in project.rglob("*.*"):
        if path.suffix in (".ipynb", ".md", ".toml"):
            assert "OWNER/mnist-course" not in path.read_text(encoding="utf-8"), path
    assert main(["publish", "some-one/my.course", "--branch", "autumn"]) == 0
    assert capsys.readouterr().out == "", "a second time changes nothing"
    assert main(["publish", "https://github.com/some-one/my.course"]) == 1
    assert "an address is OWNER/NAME" in capsys.readouterr().err
