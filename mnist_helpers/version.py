"""Which release of the package this is, and whether a notebook fits it.

The number stands here, not in the installation: Colab takes the package from a clone, without installing it, and an
editable installation would keep the number of the day it was made. ``python -m mnist_helpers release`` writes it, and
makes the git tag of the same name. Only the standard library is imported here.
"""

__version__ = "1.1.dev0"


def require(version: str) -> None:
    """Raise `RuntimeError`, in one sentence with the remedy, unless this package fits a notebook made for ``version``.

    It fits if it is not older and has the same first number: a release that breaks notebooks raises that number. A
    version in development counts as the release that it leads to.
    """
    wanted, here = _numbers(version), _numbers(__version__)
    if here < wanted:
        raise RuntimeError(f"this notebook needs mnist_helpers {version}, and this is {__version__}: run "
                           "`python -m mnist_helpers update` (on Colab, delete the folder mnist-course), then restart "
                           "the kernel")
    if here[0] != wanted[0]:
        raise RuntimeError(f"this notebook was made for mnist_helpers {version}, and {__version__} works differently: "
                           f"open the course's notebook as it is now, or go back with `git switch --detach v{version}`")


def _numbers(version):
    return tuple(int(number) for number in version.partition(".dev")[0].split("."))
