"""Is this machine ready for the course? Each check names what is wrong and the line that mends it.

Nothing is imported here that may be missing, and no check that breaks keeps the others from being made.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

INSTALL = "pip install -r requirements.txt"
OLDEST, NEWEST = (3, 11), (3, 14)  # of Python
MARKS = {True: "ok ", False: "BAD", None: "note"}


def requirements() -> list:
    """The packages requirements.txt asks for, as `Requirement`; the course's own is not among them."""
    from packaging.requirements import Requirement

    from .. import data

    lines = (data.project_root() / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def checks() -> Iterator[tuple[str, bool | None, str, str]]:
    """Yield ``(name, ok, finding, remedy)`` for Python, each package, the device, the data, the kernel and the address.

    ``ok`` is None for what may be as it is, but should be known.
    """
    yield _python()
    yield from _each("packages", _packages)
    for name, check in (("torchvision", _torchvision_loads), ("device", _device), ("MNIST", _data), ("kernel", _kernel),
                        ("address", _address)):
        yield from _each(name, lambda name=name, check=check: [(name, *check())])


def _each(name, results):
    """The results of a check; whatever it breaks of becomes one."""
    try:
        yield from results()
    except Exception as error:
        yield name, False, f"{type(error).__name__}: {error}", INSTALL


def _python():
    found = sys.version_info[:2]
    if found < OLDEST:
        return "Python", False, sys.version.split()[0], "install Python 3.11 or newer"
    if found > NEWEST:
        return "Python", None, sys.version.split()[0], f"if anything fails, take {NEWEST[0]}.{NEWEST[1]} or older"
    return "Python", True, sys.version.split()[0], ""


def _packages():
    try:
        needed = requirements()
    except FileNotFoundError as error:
        yield "packages", False, f"no {error.filename}", "run `pip install -e .` in the course's folder, then this"
        return
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield requirement.name, False, "not installed", INSTALL
            continue
        ok = requirement.specifier.contains(found, prereleases=True)
        yield requirement.name, ok, found if ok else f"{found}, and {requirement.specifier} is needed", INSTALL


def _torchvision_loads():
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators were built for another torch
        return (False, f"does not load with this torch ({error})",
                "pip install --force-reinstall torch torchvision, both from the same index")
    return True, "loads with this torch", ""


def _device():
    from .. import device

    return True, device.describe(device.get_device()), ""


def _data():
    from .. import data

    where = "the data folder"
    try:
        where = data.default_root()
        problems = data.damaged()
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user that does not exist
        return False, f"{where}: {error}", "set MNIST_ROOT to a folder that you can read"
    if not problems:
        return True, f"four verified files in {where}", ""
    return False, f"{'; '.join(f'{name}: {problem}' for name, problem in problems.items())}, in {where}", (
        "python -m mnist_helpers data")


def _kernel():
    from .notebooks import other_package

    try:
        problem = other_package()
    except LookupError as error:
        return False, str(error), f'"{sys.executable}" -m ipykernel install --sys-prefix'
    return (False, problem, _kernel_remedy()) if problem else (True, "python3 uses this package", "")


def _kernel_remedy():
    """The line that makes this Python the python3 kernel, written over the one that is found first."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_core.paths import jupyter_data_dir

    spec = KernelSpecManager().get_kernel_spec("python3")
    if spec.argv[0] in ("python", "python3", sys.executable):  # the right Python, and another clone is installed in it
        return f'"{sys.executable}" -m pip install -e "{Path(__file__).resolve().parents[2]}"'
    found = Path(spec.resource_dir).parents[1]
    where = "--sys-prefix"
    if found == Path(jupyter_data_dir()):
        where = "--user"
    elif found.parts[-2:] == ("share", "jupyter"):
        where = f'--prefix "{found.parents[1]}"'
    return f'"{sys.executable}" -m ipykernel install {where}'


def _address():
    from . import notebooks, publish

    address = notebooks.repository()
    if address.startswith(publish.PLACEHOLDER + "/"):
        return None, f"{address} is a placeholder: badges lead nowhere", "python -m mnist_helpers publish OWNER/NAME"
    return True, f"https://github.com/{address}", ""


def report() -> bool:
    """Print every check; True if nothing is wrong."""
    well = True
    for name, ok, finding, remedy in checks():
        print(f"{MARKS[ok]:4} {name:14} {finding}" + (f"\n     -> {remedy}" if ok is not True and remedy else ""))
        well &= ok is not False
    print("everything is ready" if well else "fix the lines marked BAD, then run this again")
    return well
