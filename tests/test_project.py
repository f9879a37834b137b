"""What the files beside the code say: requirements, environment, README, CI."""

import ast
import os
import re
import subprocess
import sys
import tomllib

import colab_like

from mnist_helpers import data, doctor

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
    assert "- -r requirements.txt" in read("environment.yml")


def test_versions_are_bounded_in_one_place():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert "dependencies" not in project and "optional-dependencies" not in project
    assert not re.search(r"^  - (?!python=)\S+[=<>]", read("environment.yml"), re.MULTILINE)
    assert "-e ." in read("requirements.txt").splitlines()


def test_bounds_are_wide():
    for requirement in doctor.requirements():
        assert requirement.specifier, f"{requirement.name} has no lower bound"
        assert not any(bound.operator in ("==", "===", "~=") for bound in requirement.specifier)
        if requirement.name in COLAB and requirement.name != "ipykernel":  # Colab's is older, and will do
            assert requirement.specifier.contains(COLAB[requirement.name])


def test_every_import_is_required():
    """What the package imports from outside the standard library is in requirements.txt."""
    names = {"sklearn": "scikit-learn", "PIL": "pillow"}
    imported = {name for path in (ROOT / "mnist_helpers").glob("*.py") for name, level in imports(path) if not level}
    imported -= sys.stdlib_module_names
    required = {requirement.name for requirement in doctor.requirements()}
    assert {names.get(name, name) for name in imported} - required == {
        "jupyter_client",  # comes with ipykernel
        "traitlets",  # comes with anywidget
        "distributed",  # optional, for studies on a cluster
    }


def imports(path):
    """``(first name, level)`` of every import in a file; for ``from . import a, b`` the names themselves."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module.partition(".")[0]] if node.module else [alias.name for alias in node.names]
            yield from ((name, node.level) for name in names)


def test_the_rooms_import_one_way():
    """Each module imports only modules before it on the walk."""
    walk = ["data", "augment", "training", "optim", "summary", "plots", "stats", "results", "scoreboard", "notebooks",
            "draw", "study", "doctor", "__main__"]
    assert {path.stem for path in (ROOT / "mnist_helpers").glob("*.py")} == {*walk, "__init__"}
    for number, room in enumerate(walk):
        own = {name for name, level in imports(ROOT / "mnist_helpers" / f"{room}.py") if level}
        assert own <= set(walk[:number]), room


def test_nothing_assumes_fork_a_shell_or_posix_paths():
    """What Windows does not have, and macOS does not start processes by; processes are spawned."""
    for folder in ("mnist_helpers", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            found = re.findall(r'os\.fork|"fork"|shell=True|os\.system|os\.popen|"/tmp|"/dev|\.split\("/"\)',
                               path.read_text(encoding="utf-8"))
            assert not found, f"{path.name}: {found}"


def test_stats_and_results_do_without_torch():
    for name in ("stats", "results"):
        assert "torch" not in {imported for imported, _ in imports(ROOT / "mnist_helpers" / f"{name}.py")}


def test_readme_opens_with_the_two_commands():
    commands = re.findall(r"^(?:pip|jupyter|python) .*", read("README.md"), re.MULTILINE)
    assert commands[:3] == ["pip install -r requirements.txt && python -m mnist_helpers run",
                            "pip install -r requirements.txt && pytest", "jupyter lab notebooks"]
    assert commands[1] in read(".ci/run")


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", read("README.md")):
        assert (ROOT / target).exists(), target


def test_importing_the_package_has_no_side_effect(tmp_path):
    code = "import os, torch; state = torch.get_rng_state(); import mnist_helpers; " \
           "assert torch.equal(state, torch.get_rng_state()); print(os.listdir('.'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONWARNINGS": "error::UserWarning:mnist_helpers"})
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_a_missing_package_is_named_with_the_remedy(tmp_path):
    code = "import sys; sys.modules['torchsummary'] = None; import mnist_helpers"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "pip install -r requirements.txt" in done.stderr.splitlines()[-1]


def test_the_glossary_is_in_order_and_its_links_lead_somewhere():
    text = read("notebooks/glossary.md")
    terms = re.findall(r"^\*\*(.+?)\.?\*\*", text, re.MULTILINE)
    assert len(terms) > 30 and terms == sorted(set(terms), key=lambda term: re.sub(r"[^\w ]", "", term.lower()))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / "notebooks" / target).exists(), target
