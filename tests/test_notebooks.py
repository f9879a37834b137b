"""The notebooks as files: what they must have and must not have, that their recipes stand alone and go on where they
were interrupted, and that their outputs are those of their code and of the records."""

import ast
import builtins
import os
import re
import shutil
import subprocess
import symtable
import sys

import nbformat
import pytest
import recipes
import torch

import mnist_helpers as mh
from mnist_helpers import data
from mnist_helpers.course import catalogue, notebooks, records, tables

PATHS = notebooks.every()
TRAINING = [path for path in PATHS if notebooks.recipe_cells(notebooks.read(path))]
LESSONS = notebooks.lessons()
TAGS = {"setup", "parameters", "recipe", "experiment", "recorded", "nbval-check-output", "result", "answer", "check"}
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|Users|work|content|usr|var|opt|mnt|private)/|\b[A-Z]:\\")
LONGEST_CELL = 24  # lines

each_notebook = pytest.mark.parametrize("path", PATHS, ids=notebooks.name_of)
each_training = pytest.mark.parametrize("path", TRAINING, ids=notebooks.name_of)
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=notebooks.name_of)
each_network = pytest.mark.parametrize("network", catalogue.networks(), ids=lambda network: network.name)


def code(path):
    return [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]


def tagged(path, *tags):
    return notebooks.tagged(notebooks.read(path), *tags)


def networks_of(path):
    return [network for network in catalogue.networks() if network.notebook == notebooks.name_of(path)]


# ---------------------------------------------------------------- as files


@each_notebook
def test_kernel_is_python3_and_the_format_valid(path):
    notebook = notebooks.read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@each_notebook
