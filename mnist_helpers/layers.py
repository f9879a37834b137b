"""The layers of a network as torchsummary tells them, and its size against a budget."""

import contextlib
import copy
import io
import re

import torch
import torchsummary

from .check import forward, hidden_weights, input_size_of
from .device import random_state, set_random_state
from .measure import evaluation_mode


def count_parameters(model: torch.nn.Module) -> int:
    """The number of the model's parameters, registered ones: what a budget is measured on."""
    return sum(parameter.numel() for parameter in model.parameters())


def hidden_parameters(model: torch.nn.Module, input_size: tuple = (1, 28, 28)) -> int:
    """The `hidden_weights` of a forward pass of the model, made on a copy."""
    replica = copy.deepcopy(model).cpu()
    with evaluation_mode(replica), torch.enable_grad():
        output = forward(replica, torch.zeros(2, *input_size))
    return hidden_weights(replica, output)


def summary(model: torch.nn.Module, input_size: tuple | None = None, budget: int | None = None) -> None:
    """Print torchsummary's table for one input of ``input_size`` (without the batch; by default `input_size_of` the
    model), and the use of ``budget``.

    The table is made on a copy on the CPU: the model's device, modes and BatchNorm statistics stay as they are, and
    so do the random states. If torchsummary's total is not `count_parameters`, the modules behind the difference are
    named.

    Raises `ValueError` if the model has no parameters or does not take such an input.
    """
    parameters = count_parameters(model)
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameters to summarise")
    input_size = input_size or input_size_of(model)
    replica = copy.deepcopy(model).cpu()
    calls = {name: 0 for name, _ in replica.named_modules()}

    def counter(name):
        def count(module, inputs, output):
            calls[name] += 1
        return count

    for name, module in replica.named_modules():
        module.register_forward_hook(counter(name))
    table = io.StringIO()
    state = random_state(torch.device("cpu"))
    try:
        with contextlib.redirect_stdout(table), torch.no_grad():
            torchsummary.summary(replica, input_size, device="cpu")
    except AttributeError as error:  # torchsummary asks each output for its size
        raise ValueError(f"torchsummary cannot show {type(model).__name__}: one of its layers returns more than a "
                         f"tensor, as nn.LSTM does. It has {parameters:,} parameters, and can be trained all the "
                         "same") from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{type(model).__name__} does not take an input of shape {input_size}: {error}") from error
    finally:
        set_random_state(state, torch.device("cpu"))
    print(table.getvalue().rstrip())
    hidden = hidden_parameters(model, input_size)
    if hidden:
        print(f"{hidden:,} more weights are computed with, but not registered, and will not be trained: put the layers "
              "into nn.ModuleList or nn.ModuleDict instead of a list or dict")
    if budget is not None:
        used = parameters + hidden
        verdict = "within the budget" if used <= budget else f"{used - budget:,} over the budget"
        print(f"{used:,} of {budget:,} parameters: {verdict}")
    total = int(re.search(r"Total params: ([\d,]+)", table.getvalue())[1].replace(",", ""))
    if total != parameters:
        print(f"torchsummary counts {total:,} parameters, the model has {parameters:,} registered:")
        for line in _differences(replica, calls):
            print(f"  {line}")


def _differences(model, calls):
    """Why torchsummary's total differs: a line for each module that it counts wrongly, or not at all."""
    seen = set()
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        size = f"{sum(parameter.numel() for parameter in own.values()):,} parameters"
        label = f"{name or 'the model itself'} ({type(module).__name__}, {size})"
        others = [parameter for parameter in own if parameter not in ("weight", "bias")]
        if name and not calls[name]:
            yield f"{label} is registered but never run"
        elif calls[name] > 1:
            yield f"{label} is run {calls[name]} times, and counted as often"
        elif others or not name:
            yield f"{label} has parameters torchsummary does not look for: {', '.join(others or own)}"
        elif seen & set(own.values()):
            yield f"{label} shares parameters with a module before it, and is counted as well"
        seen |= set(own.values())
