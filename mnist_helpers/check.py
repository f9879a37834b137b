"""A look at a network before its first step: the common mistakes, each in a sentence that names its remedy.

One batch goes through the network in eval mode; modes, buffers and random states are left as they were, so that a
training is the same to the bit with the look and without.
"""

import math
import warnings

import torch
import torch.nn.functional as F

from .measure import evaluation_mode

LOOK = 32  # images of the first batch that are looked at


class NetworkError(ValueError):
    """A network, loss or data that cannot be trained as they are; the message names the layer and the remedy."""


def check_network(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, loss_fn, classes=None) -> None:
    """Raise `NetworkError` for what cannot be meant, and warn of what hardly is.

    ``inputs`` ``(n, ...)`` and ``targets``, classes ``(n,)`` or probabilities ``(n, classes)``, are a batch as the
    network takes it, on its device; ``classes`` is how many there are in all data, where that is known.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
    with evaluation_mode(model), torch.enable_grad():
        logits = forward(model, inputs.float())
        _check_shape(model, logits, inputs, targets, loss_fn)
        if classes and logits.shape[1] < classes:
            _refuse_label(classes - 1, logits.shape[1])
        if classes and logits.shape[1] > classes:
            warnings.warn(f"the network has {logits.shape[1]} outputs, and the labels are 0 to {classes - 1}: "
                          f"{classes} are enough", stacklevel=5)
        _check_hidden(model, logits)
        _check_logits(logits.detach(), logits.grad_fn, loss_fn)
        with torch.no_grad():
            again = model(inputs.float())  # some layers round otherwise without gradients
            if not torch.allclose(logits.detach(), again, rtol=1e-3, atol=1e-4, equal_nan=True):
                warnings.warn("the network draws random numbers in eval mode too: give F.dropout "
                              "`training=self.training`, or use nn.Dropout", stacklevel=5)


def input_size_of(model: torch.nn.Module) -> tuple[int, int, int]:
    """The size of an image that the model takes, 28 by 28, with as many channels as its first convolution has."""
    first = next((module for module in model.modules() if isinstance(module, torch.nn.Conv2d)), None)
    return (first.in_channels if first else 1), 28, 28


def forward(model: torch.nn.Module, inputs: torch.Tensor):
    """The network's output. Raises `NetworkError` with the name of the layer that failed, what it was given, and what
    it takes."""
    begun, done, hooks = [], [], []

    def before(name):
        def note(module, arguments):
            begun.append((name, module, arguments))
        return note

    def after(module, arguments, output):
        done.append((begun.pop()[0], output))

    for name, module in model.named_modules():
        if not list(module.children()):
            hooks += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after)]
    try:
        return model(inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        raise NetworkError(_explained(error, begun, done, inputs)) from error
    finally:
        for hook in hooks:
            hook.remove()


def _explained(error, begun, done, inputs):
    said = str(error).strip().split("\n")[0]
    if not begun:
        shape = getattr(done[-1][1], "shape", ()) if done else inputs.shape
        where = f"after {done[-1][0]}, whose output is" if done else "on inputs of shape"
        return f"the network fails {where} {tuple(shape)}: {said}"
    name, module, arguments = begun[-1]
    given = tuple(arguments[0].shape) if arguments and isinstance(arguments[0], torch.Tensor) else ()
    what = f"{name or 'the network'} ({type(module).__name__})"
    if isinstance(module, torch.nn.Linear) and len(given) > 2:
        return (f"{what} takes {module.in_features} numbers an image and was given {given}: flatten before the linear "
                f"layer, `x.flatten(1)`, which makes {math.prod(given[1:])} of it")
    if isinstance(module, torch.nn.Linear):
        return (f"{what} takes {module.in_features} numbers an image and was given {given[-1]}: write "
                f"nn.Linear({given[-1]}, {module.out_features})")
    if isinstance(module, torch.nn.modules.conv._ConvNd) and len(given) > 1 and given[1] != module.in_channels:
        return (f"{what} takes {module.in_channels} channels and was given {given[1]}: its first argument has to be "
                f"{given[1]}, what the layer before it hands on")
    if isinstance(module, torch.nn.modules.batchnorm._NormBase) and len(given) > 1:
        return f"{what} takes {module.num_features} channels and was given {given[1]}: write {given[1]}"
    return f"{what} failed on an input of shape {given}: {said}"


def _check_shape(model, logits, inputs, targets, loss_fn):
    if logits is None:
        raise NetworkError(f"{type(model).__name__}.forward returns nothing: end it with `return`")
    if not isinstance(logits, torch.Tensor):
        raise NetworkError(f"{type(model).__name__}.forward returns a {type(logits).__name__}, not a tensor of logits")
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise NetworkError(f"the network makes {tuple(logits.shape)} of {len(inputs)} images, and logits are (images, "
                           "classes): flatten, `x.flatten(1)`, or average, `x.mean((2, 3))`, before the last layer")
    if targets.ndim == 1 and not targets.is_floating_point():
        wrong = targets[(targets < 0) | (targets >= logits.shape[1])]
        if len(wrong):
            _refuse_label(wrong[0].item(), logits.shape[1], from_one=targets.min() > 0 and wrong[0] == logits.shape[1])
    if loss_fn is F.cross_entropy and targets.is_floating_point() and targets.shape != logits.shape:
        raise NetworkError(f"labels that are floats are probabilities, here {tuple(logits.shape)}, and these have the "
                           f"shape {tuple(targets.shape)}: pass classes as integers, `labels.long()`")


def _refuse_label(label, outputs, from_one=False):
    raise NetworkError(f"a label is {label}, and the network has {outputs} outputs, for the classes 0 to {outputs - 1}"
                       + (": labels that count from 1 are to be given as `labels - 1`" if from_one else ""))


def _check_hidden(model, logits):
    if hidden := hidden_weights(model, logits):
        raise NetworkError(f"{hidden:,} weights are computed with and not registered, so no optimiser trains them: "
                           "put the layers into nn.ModuleList or nn.ModuleDict instead of a list or dict")


def hidden_weights(model: torch.nn.Module, output: torch.Tensor) -> int:
    """The number of weights that ``output`` was computed with and that are not among the model's parameters: those of
    layers in a plain list or dict. No optimiser sees them, and no budget counts them."""
    registered = {id(parameter) for parameter in model.parameters()}
    return sum(leaf.numel() for leaf in _graph_leaves(output) if id(leaf) not in registered)


def _graph_leaves(output):
    """The tensors that ask for a gradient in the graph behind ``output``, each once."""
    seen, leaves, todo = set(), {}, [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                leaves[id(node.variable)] = node.variable
            todo += [parent for parent, _ in node.next_functions]
    return list(leaves.values())


def _check_logits(logits, operation, loss_fn):
    loss_fn = getattr(loss_fn, "func", loss_fn)  # of a functools.partial
    name = type(operation).__name__
    if loss_fn is F.nll_loss or isinstance(loss_fn, torch.nn.NLLLoss):
        if not _all_one(logits.exp().sum(1)):
            raise NetworkError("nll_loss takes log-probabilities, and the network returns logits: use F.cross_entropy")
    elif (logits >= 0).all() and _all_one(logits.sum(1)):
        warnings.warn("the network ends in a softmax, and cross-entropy applies one itself: return the logits, or it "
                      "learns slowly", stacklevel=5)
    elif name.startswith("Relu"):
        warnings.warn("the network ends in a ReLU, which cuts off every logit below 0: return the last layer's output",
                      stacklevel=5)


def _all_one(sums):
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def check_loss(loss: float, classes: int, rate: float) -> None:
    """Warn if the mean training loss of an epoch is above that of guessing, ln(classes)."""
    if classes > 1 and loss > math.log(classes) * 1.05:
        warnings.warn(f"after an epoch the loss is {loss:.4g}, and guessing has {math.log(classes):.2f}: the learning "
                      f"rate, {rate:g}, is probably too high", stacklevel=3)
