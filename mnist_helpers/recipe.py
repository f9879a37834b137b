"""What a training is: its recipe, told as ``{name: text}`` of what is *set*, and digests of code.

A comment in the code, another address in memory or a word that a new version of PyTorch adds to a `repr` change
nothing; an edited line of the network does.
"""

import ast
import contextlib
import dis
import functools
import hashlib
import inspect
import re
import types
import zlib
from pathlib import Path

import numpy as np
import torch

from .augment import Augment
from .data import Split
from .device import device_of, precision_name
from .loader import Loader

TRAINED_THROUGH = ("data", "augment", "loader", "device", "train", "optim")  # the modules that a training runs through


# ---------------------------------------------------------------- the digest of code


def syntax(source: str) -> str:
    """A digest of what Python code does: the same for other comments, spaces, line breaks and docstrings."""
    # A comment at the left edge inside a method would keep `textwrap.dedent` from its work.
    tree = ast.parse(f"if True:\n{source}") if source[:1] in (" ", "\t") else ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module) and body and (
                isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
                and isinstance(body[0].value.value, str)):
            del body[0]
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()[:12]


def _plain(node):
    """A syntax tree as nested tuples, without empty fields, which differ between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, _plain(value)) for name, value in ast.iter_fields(node) if name != "kind")
        return (type(node).__name__, *((name, value) for name, value in fields if value not in (None, ())))
    return tuple(map(_plain, node)) if isinstance(node, list) else node


@functools.cache
def package_digest() -> str:
    """A digest of the modules of this package that a training runs through."""
    folder = Path(__file__).parent
    digests = [syntax((folder / f"{name}.py").read_text(encoding="utf-8")) for name in TRAINED_THROUGH]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:12]


def weights_digest(model: torch.nn.Module) -> str:
    """A digest of a model's weights and buffers, to the bit."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------- the recipe


def recipe(*, model, train, val, optimizer, scheduler, loss_fn, after_epoch=None) -> dict[str, str]:
    """What two runs must share for one to continue the other, as ``{name: text}``.

    The starting weights are represented by the seed, since an interrupted `fit` is called again with weights
    that have moved on.
    """
    told = {"model": told_model(model), "loss": told_function(loss_fn)}
    told["optimizer"] = f"{type(optimizer).__name__} " + ", ".join(
        " ".join(f"{name}={_number(value)}" for name, value in sorted(_options(optimizer, scheduler, group).items()))
        for group in optimizer.param_groups)
    told["scheduler"] = told_scheduler(scheduler)
    hooks = [*getattr(optimizer, "_optimizer_step_pre_hooks", {}).values(),
             *getattr(optimizer, "_optimizer_step_post_hooks", {}).values(), *[after_epoch] * (after_epoch is not None)]
    if hooks:
        told["hooks"] = ", ".join(map(told_function, hooks))
    told |= told_data("training", train)
    told |= told_data("validation", val)
    told["precision"] = precision_name(getattr(train, "precision", None))
    told["seed"] = str(torch.initial_seed())
    told["device"] = device_of(model).type
    return told


