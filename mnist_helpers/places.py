"""What a place where notebooks run may lack: packages, somewhere to write, MNIST.

Places are told apart by what is missing there, not by their names. The set-up cell of each notebook brings this package
where it is missing, then calls `ready`. Only the standard library is imported here, since the rest may be missing.
"""

import gzip
import importlib
import importlib.util
import os
import site
import subprocess
import sys
import tempfile
from pathlib import Path

from .version import require

# Packages for `import`, with the names under which pip knows them.
LARGE = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "scipy": "scipy",
         "matplotlib": "matplotlib", "sklearn": "scikit-learn", "PIL": "pillow"}
SMALL = ("torchsummary", "safetensors", "anywidget", "psygnal", "filelock", "tqdm")  # brought, each without its needs
INPUTS = Path("../input")  # where Kaggle shows what was attached to a notebook
MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def ready(release: str) -> None:
    """Bring what is missing here, and say so: small packages, and MNIST where it is attached to the notebook. Where
    everything is there, nothing changes.

    ``release`` is the version of the package that the notebook was made for. Where the course's folder cannot be
    written, ``MNIST_ROOT`` becomes a folder that can. Raises `RuntimeError` with the remedy for what cannot be brought,
    and for a package that the notebook does not fit.
    """
    require(release)
    course = Path(__file__).resolve().parents[1]
    _bring_packages(course)
    if not os.environ.get("MNIST_ROOT"):
        _bring_mnist(course if (course / "pyproject.toml").is_file() else Path.cwd())


def project_root() -> Path:
    """As `mnist_helpers.data` has it, for processes that only wait for notebooks: importing torch takes 0.5 GB."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def lacking(names) -> list[str]:
    """Those of these modules that this Python cannot import."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def _bring_packages(course):
    if missing := lacking(LARGE):
        names = ", ".join(LARGE[name] for name in missing)
        raise RuntimeError(f"this kernel has no {names}: run `%pip install -r \"{course / 'requirements.txt'}\"` in a "
                           "cell of its own and restart the kernel, or choose a kernel that has them.")
    if missing := lacking(SMALL):
        print("installing", *missing)
        wheels = course / "wheels"  # for places without a network
        source = ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *source, *missing]
        failed = subprocess.run(pip).returncode
        importlib.invalidate_caches()
        if not failed and lacking(missing):  # pip took the user's folder, which was not there when Python started
            site.addsitedir(site.getusersitepackages())
        if failed or lacking(missing):
            raise RuntimeError(f"no {missing[0]}: check the network (on Kaggle the switch is Internet, in the "
                               "notebook's settings), then run this cell again.")


def _bring_mnist(project):
    """Find a folder for MNIST, if it is not where the course looks for it, and put the attached files there."""
    if _has_mnist(project / "data"):
        return
    root = next(filter(writable, (project / "data", Path.home() / ".cache" / "mnist-course")), None)
    root = root or Path(tempfile.mkdtemp(prefix="mnist-"))
    found = attached()
    if len(found) == len(MNIST) and not _has_mnist(root):
        from .files import replace_file

        print(f"MNIST is attached here, in {INPUTS}: copied to {root}")
        (root / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
        for name, path in found.items():
            content = path.read_bytes()
            replace_file(root / "MNIST" / "raw" / name, gzip.decompress(content) if path.suffix == ".gz" else content)
    if root != project / "data":
        print(f"the course's folder cannot be written: MNIST is kept in {root}")
        os.environ["MNIST_ROOT"] = str(root)


def _has_mnist(root):
    return all((root / "MNIST" / "raw" / name).is_file() for name in MNIST)


def attached(folder: Path = INPUTS) -> dict[str, Path]:
    """``{name: path}`` of MNIST's files below ``folder``, as published or under the names that Kaggle's copies have,
    compressed or not."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            known = name.removesuffix(".gz").replace(".idx", "-idx")
            if known in MNIST:
                found.setdefault(known, Path(parent, name))
    return found


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that is there."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK)
