"""What the page with the live canvas needs (site/draw.md, site/live/draw.js): the lessons' networks as lists of layers
and files of weights, drawings to begin with, and where a remark begins."""

import functools
import hashlib
import io
import json
from pathlib import Path

import torch
import torch.fx
import torch.nn.functional as F
from PIL import Image
from torch import nn

from ..data import MEAN, STD, project_root
from ..files import replace_file
from . import catalogue, draw, explain, notebooks

EXAMPLES = ("3", "1", "4", "7", "9", "scribble")  # of the stored drawings
LETTER = ("futural", "A")  # of benchmarks/letters.json


def layers(model: nn.Module) -> list[dict]:
    """The layers that ``model`` sends an image through in eval mode, each with its kind and what JavaScript needs to
    compute it. Raises `ValueError` for a layer that site/live/nets.js does not know."""
    traced, found = torch.fx.symbolic_trace(model), []
    for node in traced.graph.nodes:
        if node.op not in ("placeholder", "output"):
            found += _layer(node, traced.get_submodule(node.target) if node.op == "call_module" else None)
    return found


def _layer(node, module):
    if isinstance(module, nn.Conv2d) and module.groups == 1 and set(module.dilation) == {1} and all(
            len(set(pair)) == 1 for pair in (module.kernel_size, module.stride, module.padding)):
        return [{"kind": "conv", "name": node.target, "stride": module.stride[0], "padding": module.padding[0]}]
    if isinstance(module, nn.BatchNorm2d):
        return [{"kind": "norm", "name": node.target, "eps": module.eps}]
    if isinstance(module, nn.Linear):
        return [{"kind": "linear", "name": node.target}]
    if isinstance(module, nn.Dropout | nn.Dropout2d):  # nothing in eval mode
        return []
    if node.target is F.relu:
        return [{"kind": "relu"}]
    if node.target is F.max_pool2d and node.kwargs["stride"] is None and not node.kwargs["padding"]:
        return [{"kind": "pool", "size": node.args[1]}]
    if node.target == "flatten":  # the order of the numbers stays
        return []
    raise ValueError(f"site/live/nets.js has no layer for {module or node.target}")


def models() -> dict[str, nn.Module]:
    """The lessons' networks by file name, with the weights that their notebooks show."""
    return {network.notebook: notebooks.trained(network.name) for network in catalogue.lessons()}


def weights(model: nn.Module) -> bytes:
    """The weights of ``model`` as a safetensors file, without what only training needs."""
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items() if value.is_floating_point()})


@functools.cache
def remark() -> dict:
    """What `benchmarks.remark` measured: the threshold, and how many of each kind lie below it."""
    return json.loads((project_root() / "results" / "remark.json").read_text(encoding="utf-8"))


def letters() -> dict:
    """``{font: {sign: strokes}}``: signs as strokes, in the units of the canvas."""
    return json.loads((project_root() / "benchmarks" / "letters.json").read_text(encoding="utf-8"))["fonts"]


def strength(logits: torch.Tensor) -> torch.Tensor:
    """How strongly several networks answer, of their logits ``(images, networks, 10)``: the mean over the networks of
    the largest logit, ``(images,)``."""
    return logits.amax(-1).mean(-1)


def data(networks: dict[str, nn.Module]) -> dict:
    """What the page reads as draw.json, of these `models`."""
    told = []
    for lesson, (name, model) in zip(catalogue.lessons(), networks.items(), strict=True):
        told.append({"name": f"{lesson.lesson}: {lesson.title}", "file": f"weights/{name}.safetensors",
                     "sha256": hashlib.sha256(weights(model)).hexdigest(), "layers": layers(model)})
    stored, (font, letter) = draw.stored(), LETTER
    examples = [{"name": name, "strokes": stored[name]} for name in EXAMPLES]
    examples.insert(-1, {"name": f"letter {letter}", "strokes": letters()[font][letter]})
    return {"networks": told, "examples": examples, "weak": remark()["threshold"], "mean": MEAN, "std": STD}


def finding() -> str:
    """The table of the remark, in Markdown: kinds of drawings, the fonts of each together."""
    rows = {}
    for name, counts in remark()["kinds"].items():
        kind = name.partition(",")[0]
        rows[kind] = [a + b for a, b in zip(rows.get(kind, [0, 0, 0]), counts, strict=True)]
    header = ["drawings", "number", f"weak (below {remark()['threshold']})", "weak, or they differ"]
    rows["validation digits"] = rows.pop("digits")
    lines = [[kind, f"{total:,}", *(f"{100 * part / total:.1f} %" for part in parts)]
             for kind, (*parts, total) in sorted(rows.items(), key=lambda row: row[1][0] / row[1][2])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, [":--", "--:", "--:", "--:"], *lines))


def still(networks: dict[str, nn.Module]):
    """The picture of the page where nothing moves: the first example, as these `models` read it."""
    return draw.figure(draw.stored()[EXAMPLES[0]], {f"lesson {name[1]}": model for name, model in networks.items()})


def write_still() -> None:
    """Draw the picture anew if the networks' weights are others. Their digest stands inside the file."""
    path, networks = explain.folder() / "draw.png", models()
    digest = hashlib.sha256(b"".join(map(weights, networks.values()))).hexdigest()
    if not path.exists() or Image.open(path).info.get("Description") != digest:
        file = io.BytesIO()
        still(networks).savefig(file, format="png", dpi=110, metadata={"Description": digest})
        replace_file(path, file.getvalue())


def write(target: Path) -> None:
    """Write draw.json, the weights and the widget's own code into the folder ``target``."""
    (target / "weights").mkdir(parents=True, exist_ok=True)
    networks = models()
    replace_file(target / "draw.json", json.dumps(data(networks)))
    for name, model in networks.items():
        replace_file(target / "weights" / f"{name}.safetensors", weights(model))
    for name in ("draw.js", "draw.css"):  # the widget's own; the page's module has the name draw.js already
        replace_file(target / name.replace("draw", "canvas"), Path(draw.__file__).with_name(name).read_bytes())