def told_model(model) -> str:
    """The model's modules: their classes, the settings that are no defaults, and the code of those that are not
    PyTorch's."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    told, seen = [], set()
    for name, module in model.named_modules():
        kind = type(module)
        text = f"{name}: " * bool(name) + _told_object(module)
        if kind not in seen and not _is_known(kind.__module__):
            seen.add(kind)
            text += f" [{_code_of_class(kind)}]"
        told.append(text)
    shapes = ", ".join(f"{name} {'×'.join(map(str, value.shape)) or 'number'}"
                       for name, value in model.state_dict().items() if isinstance(value, torch.Tensor))
    return f"{'; '.join(told)} | {shapes}"


def _told_object(thing) -> str:
    """The class of an object, and the arguments of its constructor that are no defaults, as far as they are plain."""
    try:
        parameters = inspect.signature(type(thing).__init__).parameters
    except (TypeError, ValueError):
        parameters = {}
    told = []
    for name, parameter in parameters.items():
        value = getattr(thing, name, None)
        if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):  # such as class weights
            value = value.tolist()
        if isinstance(value, bool | int | float | str | tuple | list) and value != parameter.default:
            told.append(f"{name}={value}")
    return f"{type(thing).__name__}({', '.join(told)})"


def _code_of_class(kind) -> str:
    """The digests of the methods of a class; of one that was typed where no source is kept, of their byte code."""
    own = [each for each in kind.__mro__ if not _is_known(each.__module__)]  # what it inherits counts as well
    methods = {name: value for each in reversed(own) for name, value in vars(each).items()
               if isinstance(value, types.FunctionType)}
    return " ".join(f"{name} {_code(method)}" for name, method in sorted(methods.items()))


def _is_known(module: str) -> bool:
    """Whether a module is a library's or this package's, and so has a version instead of a digest here."""
    return module.split(".")[0] in {"torch", "torchvision", "mnist_helpers", "builtins", "functools", "numpy"} and (
        not module.startswith("mnist_helpers.course.networks"))


def _code(function, seen=()) -> str:
    """The digest of a function, and of the reader's own functions and constants that it reads."""
    digest = ""
    with contextlib.suppress(OSError, TypeError, SyntaxError, IndentationError):
        if function.__name__ != "<lambda>":
            digest = syntax(inspect.getsource(function))
    code = function.__code__
    if not digest:  # a lambda's source is the whole statement around it
        constants = [sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
                     for constant in code.co_consts if not isinstance(constant, types.CodeType)]
        digest = hashlib.sha256(repr((code.co_code, code.co_names, constants)).encode()).hexdigest()[:12]
    for name in _names(code):
        value = function.__globals__.get(name)
        if isinstance(value, bool | int | float | str | tuple | list) and not name.startswith("_"):
            digest += f" {name}={value}"
        elif isinstance(value, types.FunctionType) and not _is_known(value.__module__) and name not in seen:
            digest += f" {name} {_code(value, (*seen, name))}"
    return digest


def _names(code):
    """The global names that code reads, those of functions inside it too, each once and in order."""
    inside = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)]
    read = [each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"]  # and no attributes
    return sorted({*read, *inside})


def told_function(function) -> str:
    """A function, module or object that is called, in words, with a digest of its code if it is the reader's own."""
    if function is None:
        return "none"
    if isinstance(function, functools.partial):
        settings = [*map(repr, function.args), *(f"{name}={value}" for name, value in function.keywords.items())]
        return f"{told_function(function.func)} with {', '.join(settings)}"
    if isinstance(function, types.MethodType):
        return f"{told_function(function.__func__)} of {told_function(function.__self__)}"
    if isinstance(function, types.FunctionType):
        if _is_known(function.__module__):
            return function.__name__
        bound = [repr(cell.cell_contents) for cell in function.__closure__ or () if isinstance(
            cell.cell_contents, bool | int | float | str | tuple)]
        defaults = [repr(value) for value in function.__defaults__ or ()]
        return " ".join([function.__name__, f"[{_code(function)}]", *bound, *defaults])
    if isinstance(function, torch.nn.Module):
        return _told_object(function) + ("" if _is_known(type(function).__module__)
                                         else f" [{_code_of_class(type(function))}]")
    if isinstance(function, Augment):
        own = [f"{type(each).__name__} [{_code_of_class(type(each))}]" for each in function.transforms
               if not _is_known(type(each).__module__)]
        return " ".join([repr(function), *own])
    # A repr may show an address in memory, which is another one in the next process.
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(function))
    return text if _is_known(type(function).__module__) else f"{text} [{_code_of_class(type(function))}]"


def _number(value):
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _options(optimizer, scheduler, group):
    """What is set of a group of parameters; schedulers move the rate, and some the momentum or the betas."""
    plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)  # alone does not note the first rate
    defaults = {name: parameter.default for name, parameter in
                inspect.signature(type(optimizer).__init__).parameters.items()}
    kept = {name: value for name, value in group.items() if name not in ("params", "momentum", "betas", "initial_lr")
            and value != defaults.get(name)}
    cycled = {"max_momentum", "base_momentum"} & set(group)  # these are set, and what they move is not
    kept |= {name: group[name] for name in ("momentum", "betas")
             if name in group and group[name] != defaults.get(name) and not cycled}
    rate = optimizer.defaults.get("lr") if plateau else group.get("initial_lr", group.get("lr"))
    return kept | {"lr": rate}


# What schedulers change as they go; everything else in their state is the recipe.
SCHEDULER_PROGRESS = {"last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "best",
                      "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"}


