"""A network for a friend: one notebook with its class, its weights, and what reads a photograph. It needs torch, NumPy
and Matplotlib, installs what is missing of them, and nothing of this course."""

import ast
import base64
import builtins
import functools
import hashlib
import inspect
import linecache
import symtable
import textwrap
from pathlib import Path

import torch

from .. import checkpoint, data, files, idea, measure, recipe
from . import catalogue, draw, networks, notebooks

IMAGES = 100  # of the validation images that go along
LINE = 100  # characters of a line of base64

FIRST = """# {name}, a network that reads digits

It has {parameters:,} parameters. Its weights take {kilobytes:,.0f} KB of this notebook. It reads {right:.2f} % of \
{total:,} validation images of {source}.

Run all cells, in order. The first one installs PyTorch, NumPy and Matplotlib if they are missing. To have a digit of \
your own read, photograph it, and write the file's name into the cell below *A photograph*."""

SETUP = """import importlib.util
import subprocess
import sys

missing = [name for name in ("torch", "numpy", "matplotlib") if importlib.util.find_spec(name) is None]
if missing:
    print("installing", *missing)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    importlib.invalidate_caches()"""

UNPACK = '''import base64
import hashlib
import json


def unpacked(text, sha256):
    """The tensors of a safetensors file in base64: eight bytes with the length of the table, the table, the numbers."""
    content = base64.b64decode(text)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("the weights in this notebook are damaged: get a new copy of it")
    start = 8 + int.from_bytes(content[:8], "little")
    kinds = {"F32": torch.float32, "U8": torch.uint8, "I64": torch.int64}
    tensors = {}
    for name, about in json.loads(content[8:start]).items():
        first, end = (start + place for place in about["data_offsets"])
        numbers = torch.frombuffer(bytearray(content[first:end]), dtype=kinds[about["dtype"]])
        tensors[name] = numbers.reshape(about["shape"])
    return tensors'''

LOAD = '''model = {name}()
model.load_state_dict(unpacked(WEIGHTS, "{weights}"))
model.eval()
print(f"{{sum(each.numel() for each in model.parameters()):,}} parameters")'''

ANSWERS = '''import matplotlib.pyplot as plt

there = unpacked(IMAGES, "{images}")
with torch.no_grad():
    found = model(normalize(there["images"])).argmax(1)
right = found == there["labels"]
print(f"{{right.sum()}} of {{len(right)}} images read correctly; "
      f"the answers of the first ten: {{found[:10].tolist()}}")
assert (found != there["answers"]).sum() <= 1, "it answers otherwise than where it was trained"
wrong = [*(~right).nonzero().flatten().tolist(), *range(10)][:10]  # mistakes first
figure, axes = plt.subplots(1, 10, figsize=(10, 1.5))
for axis, number in zip(axes, wrong):
    axis.imshow(there["images"][number, 0], cmap="gray")
    axis.set_title(f"{{found[number]}} for {{there['labels'][number]}}", fontsize=9)
    axis.axis("off")
plt.show()'''

PHOTO = '''PHOTO = ""  # such as "my_digit.jpg"

example = 235 - 0.8 * there["images"][0, 0].repeat_interleave(10, 0).repeat_interleave(10, 1)
seen = prepare_photo(PHOTO or example.byte().numpy())
with torch.no_grad():
    shares = model(normalize(seen))[0].softmax(0)
print(f"a {shares.argmax()}: {100 * shares.max():.1f} %")
plt.figure(figsize=(1.6, 1.6))
plt.imshow(seen[0, 0], cmap="gray")
plt.axis("off")
plt.show()'''


def write(path: Path, to: str | Path | None = None, *, network: str | None = None, number: int | None = None,
          weights: str | Path | None = None) -> str:
    """Write a notebook with a network that the notebook at ``path`` defines, to the file ``to`` or, by default, under
    the network's name in the working directory; return what can be said of it.

    The network is the class, or function, called ``network``: by default the first of the catalogue in that notebook,
    or the class of the idea. Its weights are those of the idea with this ``number`` in the log, its first seed; or of
    a file that `torch.save` or safetensors made of a state_dict; or, by default, those that the course kept.

    Raises `ValueError` for a network that the notebook does not define, that needs what a friend does not have, or that
    the weights do not fit; `FileNotFoundError` for weights that are not there; `FileExistsError` for a file that is.
    """
    if number is not None and weights is not None:
        raise ValueError("an idea has its weights: name an idea or a file of weights, not both")
    line = None if number is None else _line(number)
    name = network or (line["model"] if line else _first(path))
    target = Path(to or f"{name}.ipynb")
    if target.exists():
        raise FileExistsError(f"{target} is there already: name another file with --to, or remove it")
    source = definitions(path, name)
    model = _made(source, name, path)
    state, told, whose = _weights(line, weights, name)
    if told and told != recipe.told_model(model):
        raise ValueError(f"{name} in {path.name} is not as it was trained: put it back, or, if you know that {whose} "
                         f"fit, name their file: --network {name} --weights FILE")
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        why = str(error).strip().splitlines()[:2][-1].strip()
        raise ValueError(f"{whose} do not fit {name} in {path.name}: {why}") from error
    text = notebooks.as_json(_notebook(name, source, model.eval())) + "\n"
    files.replace_file(target, text)
    return f"{target}: {len(text) / 1000:,.0f} KB"


