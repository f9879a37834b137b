"""What a diagram of a network shows: its layers in the order they run, and how they differ from another network's.

`plots.network` draws it. Shapes are those of one image, as they leave each layer.
"""

import difflib
import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from .check import forward
from .device import device_of
from .measure import evaluation_mode


@dataclass(frozen=True)
class Layer:
    """One row of the diagram: a module that ran, or a change of size between two modules."""

    kind: str  #: ``"conv 3x3"``, ``"batch norm"``, ``"pool"``
    detail: str  #: what else defines it: ``"8 → 16"``, ``"0.5"``
    shape: tuple = ()  #: of the output, without the batch
    parameters: int = 0
    multiplications: int = 0  #: for one image
    mark: str = ""  #: beside another network: ``"new"``, ``"changed"``, ``"removed"`` or nothing
    was: str = ""  #: the ``detail`` of the layer that it replaces

    @property
    def key(self):
        return self.kind, self.detail


def layers(model: nn.Module, input_size=(1, 28, 28)) -> list[Layer]:
    """The layers of a network, in the order in which one image of ``input_size`` goes through them.

    A layer used twice is there twice, and its parameters count the first time. Pooling by a function, such as
    ``F.max_pool2d``, is seen where a layer is given a smaller image than the one before it made. The image goes through
    in eval mode, without gradients; weights, buffers, modes and random states stay as they are.

    Raises `NetworkError`, naming the layer, if the network does not take such an image.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    device, found, counted, hooks = device_of(model), [], set(), []
    leaving = tuple(input_size)

    def note(module, inputs, output):
        nonlocal leaving
        if not isinstance(output, torch.Tensor):
            return
        given, shape = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])
        if pool := _pool(leaving, given):
            found.append(pool)
        own = {id(parameter): parameter.numel() for parameter in module.parameters()}
        parameters = sum(count for each, count in own.items() if each not in counted)
        counted.update(own)
        kind, detail = _named(module)
        found.append(Layer(kind, detail, shape, parameters, _multiplications(module, output)))
        leaving = shape

    for module in {id(each): each for each in model.modules()}.values():
        if not list(module.children()):
            hooks.append(module.register_forward_hook(note))
    try:
        with evaluation_mode(model), torch.no_grad():
            output = forward(model, torch.zeros(1, *input_size, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(output, torch.Tensor) and (pool := _pool(leaving, tuple(output.shape[1:]))):
        found.append(pool)
    return found


def _pool(before, after):
    """The pooling that made a smaller image of another, if it did."""
    if len(before) != 3 or before == after:
        return None
    if len(after) == 3 and after[0] == before[0] and after[1] * after[2] < before[1] * before[2]:
        return Layer("pool", _sides(before, after), after)
    if len(after) == 1 and after[0] == before[0] and before[1] * before[2] > 1:
        return Layer("pool", _sides(before, (1, 1, 1)), after)
    if len(after) == 1 and after[0] < math.prod(before):  # pooled, then flattened
        side = math.isqrt(after[0] // before[0])
        if before[0] * side**2 == after[0]:
            return Layer("pool", _sides(before, (before[0], side, side)), (before[0], side, side))
    return None


def _sides(before, after):
    return f"{before[1]}×{before[2]} → {after[1]}×{after[2]}"


def _named(module):
    """What a layer is called, and what else defines it."""
    if isinstance(module, nn.Conv2d):
        size = "×".join(str(side) for side in module.kernel_size)
        deep = module.groups == module.in_channels > 1
        more = f", stride {module.stride[0]}" if max(module.stride) > 1 else ""
        more += f", {module.groups} groups" if module.groups > 1 and not deep else ""
        return f"{'depthwise' if deep else 'conv'} {size}", f"{module.in_channels} → {module.out_channels}{more}"
    if isinstance(module, nn.Linear):
        return "linear", f"{module.in_features:,} → {module.out_features:,}"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch norm", f"{module.num_features}"
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "dropout", f"{module.p:g}"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        size = module.kernel_size
        return ("max pool" if isinstance(module, nn.MaxPool2d) else "mean pool",
                f"{size}×{size}" if isinstance(size, int) else "×".join(map(str, size)))
    return {"Flatten": "flatten"}.get(type(module).__name__, type(module).__name__), ""


def _multiplications(module, output):
    """How many multiplications a layer makes of one image: a convolution's weights times its output's pixels, a linear
    layer's weights, one for each number of a batch norm, whose scale is fixed in eval mode. Others count as none."""
    each = output[0].numel()
    if isinstance(module, nn.Conv2d):
        return each * module.in_channels // module.groups * math.prod(module.kernel_size)
    if isinstance(module, nn.Linear):
        return each * module.in_features
    return each if isinstance(module, nn.modules.batchnorm._BatchNorm) else 0


def totals(found: list[Layer]) -> dict[str, int]:
    """The parameters and multiplications of all layers together."""
    return {name: sum(getattr(each, name) for each in found) for name in ("parameters", "multiplications")}


def words(rows: list[Layer], name: str, before: str = "") -> str:
    """The diagram's rows as text, for readers who cannot see it."""
    here = [row for row in rows if row.mark != "removed"]
    sums = totals(here)
    text = (f"{name}: {len(here)} layers, {sums['parameters']:,} parameters, {sums['multiplications']:,} "
            "multiplications an image. ")
    for what in ("parameters", "multiplications"):
        if sums[what]:
            most = max(here, key=lambda row: getattr(row, what))
            text += f"Most {what}: {_said(most)}, {getattr(most, what) / sums[what]:.0%}. "
    for mark in ("new", "changed", "removed") if before else ():
        if those := [row for row in rows if row.mark == mark]:
            text += (f"{mark.capitalize()} since {before}: "
                     + ", ".join(_said(row) + (f" (was {_plain(row.was)})" if row.was else "") for row in those) + ". ")
    if before and not any(row.mark for row in rows):
        text += f"The layers are those of {before}. "
    return text + "In order: " + "; ".join(_said(row) for row in here) + "."


def _said(row):
    return _plain(f"{row.kind} {row.detail}".strip())


def _plain(text):
    return text.replace("→", "to").replace("×", "x")


def compared(old: list[Layer], new: list[Layer]) -> list[Layer]:
    """The layers of ``new``, marked where they differ from ``old``, and among them those of ``old`` that are gone.

    Layers that agree in kind and channels are the same; of those between, a layer that takes the place of one of its
    kind has changed.
    """
    rows = []
    for what, start, end, first, last in _differences([each.key for each in old], [each.key for each in new]):
        if what == "equal":
            rows += new[first:last]
            continue
        gone, came = old[start:end], new[first:last]
        for inner, a, b, c, d in _differences([each.kind for each in gone], [each.kind for each in came]):
            if inner == "equal":
                rows += [replace(now, mark="changed", was=then.detail) if now.key != then.key else now
                         for then, now in zip(gone[a:b], came[c:d], strict=True)]
            else:
                rows += [replace(each, mark="removed") for each in gone[a:b]]
                rows += [replace(each, mark="new") for each in came[c:d]]
    return rows


def _differences(old, new):
    return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