def told_scheduler(scheduler) -> str:
    if scheduler is None:
        return "none"
    state = {name: value for name, value in scheduler.state_dict().items()
             if name != "lr_lambdas"} if hasattr(scheduler, "state_dict") else {}
    lambdas = [told_function(function) for function in getattr(scheduler, "lr_lambdas", ())]
    parts = [told_scheduler(each) for each in getattr(scheduler, "_schedulers", ())]
    return " ".join([type(scheduler).__name__, str(_settings(state)) if not parts else "", *lambdas, *parts]).strip()


def _settings(state):
    """The state of a scheduler without what changes as it goes, and without what is empty."""
    if isinstance(state, dict):
        plain = (int, float, str, list, tuple, dict)
        return {key: _settings(value) for key, value in sorted(state.items())
                if key not in SCHEDULER_PROGRESS and isinstance(value, plain) and value not in (False, [], {})}
    return [_settings(each) for each in state] if isinstance(state, list | tuple) else state


def told_data(name: str, batches) -> dict[str, str]:
    """The images of a loader by their number and checksum, and how it makes batches of them."""
    if batches is None:
        return {f"{name} images": "none"}
    told = {f"{name} batches": type(batches).__name__}
    if isinstance(batches, Loader):
        told[f"{name} images"] = f"{len(batches.labels)} (checksum {_checksum(batches)})"
        told[f"{name} batches"] = ", ".join(
            [f"{batches.batch_size}", *["not shuffled"] * (not batches.shuffle), *["last dropped"] * batches.drop_last])
        if type(batches) is not Loader:
            told[f"{name} batches"] += f", {_told_object(batches)} [{_code_of_class(type(batches))}]"
        told[f"{name} augmentation"] = told_function(batches.augment)
        told[f"{name} normalization"] = "MNIST's, of integers" if batches.normalize is True else (
            told_function(batches.normalize or None))
    else:
        for part in ("batch_size", "drop_last", "sampler", "batch_sampler", "num_workers"):
            value = getattr(batches, part, None)
            told[f"{name} {part}"] = str(value) if isinstance(value, int | bool | None) else type(value).__name__
        told[f"{name} images"] = told_dataset(getattr(batches, "dataset", batches))
    return told


def told_dataset(dataset) -> str:
    """A dataset by the number and checksum of what it holds, where that lies in memory, and by its transform."""
    told = [type(dataset).__name__]
    with contextlib.suppress(TypeError):
        told.append(str(len(dataset)))
    inner, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if inner is not None and indices is not None:  # a Subset
        return " ".join([*told, f"{zlib.crc32(repr(list(map(int, indices))).encode()):08x}", told_dataset(inner)])
    held = getattr(dataset, "tensors", None) or [getattr(dataset, name, None) for name in (
        "images", "labels", "data", "targets")]
    held = [torch.as_tensor(part) for part in held if isinstance(part, torch.Tensor | np.ndarray)]
    if held:
        told.append(f"(checksum {_crc(held)})")
    transforms = [getattr(dataset, name, None) for name in ("transform", "target_transform")]
    return " ".join(told + [told_function(transform) for transform in transforms if transform is not None])


def _crc(tensors) -> str:
    value = 0
    for tensor in tensors:
        value = zlib.crc32(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy(), value)
    return f"{value:08x}"


def _checksum(loader) -> str:
    images, labels = (loader.dataset.images, loader.dataset.labels) if isinstance(loader.dataset, Split) else (
        loader.images, loader.labels)
    return _crc([images, labels])


def differences(theirs: dict, ours: dict) -> list[str]:
    """The entries of two recipes that differ, in words."""
    return [f"  {name}: {_difference(theirs.get(name, 'none'), ours.get(name, 'none'))}"
            for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]


def _difference(theirs, ours, most=60):
    """Two texts that differ, from a little before the first difference on."""
    start = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
                 min(len(theirs), len(ours)))
    start = max(0, theirs.rfind(" ", 0, max(0, start - 10)) + 1) if len(theirs) + len(ours) > 2 * most else 0
    shown = [("..." if start else "") + text[start : start + most] + ("..." if len(text) > start + most else "")
             for text in (theirs, ours)]
    return f"{shown[0]} there, {shown[1]} here"
