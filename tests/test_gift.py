"""A network for a friend: the notebook runs where the course is not, and answers as the course does."""

import re

import nbclient
import nbformat
import pytest
import torch

import mnist_helpers as mh
from mnist_helpers import __main__ as command
from mnist_helpers import idea
from mnist_helpers.course import catalogue, gift, notebooks

ALONE = """import sys
for name in ("mnist_helpers", "torchvision", "scipy", "sklearn", "safetensors", "anywidget", "tqdm"):
    sys.modules[name] = None  # an import of it fails"""
OWN = '''WIDTH = 8


def activation(x):
    return F.elu(x)


class FiveByFive(TwentyEpochs):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTH, 5, padding=2)

    def forward(self, x):
        return super().forward(activation(x))'''


def executed(path, folder, monkeypatch):
    """What the cells of a notebook print, in a kernel that has neither the course nor its data."""
    for name in ("MNIST_ROOT", "MNIST_IDEAS", "MNIST_PROFILE", "MNIST_COLLECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(ALONE))
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120,
                            resources={"metadata": {"path": str(folder)}}).execute()
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def first_ten(said):
    return [int(digit) for digit in re.search(r"first ten: \[(.*)\]", said)[1].split(", ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, beside the log of ideas."""
    monkeypatch.setenv("MNIST_IDEAS", str(tmp_path / "log"))
    monkeypatch.delenv("MNIST_COLLECT", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def own(folder):
    """The path of a notebook with an own network, which inherits from a lesson's."""
    def written(source=OWN):
        cells = ["import torch.nn.functional as F\nfrom torch import nn\nimport mnist_helpers as mh",
                 "TwentyEpochs = mh.recipe_of(3).network", source,
                 'mine = mh.try_idea(mh.recipe_of(3), network=FiveByFive, images=128, epochs=1, seeds=[0], '
                 'note="5x5", profile="quick")', "%matplotlib inline"]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, folder / "own.ipynb")
        return folder / "own.ipynb"
    return written


def tried(path):
    """The idea that a notebook tries."""
    cells = [cell for cell in notebooks.read(path).cells if not cell.source.startswith("%")]
    return notebooks.run_cells(cells, path.name, seed=0)["mine"]


@pytest.mark.slow
def test_a_lessons_network_answers_alone_as_in_the_course(folder, mnist_root, monkeypatch, capsys):
    assert command.main(["gift", "05_under_20k"]) == 0
    assert re.match(r"Under20K\.ipynb: \d+ KB", capsys.readouterr().out)
    assert command.main(["gift", "05_under_20k"]) == 1 and "is there already" in capsys.readouterr().err
    val = mh.load_mnist(profile="full", verbose=False).val
    result = mh.evaluate(notebooks.trained("Under20K"), val)
    about = notebooks.read(folder / "Under20K.ipynb").cells[0].source
    assert "18,422 parameters" in about and f"{100 * result.accuracy:.2f} %" in about
    said = executed(folder / "Under20K.ipynb", folder, monkeypatch)
    assert first_ten(said) == result.logits[:10].argmax(1).tolist()
    assert f"a {val.labels[0]}: " in said, "the photograph that it makes of the first image"


@pytest.mark.slow
def test_an_ideas_network_answers_alone_as_where_it_was_trained(own, folder, mnist_root, monkeypatch):
    path = own()
    mine = tried(path)
    expected = mh.evaluate(mine.model, mh.load_mnist(profile="full", verbose=False).val[:10]).logits.argmax(1).tolist()
    gift.write(path, number=1)
    torch.save(mine.model.state_dict(), "weights.pt")
    gift.write(path, "saved.ipynb", network="FiveByFive", weights="weights.pt")
    cells, saved = (nbformat.read(folder / name, 4).cells for name in ("FiveByFive.ipynb", "saved.ipynb"))
    assert [cell.source for cell in cells] == [cell.source for cell in saved], "whichever way it is named"
    assert first_ten(executed(folder / "FiveByFive.ipynb", folder, monkeypatch)) == expected


def test_a_network_that_was_changed_since_is_not_given_with_the_ideas_weights(own, mnist_root):
    tried(own())
    path = own(OWN.replace("elu", "relu"))  # fits the weights, and answers otherwise
    with pytest.raises(ValueError, match=r"not as it was trained.*FiveByFive-s0.*--weights"):
        gift.write(path, number=1)
    (kept,) = idea.folder().glob("*.safetensors")
    gift.write(path, network="FiveByFive", weights=kept)


def test_a_lesson_that_was_edited_is_not_given_with_the_courses_weights(folder):
    text = (notebooks.folder() / "05_under_20k.ipynb").read_text(encoding="utf-8")
    path = folder / "05_under_20k.ipynb"
    path.write_text(text.replace("x = F.relu(self.conv3(x))", "x = F.elu(self.conv3(x))"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"not as it was trained.*the course's weights"):
        gift.write(path)


def test_every_network_of_the_course_can_be_given():
    for network in catalogue.networks():
        path = notebooks.folder() / network.notebook_file
        source = gift.definitions(path, network.name)
        assert "mnist_helpers" not in source
        gift._made(source, network.name, path).load_state_dict(notebooks.trained(network.name).state_dict())


def test_what_cannot_be_given_is_told_in_a_sentence(own, folder):
    path = own()
    (folder / "text.pt").write_text("no weights")
    (folder / "text.safetensors").write_text("no weights")
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "others.pt")
    needs = own(OWN.replace("F.elu(x)", "mh.normalize(x)"))
    needs = needs.rename(folder / "needs.ipynb")
    path = own()
    for source, options, match in (
            (path, {}, "name its network, with --network"),
            (path, {"network": "Other"}, "defines no Other"),
            (path, {"network": "activation", "weights": "others.pt"}, "cannot be made"),
            (path, {"network": "FiveByFive", "weights": "others.pt"}, "do not fit FiveByFive in own.ipynb: Missing"),
            (path, {"network": "FiveByFive", "weights": "text.pt"}, "holds no weights"),
            (path, {"network": "FiveByFive", "weights": "text.safetensors"}, "holds no weights"),
            (path, {"network": "FiveByFive"}, "no weights of FiveByFive"),
            (needs, {"network": "FiveByFive", "weights": "others.pt"}, "a friend does not have"),
            (path, {"number": 1}, "no idea 1 in the log"),
            (path, {"number": 1, "weights": "others.pt"}, "not both")):
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            gift.write(source, **options)
    with pytest.raises(FileNotFoundError, match="no weights in"):
        gift.write(path, network="FiveByFive", weights="none.pt")
    assert not list(folder.glob("FiveByFive*"))
