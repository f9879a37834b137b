"""The networks of the notebooks as importable modules: written in a lesson, and nowhere else.

``mnist_helpers.course.networks.05_under_20k`` is made of what the recipe cells of that notebook import and define. It
can be imported, so that pickle, `torch.save` and `torch.jit.script` treat its classes as any others. For a notebook in
a folder, ``/`` becomes ``__``.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from . import notebooks

__path__ = []  # a package, to Python's imports; `Recipes` finds its modules


def module_of(path: Path) -> ModuleType:
    """The module of the notebook at ``path``, as its file stands now. Raises `ValueError` for one elsewhere."""
    if not path.is_relative_to(notebooks.folder()):
        raise ValueError(f"{path}: only notebooks below {notebooks.folder()} are importable")
    name = f"{__name__}.{notebooks.name_of(path).replace('/', '__')}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__loader__.source != definitions(path):
        del sys.modules[name]  # the notebook was edited
    return importlib.import_module(name)


def network(name: str):
    """A fresh, untrained network of the course, by the name of its class: ``network("TwentyEpochs")``. The random state
    stays as it is. Raises `ValueError`, naming those that there are, for any other name."""
    import torch

    from . import catalogue

    entry = catalogue.network(name)
    if entry is None:
        raise ValueError(f"the course has no network {name!r}; it has "
                         f"{', '.join(each.name for each in catalogue.networks())}")
    with torch.random.fork_rng(devices=[]):  # a new layer draws its weights on the CPU
        return getattr(module_of(notebooks.folder() / entry.notebook_file), name)()


def definitions(path: Path) -> str:
    """What the recipe cells of a notebook import and define: functions, classes and constants.

    A constant is a name in capitals, given a value that calls nothing. What is left out leaves blank lines.
    """
    source = "\n\n\n".join(cell.source for cell in notebooks.recipe_cells(notebooks.read(path)))
    lines, kept = source.splitlines(), set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef) or _is_constant(node):
            first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
            kept |= set(range(first - 1, node.end_lineno))
    return "\n".join(line if number in kept else "" for number, line in enumerate(lines)) + "\n"


def _is_constant(node):
    return isinstance(node, ast.Assign) and all(
        isinstance(name, ast.Name) and name.id.isupper() for name in node.targets) and not any(
        isinstance(part, ast.Call) for part in ast.walk(node.value))


class Recipes(importlib.abc.MetaPathFinder, importlib.abc.ExecutionLoader):
    """Finds and loads one such module; Python asks it for every import, and it answers for those below this one."""

    def __init__(self, path=None, source=""):
        self.path, self.source = path, source

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        parent, _, name = fullname.rpartition(".")
        notebook = notebooks.folder() / f"{name.replace('__', '/')}.ipynb" if parent == __name__ else None
        if notebook is None or not notebook.is_file():
            return None
        return importlib.util.spec_from_file_location(fullname, cls(notebook)._filename,
                                                      loader=cls(notebook, definitions(notebook)))

    @classmethod
    def invalidate_caches(cls):
        """There are none: `importlib.invalidate_caches` asks every finder, and this one is a class."""

    @property
    def _filename(self):
        return f"{self.path.name} (recipe)"  # no file's: the source comes from `get_source`

    def get_filename(self, fullname):
        return self._filename

    def get_source(self, fullname):
        return self.source


if Recipes not in sys.meta_path:
    sys.meta_path.append(Recipes)
