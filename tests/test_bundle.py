"""The course in one folder: written with stand-ins for the wheels, some of which are large, and installed from it."""

import hashlib
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from mnist_helpers import data, download
from mnist_helpers.__main__ import main
from mnist_helpers.course import bundle, doctor
from mnist_helpers.version import __version__

ROOT = Path(__file__).parents[1]
CONSTRAINTS = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
SETUPTOOLS = CONSTRAINTS["setuptools"]
# What setuptools does for the course, in short: an editable installation is a path, and what pyproject.toml says.
BACKEND = f"""
import os, tomllib, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["course"]
    lines = ["Metadata-Version: 2.1", "Name: mnist-helpers", "Version: {__version__}", "Provides-Extra: course"]
    lines += [f'Requires-Dist: {{each}}; extra == "course"' for each in needs]
    with zipfile.ZipFile(os.path.join(folder, "mnist_helpers-{__version__}-py3-none-any.whl"), "w") as file:
        file.writestr("course.pth", os.getcwd())
        for name, text in [("METADATA", chr(10).join(lines)), ("WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any"), ("RECORD", "")]:
            file.writestr("mnist_helpers-{__version__}.dist-info/" + name, text)
    return os.path.basename(file.filename)
"""


def wheel(folder, name, version, *needs, tag="py3-none-any", python=">=3.8", **files):
    """Write a wheel of text files, ``package__module="source"``, that needs others."""
    label = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}",
             *(f"Requires-Dist: {need}" for need in needs)]
    about = {"METADATA": "\n".join(lines), "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}", "RECORD": ""}
    with zipfile.ZipFile(folder / f"{label}-{tag}.whl", "w") as file:
        for path, text in files.items():
            file.writestr(f"{path.replace('__', '/')}.py", text)
        for path, text in about.items():
            file.writestr(f"{label}.dist-info/{path}", text)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder that is all of pip's world: a wheel of each requirement in the version of constraints.txt, and a newer
    one; and a data set of four files in place of MNIST."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    needs = {"torch": ['a-driver; platform_system == "Linux"', 'a-shell; sys_platform == "win32"', 'old; python_version < "3.12"']}
    for requirement in doctor.requirements():
        for version in (CONSTRAINTS[requirement.name], "9999"):
            wheel(folder, requirement.name, version, *needs.get(requirement.name, ()))
    wheel(folder, "setuptools", SETUPTOOLS, setuptools__build_meta=BACKEND)
    wheel(folder, "a-driver", "1", tag="py3-none-manylinux_2_17_x86_64")
    wheel(folder, "a-shell", "1", tag="cp312-cp312-win_amd64", python=">=3.12.4")  # 3.12 means a late 3.12
    wheel(folder, "old", "1")
    for name in filter(re.compile("PIP_").match, list(os.environ)):
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder),
                        "MNIST_ROOT": str(tmp_path / "mnist")}.items():
        monkeypatch.setenv(name, value)
    files = {name: f"content of {name}".encode() for name in download.FILES}
    monkeypatch.setattr(download, "FILES", {
        name: (len(content), hashlib.md5(content).hexdigest()) for name, content in files.items()})
    data.raw().mkdir(parents=True)
    for name, content in files.items():
        (data.raw() / name).write_bytes(content)
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout of git")
    return folder


def wheels(folder):
    return {re.match(r"[A-Za-z_]+-[^-]+", path.name)[0].replace("_", "-") for path in (folder / "wheels").iterdir()}


def nothing_but(folder, *names):
    return {path.name for path in folder.iterdir()} == {"shelf", "mnist", *names}


