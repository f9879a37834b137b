"""Is this machine ready for the course? Each check names what is wrong and the line that mends it.

Nothing is imported here that may be missing, and no check that breaks keeps the others from being made.
"""

import os
import statistics
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

INSTALL = "pip install -r requirements.txt"
OLDEST, NEWEST = (3, 11), (3, 14)  # of Python
WORTH = 1.3  # times as fast a step has to be with more threads
BUSY = 1.2  # times as slow with all threads as with one: they wait for cores that others use
MARKS = {True: "ok ", False: "BAD", None: "note"}


def requirements() -> list:
    """The packages the course asks for in pyproject.toml, as `Requirement`."""
    from packaging.requirements import Requirement

    from .. import data

    text = (data.project_root() / "pyproject.toml").read_text(encoding="utf-8")
    return [Requirement(each) for each in tomllib.loads(text)["project"]["optional-dependencies"]["course"]]


def checks() -> Iterator[tuple[str, bool | None, str, str]]:
    """Yield ``(name, ok, finding, remedy)`` for Python, each package, the device, its threads, the data and the kernel.

    ``ok`` is None for what may be as it is, but should be known.
    """
    yield _python()
    yield from _each("packages", _packages)
    for name, check in (("torchvision", _torchvision_loads), ("device", _device), ("threads", _threads),
                        ("MNIST", _data), ("figures", _figures), ("kernel", _kernel)):
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
        yield "packages", False, f"no {error.filename}", f"run `{INSTALL}` in the course's folder, then this"
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
    import torch

    from .. import device

    found = device.describe(device.get_device())
    if torch.version.cuda and not torch.cuda.is_available() and sys.platform == "linux":
        return (None, f"{found}; this torch brings 4.1 GB of CUDA, which nothing here uses",
                "all works as it is. To save the space: pip uninstall torch torchvision, then "
                "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu")
    return True, found, ""


def step_times(counts, seconds=4) -> dict[int, float]:
    """Milliseconds that a small convolution's step takes with each of these numbers of threads: the median, measured
    in turns, all within ``seconds``."""
    import torch

    images, layer = torch.rand(64, 8, 28, 28), torch.nn.Conv2d(8, 16, 3)
    before, times = torch.get_num_threads(), {count: [] for count in counts}
    started, turn = time.perf_counter(), seconds / len(counts) / 8
    try:
        while time.perf_counter() - started < seconds - turn * len(counts):
            for count in counts:
                torch.set_num_threads(count)
                layer(images).sum().backward()  # the threads have to be there
                begun = now = time.perf_counter()
                while now - begun < turn:
                    layer(images).sum().backward()
                    now, last = time.perf_counter(), now
                    times[count].append(1000 * (now - last))
    finally:
        torch.set_num_threads(before)
    return {count: statistics.median(each) for count, each in times.items()}


def _threads():
    """Which number of threads is fast here, and whether other programs or a quota take cores away."""
    from .processes import cores

    mine, there = cores(), os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    times = step_times(sorted({count for count in (1, 2, 4, mine) if count <= mine}))
    finding = "a small step takes " + ", ".join(f"{each:.1f} ms with {count}" for count, each in times.items())
    if mine < there:
        finding += f"; this process may use {mine} of {there} cores"
    if load > there / 2 or times[mine] > BUSY * times[1]:
        return None, f"{finding}; other programs are busy (load {load:.1f} on {there} cores)", (
            "take 1, the default, until they are done; `run --jobs 1` takes the fewest cores")
    best = fewest(times)
    return True, f"{finding}; take {best}" + (f": mh.set_threads({best}), or run --threads {best}, for one training"
                                              if best > 1 else ", the default"), ""


def fewest(times: dict[int, float]) -> int:
    """The number of threads to take: a larger one only where it is at least `WORTH` times as fast."""
    best = 1
    for count in sorted(times):
        if times[best] >= WORTH * times[count]:
            best = count
    return best


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


def _figures():
    backend = os.environ.get("MPLBACKEND", "")
    if not backend or "inline" in backend or "ipympl" in backend:
        return True, "notebooks show them", ""
    return None, f"MPLBACKEND is {backend}: notebooks do not show what you plot with matplotlib yourself", (
        "start Jupyter without the environment variable MPLBACKEND")


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


def report() -> bool:
    """Print every check; True if nothing is wrong."""
    well = True
    for name, ok, finding, remedy in checks():
        print(f"{MARKS[ok]:4} {name:14} {finding}" + (f"\n     -> {remedy}" if ok is not True and remedy else ""))
        well &= ok is not False
    print("everything is ready" if well else "fix the lines marked BAD, then run this again")
    return well
