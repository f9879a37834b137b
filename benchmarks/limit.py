"""How far a training step is from what the processor can do: operations counted, rates measured, time by operator."""

import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import mnist_helpers as mh
from mnist_helpers.course.tables import Table

from . import pipelines, spread

STEPS = 100  # of training, for each measurement
SHOWN = 12  # operators


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def repeated(function, repeats):
    """The seconds ``function`` takes each time, once it has run."""
    function()
    return [seconds(function) for _ in range(repeats)]


def rates(repeats):
    """What the processor does when nothing but arithmetic, or nothing but memory, is asked of it, each time, in
    billions of operations or bytes a second."""
    n, found = 2048, {}
    for precision in (torch.float32, torch.bfloat16):
        left, right = torch.randn(n, n, dtype=precision), torch.randn(n, n, dtype=precision)
        found[mh.device.precision_name(precision)] = [
            2 * n**3 / each / 1e9 for each in repeated(lambda a=left, b=right: a @ b, repeats)]
    source = torch.zeros(2**26)  # 256 MB: no cache holds it
    target = torch.empty_like(source)
    # Read once and written once.
    found["memory"] = [2 * source.nbytes / each / 1e9 for each in repeated(lambda: target.copy_(source), repeats)]
    return found


def profiled(function):
    """The seconds ``function`` takes under the profiler, and those of them spent in each of PyTorch's operators; the
    others go to Python, autograd and the profiler itself."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        total = seconds(function)
    return total, {each.key: each.self_cpu_time_total / 1e6 for each in profiler.key_averages()
                   if each.key.startswith("aten::")}


def step(case, precision, repeats):
    """Of a training step: its floating-point operations, its seconds each time, and where a profiled one's go."""
    batch_size = pipelines.CASES[case][2]
    model = pipelines.network(case).to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        pipelines.our_epoch(case, model, pipelines.split(batch_size), precision)
    split = pipelines.split(STEPS * batch_size)
    times = repeated(lambda: pipelines.our_epoch(case, model, split, precision), repeats)
    total, operators = profiled(lambda: pipelines.our_epoch(case, model, split, precision))
    return {"case": case, "precision": mh.device.precision_name(precision), "flops": counter.get_total_flops(),
            "seconds": [each / STEPS for each in times], "profiled_seconds": total / STEPS,
            "operators": {name: each / STEPS for name, each in operators.items()}}


def run(repeats=5):
    mh.cpu.keep_freed_memory()
    fast = mh.device.fast_precision(torch.device("cpu"))
    return {"rates": rates(repeats), "steps": [step(case, precision, repeats) for case in pipelines.CASES
                                               for precision in dict.fromkeys((None, fast))]}


def tables(measured):
    """What the processor can do, how much of it a step gets, and what the time of a step goes to."""
    rows = []
    for each in measured["steps"]:
        achieved = each["flops"] / statistics.median(each["seconds"]) / 1e9
        can = measured["rates"][each["precision"]]
        rows.append([each["case"], each["precision"], f"{each['flops'] / 1e9:.2f}",
                     spread([1e3 * one for one in each["seconds"]]), f"{achieved:.0f}", spread(can, ".0f"),
                     f"{achieved / statistics.median(can):.0%}"])
    steps = Table(["network", "precision", "billion operations a step", "milliseconds a step [smallest, largest]",
                   "achieved, billion a second", "matrix product, billion a second", "share"], rows)
    last = {each["case"]: each for each in measured["steps"]}  # of a network, the fast precision
    shares = {f"{case}, {each['precision']}": {name: time / each["profiled_seconds"]
                                               for name, time in each["operators"].items()}
              for case, each in last.items()}
    convolutions = " and ".join(f"{sum(share for name, share in each.items() if 'convolution' in name):.0%}"
                                for each in shares.values())
    memory = measured["rates"]["memory"]
    return {f"Distance to the limit, in {len(memory)} rounds. Memory is copied at {spread(memory, '.0f')} GB a second.":
            steps,
            "Where the time goes, as shares of a step under the profiler. Convolutions, which do nearly all of the "
            f"arithmetic, take {convolutions}; the other operators mostly move memory or draw random numbers, and what "
            "lies between them is Python, autograd and the profiler itself.": operators(shares)}


def operators(shares):
    """A `Table` of the operators with the largest shares in any of ``{network: {operator: share of a step}}``."""
    names = sorted({name for each in shares.values() for name in each},
                   key=lambda name: (-max(each.get(name, 0) for each in shares.values()), name))[:SHOWN]
    rows = [[f"`{name}`", *(each.get(name, 0) for each in shares.values())] for name in names]
    rows.append(["other operators", *(sum(each.values()) - sum(each.get(name, 0) for name in names)
                                      for each in shares.values())])
    rows.append(["between operators", *(1 - sum(each.values()) for each in shares.values())])
    return Table(["operator", *shares], [[name, *(f"{share:.0%}" for share in each)] for name, *each in rows])
