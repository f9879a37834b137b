"""The set-up cell as on Colab, without its packages; tests/colab_like.py runs whole notebooks on those."""

import os
import subprocess
import sys

import colab_like
import nbformat
import pytest

from mnist_helpers import data
from mnist_helpers.course import notebooks

# Run with -S, so that nothing finds the course as it is installed here; its requirements are found all the same.
PACKAGES = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
START = f"import sys\nsys.path += {PACKAGES}\n"
COLAB = START + colab_like.STAND_IN
NETWORKLESS = colab_like.TROUBLES["no network"][:2]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings under which the course's address leads to a clone of the last commit."""
    if not (data.project_root() / ".git").exists():
        pytest.skip("needs a checkout with its history")
    return colab_like.address_book(tmp_path_factory.mktemp("address"))


@pytest.fixture
def set_up():
    return colab_like.setup_cell(nbformat.read(notebooks.find()[0], as_version=4)).source


def run(code, folder, settings):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    return subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, env=environment, capture_output=True,
                          text=True)


def test_it_brings_the_package_and_changes_nothing_the_second_time(tmp_path, settings, set_up):
    code = "\n".join([COLAB, set_up, "import mnist_helpers as mh", colab_like.STATE, "print('again')", set_up,
                      "assert state() == before", "print(mh.__file__)"])
    done = run(code, tmp_path, settings)
    assert done.returncode == 0, done.stderr
    first, _, second = done.stdout.partition("again\n")
    assert notebooks.repository() in first, "it says what it does"
    assert second.splitlines() == [str(tmp_path / "mnist-course" / "mnist_helpers" / "__init__.py")]
    # After a restart of the runtime the clone is still there, and no network is needed.
    code = "\n".join([COLAB, set_up.replace(*NETWORKLESS), "import mnist_helpers"])
    assert run(code, tmp_path, settings).returncode == 0


@pytest.mark.parametrize("trouble", colab_like.TROUBLES.values(), ids=colab_like.TROUBLES)
def test_each_trouble_is_told_in_one_sentence_every_time(tmp_path, settings, set_up, trouble):
    old, new, more = trouble
    assert old in set_up
    twice = f"""
cell = {set_up.replace(old, new)!r}
del sys.path[-{len(PACKAGES)}:]  # torchsummary and the rest with them
try:
    exec(cell)
except RuntimeError:
    exec(cell)  # a second try is not to pass in silence
"""
    done = run(COLAB + twice, tmp_path, settings | more)
    assert done.returncode == 1
    assert colab_like.SENTENCE.fullmatch(done.stderr.splitlines()[-1]), done.stderr


def test_elsewhere_it_names_the_command_and_brings_nothing(tmp_path, settings, set_up):
    done = run(START + set_up, tmp_path, settings)
    assert done.returncode == 1 and "pip install -r requirements.txt" in done.stderr.splitlines()[-1]
    assert not any(tmp_path.iterdir())