@pytest.mark.slow
def test_a_bundle_installs_without_an_index(shelf, tmp_path, capfd):
    made, here = tmp_path / "stick" / "course", "{}.{}".format(*sys.version_info)
    assert main(["bundle", "--to", str(made), "--platform", "linux", "--python", here]) == 0
    assert "The two lines to type" in capfd.readouterr().out.splitlines()[-1]
    tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    data_files = {f"data/MNIST/raw/{name}" for name in download.FILES}
    assert {name for name in there if not name.startswith("wheels/")} == {
        *(name for name in tracked if (ROOT / name).exists()), *data_files, "INSTALL.txt"}
    assert not data.damaged(made / "data")
    assert {f"setuptools-{SETUPTOOLS}", "a-driver-1"} < wheels(made) and "a-shell-1" not in wheels(made)

    # As on the machine without a network, in an environment of its own.
    lines = [line for line in (made / "INSTALL.txt").read_text(encoding="utf-8").splitlines() if line.startswith("python ")]
    assert len(lines) == 2 and lines[1] == "python -m mnist_helpers lab"
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    for line in (lines[0], "python -m mnist_helpers --version"):
        said = subprocess.run([python, *line.split()[1:]], cwd=made, env=alone | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
                              capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["mnist-helpers", __version__]
    installed = subprocess.check_output([python, "-m", "pip", "freeze"], cwd=made, env=alone, text=True)
    assert f"torch=={CONSTRAINTS['torch']}" in installed and "torchsummary==" in installed


def test_wheels_are_those_of_the_other_system_and_version(shelf, tmp_path, capfd):
    """Also where requirements have markers, which pip asks of the machine that it runs on."""
    (shelf / "a_driver-1-py3-none-manylinux_2_17_x86_64.whl").unlink()
    assert main(["bundle", "--to", str(tmp_path / "w"), "--platform", "windows", "--python", "3.12"]) == 0
    assert "a-shell-1" in wheels(tmp_path / "w") and "old-1" not in wheels(tmp_path / "w")
    assert "Windows" in (tmp_path / "w" / "INSTALL.txt").read_text(encoding="utf-8")
    assert main(["bundle", "--to", str(tmp_path / "m"), "--platform", "macos", "--python", "3.11", "--newest"]) == 0
    assert {"old-1", "torch-9999"} < wheels(tmp_path / "m") and "a-shell-1" not in wheels(tmp_path / "m")


def test_torch_comes_without_cuda_on_linux(shelf, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(bundle, "_pip", lambda answers, arguments: asked.append(arguments))
    for system, index in (("linux", None), ("linux", "https://a.mirror/cpu"), ("windows", None)):
        (tmp_path / "wheels").mkdir(exist_ok=True)
        (tmp_path / "wheels" / "torch-2.14.1+cpu-cp312-cp312-manylinux_2_28_x86_64.whl").touch()
        bundle.bundle(ROOT, tmp_path / f"{system}{len(asked)}", system, "3.12", index)
    first, second, third, _, fifth = asked
    assert first[-4:-2] == ["--index-url", bundle.CPU] and "--no-deps" in first and "https://a.mirror/cpu" in third
    assert all(each.startswith("torch") for each in first[-2:]) and "--index-url" not in [*second, *fifth]
    assert any(each.startswith("torch>") for each in fifth) and not any(each.startswith("torch>") for each in second)


@pytest.mark.parametrize("arguments", [("--python", "2.7"), ("--python", "3.10"), ("--python", "latest")])
def test_a_python_that_the_course_does_not_run_on_is_refused(shelf, tmp_path, capfd, arguments):
    assert main(["bundle", "--to", str(tmp_path / "made"), *arguments]) == 1
    assert len(capfd.readouterr().err.splitlines()) == 1 and nothing_but(tmp_path)


def test_what_fails_or_is_interrupted_leaves_nothing(shelf, tmp_path, capfd, monkeypatch):
    made = tmp_path / "made"
    needed = next(shelf.glob("setuptools-*"))
    needed.rename(shelf / "kept")
    assert main(["bundle", "--to", str(made)]) == 1
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "setuptools" in said[0] and nothing_but(tmp_path)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "_wheels", interrupted)
        assert main(["bundle", "--to", str(made)]) == 130 and nothing_but(tmp_path)
    made.mkdir()  # an empty folder will do; one with something in it stays as it is
    (shelf / "kept").rename(needed)
    assert main(["bundle", "--to", str(made)]) == 0 and nothing_but(tmp_path, "made")
    (made / "mine").touch()
    before = sorted(made.rglob("*"))
    capfd.readouterr()
    assert main(["bundle", "--to", str(made)]) == 1 and sorted(made.rglob("*")) == before
    assert len(said := capfd.readouterr().err.splitlines()) == 1 and "not empty" in said[0]