def test_every_cell_was_run_in_order(path):
    """A cell without a count is not compared by nbval, whatever its tag says."""
    counts = [cell.execution_count for cell in code(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_tags_are_known_and_what_is_compared_has_an_output_to_compare(path):
    cells = notebooks.read(path).cells
    quoted = set(re.findall(r"<!-- = printed by (\S+) -->", "".join(cell.source for cell in cells)))
    for cell in cells:
        assert set(cell.metadata.get("tags", [])) <= TAGS | quoted
        assert not re.search(r"^#.*(NBVAL|PYTEST)_", cell.source, re.MULTILINE), "tags say what nbval does"
    for cell in tagged(path, "nbval-check-output", "recorded"):
        assert any("text" in output or any(kind.startswith("text/") for kind in output.get("data", {}))
                   for output in cell.outputs), cell.source


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


@pytest.mark.parametrize("path", [*PATHS, *notebooks.every_solution()], ids=notebooks.name_of)
def test_every_figure_tells_what_is_seen_in_it(path):
    silent = [cell.id for cell in code(path) for output in cell.outputs if "image/png" in output.get("data", {})
              and not output.metadata.get("image/png", {}).get("alt")]
    assert not silent, "draw with mh.plots.figure, and show the figure as the last line of the cell"


@each_notebook
def test_no_absolute_path(path):
    for cell in notebooks.read(path).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts.append(output.get("text", ""))
            texts += [str(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
        for text in texts:
            assert not ABSOLUTE.search(text), text


@each_notebook
def test_cells_are_short(path):
    for cell in code(path):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source


@each_notebook
def test_links_lead_somewhere(path):
    for cell in notebooks.read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", cell.source):
                assert (path.parent / target).exists(), target


@each_notebook
def test_it_bears_no_address_but_the_placeholder(path):
    """Or a fork that bears its own could not take in changes; the branch `published` has the addresses."""
    assert "colab.research.google.com" not in notebooks.read(path).cells[0].source
    assert '"--branch", "main", "https://github.com/-OWNER-/mnist-course"' in tagged(path, "setup")[0].source


def test_the_set_up_cell_is_the_same_everywhere():
    assert len({tuple(cell.source for cell in tagged(path, "setup")) for path in PATHS}) == 1
    assert all(code(path)[0].source == tagged(path, "setup")[0].source for path in PATHS)


FORM = re.compile(r"^\w+ = \w+  # @param (\[.*\] )?\{type: \"(integer|raw)\"\}$")


@each_notebook
def test_the_parameters_cell_holds_what_the_notebook_reads(path):
    (cell,) = tagged(path, "parameters")
    parameters = {target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body
                  for target in node.targets}
    assert parameters.pop("SEED") == 0
    assert set(parameters.values()) <= {None} and set(parameters) <= {"CHECKPOINT", "PROFILE"}
    assert ("PROFILE" in parameters) == (path in TRAINING)
    assert all(FORM.search(line) for line in cell.source.splitlines()), "Colab shows each as a field of a form"
    recipe = "\n".join(cell.source for cell in tagged(path, "recipe"))
    for name in parameters:
        assert re.search(rf"\b{name}\b", recipe), f"{name} is read by no recipe cell"


# ---------------------------------------------------------------- recipes


def names(source):
    """The global names that a cell defines, and those that it reads without defining them."""
    def read_below(table):
        for child in table.get_children():
            yield from (symbol.get_name() for symbol in child.get_symbols() if symbol.is_global())
            yield from read_below(child)

    top = symtable.symtable(source, "cell", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    read = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()} | set(read_below(top))
    return defined, read - defined - set(dir(builtins)) - {"__name__"}


@each_notebook
def test_a_recipe_reads_nothing_that_another_cell_defines(path):
    """Otherwise running the recipe alone would train something else than running the notebook."""
    made_by = {}
    for cell in code(path):
        kind = next((tag for tag in ("parameters", "recipe", "experiment") if tag in cell.metadata.get("tags", [])), "other")
        defined, read = names(cell.source)
        may_read = {"recipe": {"parameters", "recipe"}, "experiment": {"parameters", "recipe", "experiment"}}.get(kind)
        if may_read:
            wrong = {name: made_by.get(name, "nothing") for name in read if made_by.get(name) not in may_read}
            assert not wrong, f"defined elsewhere: {wrong}, in\n{cell.source}"
        made_by |= dict.fromkeys(defined, kind)


@each_notebook
def test_a_recipe_shows_nothing_and_never_sees_the_test_images(path):
    shows = {"print", "display", "plots", "summary", "evaluate", "record"}
    for cell in tagged(path, "recipe", "experiment"):
        tree = ast.parse(cell.source)
        used = {node.attr if isinstance(node, ast.Attribute) else node.id for node in ast.walk(tree)
                if isinstance(node, ast.Attribute | ast.Name)}
        assert not used & shows and not isinstance(tree.body[-1], ast.Expr), cell.source
        assert "mnist.test" not in cell.source


@each_lesson
def test_the_test_images_are_evaluated_once(path):
    calls = [node for cell in code(path) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    evaluated = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "mh.evaluate"]
    assert sum("mnist.test" in call for call in evaluated) == 1


def test_every_notebook_that_trains_is_in_the_catalogue():
    assert {notebooks.name_of(path) for path in TRAINING} == {network.notebook for network in catalogue.networks()}


@each_network
def test_the_networks_have_their_parameters(network, capsys):
    """The class, imported from its notebook: its size by PyTorch, by torchsummary, and by the catalogue."""
    model = getattr(notebooks.network(network.name), network.name)()
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    mh.summary(model)
    said = capsys.readouterr().out
    assert sum(p.numel() for p in model.parameters()) == network.parameters
    again = "times, and counted as often" in said  # a layer that is used again: torchsummary counts it at each use
    assert (f"the model has {network.parameters:,} registered" if again else
            f"Total params: {network.parameters:,}") in said and again == ("torchsummary counts" in said)
    assert again == (network.name == "Under1000")


@each_lesson
def test_an_edited_network_is_said_to_be_the_readers_own(path, capsys):
    """Instead of an assertion that stops the lesson."""
    cells = [cell for cell in code(path) if cell.source.startswith("import torch") or "(nn.Module)" in cell.source or (
        "This is your network now" in cell.source)]
    notebooks.run_cells(cells, path.name, seed=0)
    assert "your network" not in capsys.readouterr().out
    for cell in cells:
        cell.source = re.sub(r"(self\.conv1 = nn\.Conv2d\(1, \d+), 3, padding=1", r"\1, 5, padding=2", cell.source)
    notebooks.run_cells(cells, path.name, seed=0)
    (network,) = networks_of(path)
    assert f"your network now: lesson {network.lesson}'s has {network.parameters:,} parameters" in capsys.readouterr().out


@pytest.fixture
def digits():
    """Three epochs of the digits sample, on one thread: batches this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "fetch", recipes.no_mnist)
        patch.setattr(data.Dataset, "epochs", recipes.at_most_three)
        patch.setenv("MNIST_PROFILE", "quick")
        yield
    torch.set_num_threads(threads)


RESUMABLE = [path for path in PATHS if "CHECKPOINT" in tagged(path, "parameters")[0].source]
STEP = 28  # in the second epoch of batches of 64, and in the third of batches of 128


@pytest.mark.parametrize("path", [path for path in TRAINING if path not in RESUMABLE], ids=notebooks.name_of)
def test_the_recipe_alone_trains_the_networks_of_the_catalogue(path, digits):
    trained = [type(run.model).__name__ for run in recipes.run(path).values()]
    assert sorted(trained) == sorted(network.name for network in networks_of(path))


@pytest.mark.parametrize("path", RESUMABLE, ids=notebooks.name_of)
def test_a_lesson_that_was_interrupted_goes_on_to_the_same_weights(path, digits, tmp_path, capfd):
    """`CHECKPOINT` as a learner sets it. Its recipe alone is run, which trains what the notebook trains."""
    undisturbed = recipes.run(path)
    assert sorted(type(run.model).__name__ for run in undisturbed.values()) == sorted(
        network.name for network in networks_of(path))
    checkpoint = tmp_path / "checkpoint.pt"
    handle = recipes.stop_at(STEP)
    try:
        with pytest.raises(KeyboardInterrupt):
            recipes.run(path, CHECKPOINT=str(checkpoint))
    finally:
        handle.remove()
    capfd.readouterr()
    resumed = recipes.run(path, CHECKPOINT=str(checkpoint))
    assert "going on from checkpoint.pt" in capfd.readouterr().out
    assert {name: run.weights for name, run in resumed.items()} == {
        name: run.weights for name, run in undisturbed.items()}


# ---------------------------------------------------------------- outputs


@each_notebook
def test_outputs_belong_to_the_code_as_it_stands(path):
    metadata = notebooks.read(path).metadata.mnist_helpers
    assert metadata.get("code") == notebooks.code_digest(notebooks.read(path)), (
        f"the code was changed after its outputs were made: python -m mnist_helpers refresh {notebooks.name_of(path)}")
    assert metadata.profile in ("full", "recorded") and metadata.dataset == "mnist"


@each_notebook
def test_the_tables_shown_are_those_of_the_records(path):
    shown = "".join(output.get("data", {}).get("text/markdown", "") for cell in code(path) for output in cell.outputs)
    for network in networks_of(path):
        table = tables.scoreboard(notebook=network.notebook)
        if network.lesson:
            table = tables.table_so_far(records.all_seeds()[network.name][0])
        # A challenge shows its own run below the course's rows.
        assert all(line in shown for line in table._repr_markdown_().splitlines()), f"python -m mnist_helpers refresh {notebooks.name_of(path)}"


@pytest.fixture(scope="module")
def test_images(mnist_root):
    return mh.load_mnist(profile="full", verbose=False).test


@each_network
def test_the_kept_weights_are_those_of_the_record(network, test_images):
    record = records.all_seeds()[network.name][0]
    predicted = mh.evaluate(notebooks.trained(network.name), test_images).logits.argmax(1)
    expected = test_images.labels.clone()
    for image, digit in record["mistakes"].items():
        expected[int(image)] = digit
    # Another processor rounds otherwise, which may tip an image that lies on the edge.
    assert (predicted != expected).sum() <= 2


# ---------------------------------------------------------------- nbval itself


def nbval(path, *options, profile="quick"):
    """Run a notebook's cells as tests, with the settings of this project."""
    root = data.project_root()
    return subprocess.run([sys.executable, "-m", "pytest", "-n", "0", "-c", root / "pyproject.toml", "-p", "no:cacheprovider",
                           f"--confcutdir={root}", "-p", "conftest", *options, path], cwd=path.parent, text=True,
                          capture_output=True, env=os.environ | {"MNIST_PROFILE": profile, "PYTHONPATH": str(root)}).stdout


def notebook(path, *cells):
    """A notebook of ``(source, shown, tags)``."""
    made = nbformat.v4.new_notebook()
    for number, (source, shown, *tags) in enumerate(cells, start=1):
        cell = nbformat.v4.new_code_cell(source, execution_count=number, metadata={"tags": tags})
        if shown:
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=shown)]
        made.cells.append(cell)
    nbformat.write(made, path)
    return path


@pytest.mark.slow
def test_nbval_compares_tagged_outputs(tmp_path, mnist_root):
    """The regression tests of the lessons rest on this: on the tag, and on the profile for what is recorded."""
    path = notebook(tmp_path / "some.ipynb", ("x = 2", None), ("print(x)", "2\n", "nbval-check-output"),
                    ("print(x)", "9\n"), ("print(x + 1)", "9\n", "nbval-check-output"), ("assert x == 3", None),
                    ("print(x)", "9\n", "recorded"), ("print(x)", "2\n", "recorded"))
    for profile, failed in (("quick", ["Cell 3", "Cell 4"]), ("recorded", ["Cell 3", "Cell 4", "Cell 5"])):
        said = nbval(path, profile=profile)
        assert f"{len(failed)} failed, {7 - len(failed)} passed" in said, said
        assert sorted(set(re.findall(r"^FAILED .*::(Cell \d)", said, re.MULTILINE))) == failed


@pytest.mark.slow
def test_a_cell_over_its_time_fails_the_rest_even_if_it_survives_the_interrupt(tmp_path):
    path = notebook(tmp_path / "slow.ipynb", (
        "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass", None), ("assert True", None))
    said = nbval(path, "--nbval-cell-timeout", "2")
    assert "XPASS(strict)" in said and "1 failed, 1 passed" in said


@pytest.mark.slow
def test_what_a_learner_makes_is_not_taken_for_the_courses(tmp_path):
    """A copy of a lesson and files that are no notebooks are no tests; a lesson run in place is not compared."""
    few = "01_baseline", "by_hand", "challenges/one_epoch"
    (tmp_path / "notebooks" / "challenges").mkdir(parents=True)
    for name in ("conftest.py", "pyproject.toml", *(f"notebooks/{each}.ipynb" for each in few)):
        shutil.copy(data.project_root() / name, tmp_path / name)
    shutil.copytree(data.project_root() / "mnist_helpers", tmp_path / "mnist_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    for arguments in (["init", "--quiet"], ["add", "--all"], ["-c", "user.name=A", "-c", "user.email=a@example.com", "commit",
                                                             "--quiet", "--message", "the course"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    folder = tmp_path / "notebooks"
    shutil.copy(folder / "by_hand.ipynb", folder / "my_try.ipynb")
    (folder / "empty.ipynb").touch()
    (folder / "challenges" / "half.ipynb").write_bytes(b'{"cells": [\xff')
    saved = notebooks.read(folder / "01_baseline.ipynb")
    saved.metadata.language_info = {"name": "python", "version": "3.12.1"}
    nbformat.write(saved, folder / "01_baseline.ipynb")
    test = tmp_path / "test_lessons.py"
    test.write_text("from mnist_helpers.course import notebooks\nimport pytest\n"
                    "@pytest.mark.parametrize('path', notebooks.every(), ids=notebooks.name_of)\n"
                    "def test_one(path):\n    notebooks.read(path)\n")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-v"]

    def said(*options):
        return subprocess.run([*command, *options], cwd=tmp_path, text=True, capture_output=True,
                              env=os.environ | {"PYTHONPATH": str(tmp_path)}).stdout

    collected = said("--collect-only", "notebooks")
    assert "by_hand.ipynb" in collected and not re.search("my_try|empty|half|rror", collected), collected
    assert "notebooks/01_baseline.ipynb was saved with a run of your own, and is not compared" in collected
    tested = said(test.name, "notebooks/my_try.ipynb", "-k", "test_one")  # who names a file means it
    assert re.search(r"2 passed, 1 skipped, [1-9]\d deselected", tested) and "[my_try]" not in tested, tested
