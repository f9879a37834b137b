"""The notebooks as files: what they must have, must not have, and that their outputs are those of their code."""

import ast
import re
import subprocess
import sys

import colab_like
import nbformat
import pytest
import torch

import mnist_helpers as mh
from mnist_helpers import data, notebooks, results, scoreboard

PATHS = notebooks.every()
LESSONS = notebooks.find()
PARAMETERS = {"01": 26_714, "02": 24_210, "03": 18_374, "04": 20_514, "05": 18_422, "06": 18_422, "07": 18_422}
CHALLENGES = {"DoubleNorm": 24_394, "TwoLinear": 25_255, "OneEpoch": 23_418, "SixConvolutions": 19_114,
              "Strided": 19_602, "OptimizedMNISTNet": 7_034, "FinalMNISTNet": 19_382, "SixOfSix": 18_570,
              "AllImages": 19_602, "Under8000": 7_804, "SpeedRun": 19_610, "FewEpochs": 18_570,
              "TwoEpochs": 18_570, "Fewest": 3_546, "Under2500": 2_498}
MARKER = "# NBVAL_CHECK_OUTPUT"
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|work|content|usr|var|opt|mnt|private)/|\b[A-Z]:\\")
LONGEST_CELL = 24

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tagged(path, tag):
    return [cell for cell in read(path).cells if tag in cell.metadata.get("tags", [])]


def test_there_are_seven_lessons():
    assert [path.name[:2] for path in LESSONS] == list(PARAMETERS)
    assert [path.name for path in LESSONS] == list(results.PUBLISHED)