# ---------------------------------------------------------------- the weights


def _first(path):
    entry = next((each for each in catalogue.networks() if each.notebook == notebooks.name_of(path)), None)
    if entry is None:
        raise ValueError(f"{path.name} is no lesson of the catalogue: name its network, with --network CLASS")
    return entry.name


def _line(number):
    """The line of the log of an idea's first seed that came to its end."""
    every = list(idea.logged().values())
    if not 1 <= number <= len(every):
        raise ValueError(f"there is no idea {number} in the log; there are {len(every)}: mh.ideas() shows them")
    line = next((line for line in every[number - 1].values() if "run" in line), None)
    if line is None:
        raise ValueError(f"no training of idea {number} came to its end, so there are no weights to give away")
    return line


def _weights(line, path, name):
    """A state_dict, of a file, of an idea, or of the course's own record of a network; the network that it was trained
    in, as `recipe.told_model` tells it, where that is known; and what to call it. Raises `FileNotFoundError`."""
    if path is not None:
        return _read(Path(path).expanduser()), None, f"the weights in {path}"
    if line:
        path = idea.folder() / f"{line['run']}.safetensors"
        return _read(path), line["recipe"]["model"], f"the weights in {path}"
    if catalogue.network(name) is None:
        raise FileNotFoundError(f"the course has no weights of {name}: name your idea with --idea N, or a file with "
                                "--weights FILE")
    model = notebooks.trained(name)
    return model.state_dict(), recipe.told_model(model), "the course's weights"


def _read(path):
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise FileNotFoundError(f"there are no weights in {path}")
    try:
        if path.suffix != ".safetensors":
            return torch.load(path, map_location="cpu", weights_only=True)
        kept = load(path.read_bytes())
        # A kept run has its losses beside the weights.
        return checkpoint.read_kept(path)["weights"] if "batch_loss" in kept else kept
    except (SafetensorError, checkpoint.CheckpointError, OSError) as error:
        raise ValueError(f"{path} holds no weights: {error}") from error
    except Exception as error:  # torch.load raises whatever the damage makes it stumble over
        raise ValueError(f"{path} holds no weights: save them with torch.save(model.state_dict(), ...)") from error


def _made(source, name, path):
    """A fresh network of the text ``source``."""
    file = f"{path.name} (gift)"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file  # for `recipe.told_model`
    scope = {"__name__": "__main__"}
    try:
        exec(compile(source, file, "exec"), scope)
        with torch.random.fork_rng(devices=[]):
            model = scope[name]()
    except Exception as error:  # whatever a network of one's own can raise
        raise ValueError(f"{name} cannot be made from {path.name} alone ({type(error).__name__}: {error})") from error
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"{name} makes a {type(model).__name__}, not an nn.Module")
    return model


# ---------------------------------------------------------------- the code


