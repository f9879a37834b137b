"""Is this machine ready for the course? Each check names what is wrong and the line that mends it."""

import sys
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

from . import data
from .training import describe, get_device

INSTALL = "pip install -r requirements.txt"


def requirements():
    """The packages requirements.txt asks for, as `Requirement`; the course's own is not among them."""
    lines = (data.project_root() / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def checks():
    """Yield ``(name, ok, finding, remedy)`` for Python, each package, the device, the data and Jupyter's kernel."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield "Python", (3, 11) <= sys.version_info[:2] <= (3, 13), python, "install Python 3.11, 3.12 or 3.13"
    for requirement in requirements():
        yield _package(requirement)
    yield _torchvision_loads()
    yield "device", True, describe(get_device()), ""
    yield _data()
    yield _kernel()


def _package(requirement):
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return requirement.name, False, "not installed", INSTALL
    ok = requirement.specifier.contains(found, prereleases=True)
    return requirement.name, ok, found if ok else f"{found}, and {requirement.specifier} is needed", INSTALL


def _torchvision_loads():
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators were built for another torch
        return ("torchvision", False, f"does not load with this torch ({error})",
                "pip install --force-reinstall torch torchvision, both from the same index")
    return "torchvision", True, "loads with this torch", ""


def _data():
    problems = data.damaged()
    where = data.default_root()
    if not problems:
        return "MNIST", True, f"four verified files in {where}", ""
    listed = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
    return "MNIST", False, f"{listed}, in {where}", "python -m mnist_helpers data"


def _kernel():
    remedy = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except ImportError:
        return "kernel", False, "jupyter_client is not installed", INSTALL
    except NoSuchKernel:
        return "kernel", False, "Jupyter knows no python3 kernel", remedy
    # A bare "python" is replaced by the running interpreter when the kernel starts.
    ours = command in ("python", "python3", sys.executable)
    return "kernel", ours, f"python3 is {command}", "" if ours else remedy


def report():
    """Print every check; True if all are well."""
    well = True
    for name, ok, finding, remedy in checks():
        print(f"{'ok ' if ok else 'BAD'}  {name:14} {finding}" + (f"\n     -> {remedy}" if not ok else ""))
        well &= ok
    print("everything is ready" if well else "mend the lines marked BAD, then run this again")
    return well
