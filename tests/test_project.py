"""What the files beside the code say: requirements, environment, README, CI."""

import json
import os
import re
import subprocess
import sys
import tomllib

import colab_like

from mnist_helpers import data
from mnist_helpers.course import doctor

ROOT = data.project_root()
CONDA_NAMES = {"pytorch": "torch"}
NOT_ON_CONDA_FORGE = {"torchsummary"}
COLAB = dict(pin.split("==") for pin in colab_like.PINS)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_conda_names_what_requirements_name():
    listed = re.findall(r"^  - ([a-z-]+)", read("environment.yml"), re.MULTILINE)
    packages = {CONDA_NAMES.get(name, name) for name in listed} - {"conda-forge", "nodefaults", "python", "pip"}
    assert packages == {requirement.name for requirement in doctor.requirements()} - NOT_ON_CONDA_FORGE


def test_versions_are_bounded_in_one_place_and_widely():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert "dependencies" not in project
    assert not re.search("[=<>~]", str(project["optional-dependencies"]["site"]))
    assert not re.search(r"^  - (?!python=)\S+[=<>]", read("environment.yml"), re.MULTILINE)
    assert [line for line in read("requirements.txt").splitlines() if line[0] != "#"] == ["-e .", "-e .[course]"]
    for requirement in doctor.requirements():
        assert requirement.specifier, f"{requirement.name} has no lower bound"
        assert not any(bound.operator in ("==", "===", "~=") for bound in requirement.specifier)
        if requirement.name in COLAB and requirement.name != "ipykernel":  # Colab's is older, and will do
            assert requirement.specifier.contains(COLAB[requirement.name])


def test_binder_and_codespaces_install_what_a_learner_does():
    lines = [line for line in read("binder/requirements.txt").splitlines() if line[:1] not in ("", "#")]
    assert lines.pop() == "-r ../requirements.txt" and all(line.startswith(("--index-url ", "--extra-index-url ")) for line in lines)
    container = json.loads(read(".devcontainer/devcontainer.json"))
    assert container["postCreateCommand"].startswith("pip install -r binder/requirements.txt && ")
    opened = container["customizations"]["codespaces"]["openFiles"]
    assert all((ROOT / name).exists() for name in opened)
    for version in (read("binder/runtime.txt").strip().removeprefix("python-"), container["image"].rpartition(":")[2]):
        assert version in re.search(r"Python-(\S+?)-", read("README.md"))[1], "one that the course is tested on"
    assert (ROOT / "binder/postBuild").stat().st_mode & 0o111 or os.name == "nt", "it has to be executable"


def test_nothing_assumes_fork_a_shell_or_posix_paths():
    """What Windows does not have, and macOS does not start processes by; processes are spawned."""
    for folder in ("mnist_helpers", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            found = re.findall(r'os\.fork|"fork"|shell=True|os\.system|os\.popen|"/tmp|"/dev|\.split\("/"\)',
                               path.read_text(encoding="utf-8"))
            found += re.findall(r"(?:(?<![\w.])open|\.read_text|\.write_text)\((?![^)]*(?:encoding|[\"'][rwax]\+?b|b\+))[^)]*\)",
                                path.read_text(encoding="utf-8"))
            assert not found, f"{path.name}: {found}"


def test_ci_runs_the_readmes_two_lines_in_their_order():
    commands = re.findall(r"^pip install .*", read("README.md"), re.MULTILINE)
    run, test = (command.partition(" && ")[2] for command in commands[:2])
    assert run.startswith("python -m mnist_helpers run") and test == "pytest"
    ci = read(".ci/run")
    assert 0 < ci.index(run) < ci.index(commands[1])


def test_links_lead_somewhere():
    pages = [f"site/{path.name}" for path in (ROOT / "site").glob("*.md")]
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/glossary.md", *pages):
        for target in re.findall(r"\]\((?!https?:|../../(?:tree|deployments)/)([^)#]+)", read(name)):  # of GitHub itself
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


def test_the_script_in_the_pages_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", read("site/commands.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MNIST_PROFILE", "quick")
    exec(code, {})
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_glossary_is_in_order():
    terms = re.findall(r"^\*\*(.+?)\.?\*\*", read("notebooks/glossary.md"), re.MULTILINE)
    assert len(terms) > 30 and terms == sorted(set(terms), key=lambda term: re.sub(r"[^\w ]", "", term.lower()))


def test_two_clones_in_one_environment_are_told_apart(tmp_path):
    """The tests of one refuse to run while notebooks find the other's package, and name both."""
    other = tmp_path / "mnist_helpers"
    other.mkdir()
    (other / "__init__.py").touch()
    done = subprocess.run([sys.executable, "-c", "import conftest; conftest.refuse_another_package()"], cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert "UsageError" in done.stderr and "pip install -e" in done.stderr
    assert str(other) in done.stderr and str(ROOT / "mnist_helpers") in done.stderr