def definitions(path: Path, name: str) -> str:
    """The code that ``name`` of the notebook at ``path`` needs: imports, constants, functions and classes, without
    comments between them. A network of the course that the notebook does not define itself is taken from its lesson.

    Raises `ValueError` if the notebook does not define it, or if it needs this package.
    """
    cells = [cell.source for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    found = _pieces("\n\n".join(map(_python, cells)))
    for entry in catalogue.networks():  # such as the class that one of one's own inherits from
        if entry.name not in found and any(entry.name in cell for cell in cells):
            found = _pieces(networks.definitions(notebooks.folder() / entry.notebook_file)) | found
    if name not in found:
        raise ValueError(f"{path.name} defines no {name}: name the notebook in which you wrote it, and its class with "
                         "--network")
    return _needed(found, [name])


def _python(source):
    """A cell's code; nothing for one that holds Jupyter's own commands."""
    try:
        ast.parse(source)
    except SyntaxError:
        return ""
    return source


def _pieces(source):
    """``{name: text}`` of what a source imports and defines at its left edge, the latest of each name."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = "import" if isinstance(node, ast.Import) else f"from {'.' * node.level}{node.module or ''} import"
            for alias in node.names:
                as_name = f" as {alias.asname}" if alias.asname else ""
                found[alias.asname or alias.name.partition(".")[0]] = f"{start} {alias.name}{as_name}"
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[node.name] = "\n".join(source.splitlines()[first - 1 : node.end_lineno])
        elif isinstance(node, ast.Assign) and not any(isinstance(part, ast.Call) for part in ast.walk(node.value)):
            names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            found |= {name: ast.get_source_segment(source, node) for name in names if name.isupper()}
    return found


def _needed(found, names):
    """Of these `_pieces` those that ``names`` need, as one text: imports first, what is read before what reads it."""
    order, visited = [], set()

    def walk(name):
        if name in visited or name not in found:
            return
        visited.add(name)
        for other in _read_by(found[name]):
            walk(other)
        if found[name] not in order:
            order.append(found[name])

    for name in names:
        walk(name)
    imports = sorted(text for text in order if text.startswith(("import ", "from ")))
    if ours := next((text for text in imports if "mnist_helpers" in text or text.startswith("from .")), None):
        raise ValueError(f"it needs `{ours}`, which a friend does not have: write that part into the class itself")
    constants = [text for text in order if not text.startswith(("import ", "from ", "def ", "class ", "@"))]
    rest = [text for text in order if text not in imports and text not in constants]
    return "\n\n\n".join(filter(None, ["\n".join(imports) + "\n\n" * bool(constants) + "\n".join(constants), *rest]))


def _read_by(source):
    """The global names that a piece of code reads, in the order of the alphabet."""
    def below(table):
        yield from (each.get_name() for each in table.get_symbols() if each.is_referenced() and (
            each.is_global() or table.get_type() == "module"))
        for child in table.get_children():
            yield from below(child)

    return sorted(set(below(symtable.symtable(source, "piece", "exec"))) - set(dir(builtins)))


@functools.cache
def _reading() -> str:
    """The code that makes an image of a photograph, as this course has it."""
    pieces = {name: text for room in (measure, draw, data) for name, text in _pieces(inspect.getsource(room)).items()
              if not text.startswith("from .")}
    return _needed(pieces, ["normalize", "prepare_photo"])


# ---------------------------------------------------------------- the notebook


def _notebook(name, source, model):
    """The notebook of this network, as nbformat has it, and compared with it on `IMAGES` images."""
    import nbformat

    val = data.load_mnist(profile="full", verbose=False).val
    result = measure.evaluate(model, val)
    taken = val[:IMAGES]
    packed = _packed({key: value.float() if value.is_floating_point() else value
                      for key, value in model.state_dict().items()})
    images = _packed({"images": taken.images, "labels": taken.labels, "answers": result.logits[:IMAGES].argmax(1)})
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    about = {"name": name, "parameters": sum(each.numel() for each in model.parameters()), "source": val.source,
             "kilobytes": len(packed) * 4 / 3000, "right": 100 * result.accuracy, "total": result.total,
             "weights": hashlib.sha256(packed).hexdigest(), "images": hashlib.sha256(images).hexdigest()}
    cells = [
        text(FIRST.format(**about)), code(SETUP), text("## The network"), code(source),
        text("## Its weights\n\nThe next cell reads a *safetensors* file; the one after it holds the file, as text."),
        code("import torch\n\n" + UNPACK), _folded("WEIGHTS", packed), code(LOAD.format(**about)),
        text(f"## What it answers\n\nThe first {IMAGES} validation images of {val.source} are in the next cell "
             "(Y. LeCun, C. Cortes, C. Burges)."),
        _folded("IMAGES", images), text("This code makes an image as MNIST has them, from a photograph."),
        code(_reading()), code(ANSWERS.format(**about)),
        text("## A photograph\n\nWrite one digit with a dark pen on bright paper, and photograph it so that the paper "
             "fills the picture. Without a file, the cell takes the first image as dark ink on paper."), code(PHOTO)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata |= {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                          "language_info": {"name": "python"}}
    return notebook


def _packed(tensors):
    from safetensors.torch import save

    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _folded(name, content):
    """A cell with a long text, folded: a page would be slow with it."""
    import nbformat

    lines = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), LINE))
    return nbformat.v4.new_code_cell(f'{name} = """\n{lines}\n"""', metadata={"jupyter": {"source_hidden": True}})