@each_notebook
def test_kernel_is_python3_and_the_format_valid(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@each_notebook
def test_every_cell_was_run_in_order(path):
    """A cell without a count is not compared by nbval, whatever its marker says."""
    counts = [cell.execution_count for cell in code(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_output_checks_are_well_formed_and_have_an_output_to_check(path):
    marked = [cell for cell in code(path) if "NBVAL" in cell.source or "PYTEST" in cell.source]
    assert marked
    for cell in marked:
        assert cell.source.splitlines()[0] == MARKER and cell.source.count("NBVAL") == 1
        assert cell.outputs and cell.execution_count


@each_notebook
def test_no_magic_and_no_shell(path):
    """nbval passes a cell with an unknown magic without running it, and a failing shell command."""
    for cell in code(path):
        ast.parse(cell.source)  # neither is Python


@each_notebook
def test_no_error_warning_or_widget_in_the_outputs(path):
    for cell in code(path):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not (output.output_type == "stream" and output.name == "stderr")
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
            assert "\r" not in output.get("text", "")


@each_notebook
def test_no_absolute_path(path):
    for cell in read(path).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts.append(output.get("text", ""))
            texts += [str(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
        for text in texts:
            assert not ABSOLUTE.search(text), text


@each_notebook
def test_outputs_belong_to_the_code_as_it_stands(path):
    metadata = read(path).metadata.mnist_helpers
    assert metadata.fingerprint == notebooks.fingerprint(read(path)), (
        f"the code was changed after its outputs were made: python -m mnist_helpers run --save {path.stem}")
    assert (metadata.profile, metadata.dataset) == ("full", "mnist")


@each_lesson
def test_outputs_are_those_of_the_recorded_run(path):
    run = results.latest(results.read(), reference=True, seed=0)[path.name]
    shown = "".join(output.get("data", {}).get("text/markdown", "") for cell in code(path) for output in cell.outputs)
    shown = shown.replace("\N{NO-BREAK SPACE}", " ")
    assert f"| {run['parameters']:,} | {run['epochs']} | {results.percent(run['val_accuracy'])} | " \
           f"{results.with_interval(run)} |" in shown


@pytest.fixture(scope="module")
def test_images(mnist_root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MNIST_PROFILE", "full")
        return mh.load_mnist(verbose=False).test


@each_lesson
def test_the_weights_are_those_of_the_recorded_run(path, test_images):
    run = results.latest(results.read(), reference=True, seed=0)[path.name]
    assert notebooks.weights_file(path).stat().st_size < 120_000
    predicted = mh.evaluate(notebooks.trained(path), test_images).logits.argmax(1)
    expected = test_images.labels.clone()
    for image, digit in run["mistakes"].items():
        expected[int(image)] = digit
    # Another processor rounds otherwise, which may tip an image that lies on the edge.
    assert (predicted != expected).sum() <= 2


@each_notebook
def test_it_begins_with_its_badge_and_title(path):
    name = path.relative_to(notebooks.folder().parent).as_posix()
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    badge, _, title = first.source.splitlines()[:3]
    branch = colab_like.branch(tagged(path, "setup")[0])  # publish stamps both
    address = f"/{notebooks.repository()}/blob/{branch}/{name})"
    assert badge.startswith("[![Open in Colab](") and badge.endswith(address)
    assert title.startswith("# ")


def test_the_set_up_cell_is_the_same_everywhere():
    assert len({tuple(cell.source for cell in tagged(path, "setup")) for path in PATHS}) == 1
    assert all(code(path)[0].source == tagged(path, "setup")[0].source for path in PATHS)
    assert f'"https://github.com/{notebooks.repository()}"' in code(PATHS[0])[0].source


@each_notebook
def test_the_parameters_cell_holds_the_seed(path):
    (cell,) = tagged(path, "parameters")
    assert cell.source.splitlines()[0] == "SEED = 0"


@each_lesson
def test_the_lesson_has_its_parts_in_order(path):
    text = "\n".join(cell.source for cell in read(path).cells)
    parts = ["**You will learn**", "**You need**", "**It takes**", "## What ", "## The data", "## The network",
             MARKER, "mh.summary(", "## Training", "mh.plots.curves(", "## What it gets wrong",
             "mh.plots.confusion(", "mh.plots.mistakes(", "mh.table_so_far(", "## Questions", "## Exercises",
             "<details><summary>Solution</summary>"]
    if path.name.startswith("01"):  # it has one epoch, twice, and so no curve over epochs
        parts.remove("mh.plots.curves(")
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert f'mh.record("{path.name}"' in text
    assert text.count("mh.evaluate(model, mnist.test)") + text.count("mh.evaluate(model_64, mnist.test)") == 1, (
        "the test images are touched once")


@each_notebook
def test_cells_are_short(path):
    for cell in code(path):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source


@each_notebook
def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", cell.source):
                assert (path.parent / target).exists(), target


@each_lesson
def test_the_network_has_its_parameters(path, capsys):
    """The class of the lesson, run on its own: its size by PyTorch, by torchsummary, and by the table above."""
    assert size(path, None, capsys) == PARAMETERS[path.name[:2]]


def size(path, network, capsys):
    """The parameters of a class in a notebook, on which PyTorch and torchsummary agree."""
    model = notebooks.network(path, network)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    mh.summary(model)
    said = capsys.readouterr().out
    parameters = sum(p.numel() for p in model.parameters())
    assert f"Total params: {parameters:,}" in said and "torchsummary counts" not in said
    return parameters


# ---------------------------------------------------------------- challenges


def test_every_challenge_is_on_the_scoreboard():
    names = {path.stem for path in PATHS if path.parent.name == "challenges"}
    assert names == {name for name, *_ in scoreboard.ENTRIES}
    assert {network for _, network, *_ in scoreboard.ENTRIES} == {*CHALLENGES}


@pytest.mark.parametrize(("name", "network"), [entry[:2] for entry in scoreboard.ENTRIES])
def test_the_challenges_networks_have_their_parameters(name, network, capsys):
    assert size(notebooks.folder() / "challenges" / f"{name}.ipynb", network, capsys) == CHALLENGES[network]


def shows(name, table):
    """Whether an output of a notebook is ``table``."""
    outputs = [output for cell in code(notebooks.folder() / f"{name}.ipynb") for output in cell.outputs]
    return any(table._repr_markdown_() in output.get("data", {}).get("text/markdown", "") for output in outputs)


@each_lesson
def test_a_lesson_shows_its_table_and_its_comparisons_as_recorded(path):
    run = results.latest(results.read(), reference=True, seed=0)[path.name]
    said = "\n".join(output.get("text", "") for cell in code(path) for output in cell.outputs)
    again = "a seed was recorded afterwards: run it once more with --save"
    assert shows(path.stem, results.table_so_far(run)), again
    for other in re.findall(r'mh.compare\(run, "(.+?)"\)', "\n".join(cell.source for cell in code(path))):
        assert results.compare(run, other) in said, again


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in scoreboard.ENTRIES))
def test_a_challenge_shows_the_scoreboard_as_recorded(name):
    assert shows(f"challenges/{name}", scoreboard.scoreboard(notebook=name))


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in scoreboard.ENTRIES))
def test_a_challenge_shows_its_trials_as_recorded(name):
    sources = [cell.source for cell in code(notebooks.folder() / "challenges" / f"{name}.ipynb")]
    for challenge, spread in re.findall(r'trials\("(.+?)"(, spread=True)?\)', "\n".join(sources)):
        assert shows(f"challenges/{name}", scoreboard.trials(challenge, spread=bool(spread)))


def test_the_frontier_shows_the_whole_scoreboard_as_recorded():
    assert shows("frontier", scoreboard.scoreboard())


def test_every_challenge_has_five_seeds_of_one_code():
    for seeds in scoreboard.entries().values():
        assert len(seeds) >= 5 and len({run["code"] for run in seeds.values()}) == 1


# ---------------------------------------------------------------- nbval itself


def nbval(path, *options):
    """Run a notebook's cells as tests, with the settings of this project."""
    return subprocess.run([sys.executable, "-m", "pytest", "-c", data.project_root() / "pyproject.toml", "-p",
                           "no:cacheprovider", *options, path], cwd=path.parent, capture_output=True, text=True)


def test_nbval_compares_marked_outputs(tmp_path):
    """The regression tests of the lessons rest on this."""
    notebook = nbformat.v4.new_notebook()
    for number, (source, shown) in enumerate([("x = 2", None), (f"{MARKER}\nprint(x)", "2\n"), ("print(x)", "9\n"),
                                              (f"{MARKER}\nprint(x + 1)", "9\n"), ("assert x == 3", None)], start=1):
        cell = nbformat.v4.new_code_cell(source, execution_count=number)
        if shown:
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=shown)]
        notebook.cells.append(cell)
    nbformat.write(notebook, tmp_path / "some.ipynb")
    said = nbval(tmp_path / "some.ipynb").stdout
    assert "2 failed, 3 passed" in said
    assert "Cell 3" in said and "Cell 4" in said


def test_a_cell_over_its_time_fails_the_rest_even_if_it_survives_the_interrupt(tmp_path):
    """As `fit` does, which takes the interrupt for a reader's and returns what it has."""
    sources = ("import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass", "assert True")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, tmp_path / "slow.ipynb")
    said = nbval(tmp_path / "slow.ipynb", "--nbval-cell-timeout", "2").stdout
    assert "XPASS(strict)" in said and "1 failed, 1 passed" in said


def test_the_profile_under_pytest_is_quick_unless_set(tmp_path):
    import os

    script = "import conftest, os, types; options = types.SimpleNamespace(nbval_cell_timeout=2000); " \
             "conftest.pytest_configure(types.SimpleNamespace(option=options)); " \
             "print(os.environ['MNIST_PROFILE'], options.nbval_cell_timeout)"
    environment = {name: value for name, value in os.environ.items() if name != "MNIST_PROFILE"}
    for extra, expected in (({}, "quick 120"), ({"MNIST_PROFILE": "full"}, "full 7200")):
        done = subprocess.run([sys.executable, "-c", script], cwd=data.project_root(), env=environment | extra,
                              capture_output=True, text=True)
        assert done.stdout.strip() == expected
