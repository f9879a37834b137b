"""The course in one folder, for machines without a network: its files, wheels of all that it needs, MNIST."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from .. import data, download
from ..files import replace_file
from . import doctor
from .git import lines

CPU = "https://download.pytorch.org/whl/cpu"  # PyPI's builds for Linux bring CUDA with them, 4.1 GB
# Of each system: how the reader calls it, the tags of wheels that it takes, and what it answers to the markers of
# requirements; pip takes the tags of another system, but asks the markers of this one.
SYSTEMS = {
    "windows": ("Windows on x86-64", ["win_amd64"], {
        "os_name": "nt", "sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"}),
    "macos": ("macOS 14 or newer on Apple silicon", ["macosx_14_0_arm64"], {
        "os_name": "posix", "sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}),
    "linux": ("Linux on x86-64, with glibc 2.28 or newer", [
        *(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)), "manylinux2014_x86_64", "linux_x86_64"], {
        "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}),
}
HERE = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
PIP = """import sys
from pip._vendor.packaging import markers
here = markers.default_environment
markers.default_environment = lambda: here() | {answers}
from pip._internal.cli.main import main
sys.exit(main({arguments}))"""
TEXT = """The course "MNIST, honestly measured" with all that it needs, for {system}, a recent Python {python}.

Copy this folder to the machine, open a terminal in the copy, and make an environment there
("python -m venv .venv", then "{activate}"). Type these two lines:

{install}
python -m mnist_helpers lab
"""
INSTALL = "python -m pip install --no-index --find-links wheels -r requirements.txt"


def bundle(root: Path, folder: str | Path, system: str = HERE, python: str | None = None, index: str | None = None,
           newest: bool = False) -> Path:
    """Write the course in ``root`` to ``folder``, for one of `SYSTEMS` and a version of Python such as ``"3.12"``, by
    default this one: the files that git tracks, ``wheels/`` for pip, ``data/`` with MNIST, and ``INSTALL.txt``.

    ``index`` is where torch and torchvision come from: by default `CPU` for Linux, else where pip finds everything.
    The versions are those of constraints.txt, or the newest that the course allows. The folder is there whole or not
    at all.

    Raises `ValueError` for a folder with something in it, for a Python that the course does not run on, and if pip
    cannot get a wheel; `data.DataError` without MNIST.
    """
    folder, python = Path(folder).expanduser().resolve(), python or "{}.{}".format(*sys.version_info)
    if not re.fullmatch(r"3\.\d+", python) or (3, int(python[2:])) < doctor.OLDEST:
        raise ValueError(f"the course does not run on Python {python}: give a version such as 3.12")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a folder that is not there yet")
    tracked, mnist = lines(root, "ls-files", "-z"), data.fetch()
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        for name in tracked:
            _copy(root / name, part / name)
        for name in download.FILES:
            _copy(mnist / name, data.raw(part / "data") / name)
        if wrong := data.damaged(part / "data"):
            raise ValueError(f"MNIST was not copied well to {folder.parent}: {wrong}. Try another disk")
        _wheels(root, part / "wheels", system, python, index or (CPU if system == "linux" else None), newest)
        activate = r".venv\Scripts\activate" if system == "windows" else "source .venv/bin/activate"
        replace_file(part / "INSTALL.txt", TEXT.format(system=SYSTEMS[system][0], python=python, activate=activate,
                                                       install=INSTALL))
        part.chmod(0o755)  # mkdtemp's folder is for its owner alone
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        part.rename(folder)
    except BaseException:  # an interrupt, too
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _copy(source, target):
    if source.is_file():  # git tracks, until a commit, what was deleted
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _wheels(root, folder, system, python, index, newest):
    """Download wheels of all that the course needs, and of what its own installation is built with."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*settings["build-system"]["requires"], *map(str, doctor.requirements())]
    _, tags, answers = SYSTEMS[system]
    here = "{}.{}.{}".format(*sys.version_info)
    full = here if here.startswith(f"{python}.") else f"{python}.99"  # "3.11" would be 3.11.0, which some refuse
    answers = answers | {"python_version": python, "python_full_version": full}
    options = ["download", "--disable-pip-version-check", "--dest", str(folder), "--only-binary=:all:",
               "--implementation", "cp", "--python-version", full, *(f"--platform={tag}" for tag in tags),
               *([] if newest else ["--constraint", str(root / "constraints.txt")])]
    if index:  # these two first and alone: their index has other packages too, and an older torch may be its newest
        two = [each for each in wanted if re.match(r"torch(vision)?\b", each)]
        _pip(answers, [*options, "--no-deps", "--index-url", index, *two])
        wanted = [each for each in wanted if each not in two] + [
            "{}=={}".format(*path.name.split("-")[:2]) for path in folder.glob("torch*.whl")]
    _pip(answers, [*options, "--find-links", str(folder), *wanted])


def _pip(answers, arguments):
    """Run pip for a system with these ``answers``. Raises `ValueError` with the last that it says if it fails."""
    done = subprocess.run([sys.executable, "-c", PIP.format(answers=answers, arguments=arguments)],
                          stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and "ResolutionImpossible" not in line]
        said = [line for line in said if line.startswith("ERROR: ")] or said or ["it does not say why"]
        raise ValueError(f"pip got no wheels: {said[-1].removeprefix('ERROR: ').rstrip('.')}. Check the network, the "
                         "versions (--newest ignores constraints.txt) and --python")
