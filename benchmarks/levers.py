"""What makes a lesson's step faster, one lever at a time, and what each of its parts costs: on one thread, as in the
lessons."""

import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import mnist_helpers as mh
from mnist_helpers.course.tables import Table

from . import epoch, pipelines, spread, variants

STEPS = 60  # timed; as many before them pay for start-up and compilation
SEEDS = 5  # in one batched network
AS_IT_IS, BATCHED = "as in the lessons", f"{SEEDS} seeds in one batched network, each"


class ByteDropout(nn.Dropout):
    """Dropout with eight masks from each random number of 64 bits, instead of a draw an input. The probability is
    rounded to 256ths."""

    def forward(self, inputs):
        if not self.training or self.p == 0:
            return inputs
        numbers = torch.empty(-(-inputs.numel() // 8), dtype=torch.int64).random_(-2**63, None)
        threshold = round(256 * self.p)
        keep = numbers.view(torch.uint8)[: inputs.numel()].view(inputs.shape) >= threshold
        return inputs * keep * (256 / (256 - threshold))


def replaced(model, kind, make):
    """``model`` with ``make(layer)`` in the place of each of its layers of a ``kind``."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, kind):
            setattr(model, name, make(layer))
    return model


LAST = {"layout": torch.channels_last}
BOTH = LAST | {"fused": True}
#: ``{name: options of `steps`}``: the levers, then what a step would take without one of its parts.
LEVERS = {
    AS_IT_IS: {},
    "channels last in memory": LAST,
    "Adam in one call": {"fused": True},
    "both": BOTH,
    "both, with torch.compile": BOTH | {"compiled": True},
    "both, dropout from bytes": BOTH | {"change": lambda model: replaced(
        model, nn.Dropout, lambda layer: ByteDropout(layer.p))},
    "both, bfloat16": BOTH | {"precision": torch.bfloat16},
}
PARTS = {
    "augmentation": {"augmented": False},
    "dropout": {"change": variants.no_dropout},
    "batch norm": {"change": variants.no_norms},
    "Adam, with plain SGD": {"optimizer": lambda parameters, fused: torch.optim.SGD(parameters, lr=1e-3)},
}
KINDS = {"dropout": nn.Dropout, "batch norm": nn.BatchNorm2d, "both, dropout from bytes": nn.Dropout}


def adam(parameters, fused):
    return torch.optim.Adam(parameters, lr=1e-3, fused=fused or None)


def steps(case, layout=torch.contiguous_format, fused=False, precision=None, compiled=False, augmented=True,
          change=None, optimizer=adam):
    """A function that takes `STEPS` steps of a case and returns the milliseconds of each."""
    *_, batch_size, _, augment = pipelines.CASES[case]
    model = pipelines.network(case)
    if change:
        change(model)
    model = model.to(memory_format=layout)
    forward = torch.compile(model) if compiled else model
    batches = mh.Loader(pipelines.split(STEPS * batch_size), batch_size, augment=augment if augmented else None,
                        precision=precision)
    updating = optimizer(model.parameters(), fused)

    def timed():
        started = time.perf_counter()
        mh.train_epoch(forward, batches, optimizer=updating)
        return 1e3 * (time.perf_counter() - started) / STEPS

    timed()
    return timed


def batched(case, count=STEPS // SEEDS):
    """A function that takes ``count`` steps of networks of `SEEDS` seeds at once, each on images of its own, and
    returns the milliseconds of a step of each."""
    networks = [pipelines.network(case, seed).train() for seed in range(SEEDS)]
    weights, buffers = stack_module_state(networks)
    updating = adam([*weights.values()], fused=False)
    batch_size = pipelines.CASES[case][2]
    batches = [mh.Loader(pipelines.split(count * batch_size), batch_size, augment=pipelines.CASES[case][4])
               for _ in networks]

    def loss(weights, buffers, inputs, targets):
        return F.cross_entropy(functional_call(networks[0], (weights, buffers), (inputs,)), targets)

    def timed():
        started = time.perf_counter()
        for each in zip(*batches, strict=True):
            inputs, targets = (torch.stack(part) for part in zip(*each, strict=True))
            updating.zero_grad()
            vmap(loss, randomness="different")(weights, buffers, inputs, targets).sum().backward()
            updating.step()
        return 1e3 * (time.perf_counter() - started) / count / SEEDS

    timed()
    timed.weights = weights  # for whoever compares them with those of the networks one by one
    return timed


def measure(case, repeats):
    """``[{name: milliseconds a step}]``, all names of a round one after another, of `LEVERS` and `PARTS`."""
    torch.set_num_threads(1)
    layers = list(pipelines.network(case).children())
    timed = {}
    for name, given in [*LEVERS.items(), *PARTS.items()]:
        if any(isinstance(layer, KINDS.get(name, nn.Module)) for layer in layers):
            timed[name if name in LEVERS else f"without {name}"] = steps(case, **given)
    timed[BATCHED] = batched(case)
    return [{name: each() for name, each in timed.items()} for _ in range(repeats)]


def run(repeats=5):
    """``{case: rounds}``, each case in a process of its own, with what `mnist_helpers.cpu` offers."""
    return {case: epoch.process(True).submit(measure, case, repeats).result() for case in pipelines.CASES}


def tables(measured):
    rows = []
    for case, rounds in measured.items():
        rows.append(case)
        for name in rounds[0]:
            ratios = [each[AS_IT_IS] / each[name] for each in rounds]
            rows.append([name, spread([each[name] for each in rounds]), spread(ratios, ".2f", "x")])
    count = len(next(iter(measured.values())))
    return {f"A step on one thread in {count} rounds, one lever at a time, and without one of its parts: so much could "
            "be gained at most if the part cost nothing.": Table(
                ["step", "milliseconds [smallest, largest]", "times as fast [smallest, largest]"], rows)}
