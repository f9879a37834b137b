"""How far a training step is from what the processor can do: operations counted, rates measured, time by operator."""

import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import mnist_helpers as mh
from mnist_helpers.results import Table

from . import pipelines

STEPS = 100  # of training, for each measurement
SHOWN = 8  # operators


def median_seconds(function, repeats):
    """What ``function`` takes, once it has run."""
    function()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def rates(repeats):
    """What the processor does when nothing but arithmetic, or nothing but memory, is asked of it, in billions of
    operations or bytes a second."""
    n, found = 2048, {}
    for precision in (torch.float32, torch.bfloat16):
        left, right = torch.randn(n, n, dtype=precision), torch.randn(n, n, dtype=precision)
        seconds = median_seconds(lambda a=left, b=right: a @ b, repeats)
        found[mh.training.precision_name(precision)] = 2 * n**3 / seconds / 1e9
    source = torch.zeros(2**26)  # 256 MB: no cache holds it
    target = torch.empty_like(source)
    # Read once and written once.
    found["memory"] = 2 * source.nbytes / median_seconds(lambda: target.copy_(source), repeats) / 1e9
    return found


def step(case, precision, repeats):
    """Of a training step: its floating-point operations, its seconds, and the operators' shares of them."""
    batch_size = pipelines.CASES[case][2]
    model = pipelines.network(case).to(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        pipelines.our_epoch(case, model, batch_size, precision)
    images = STEPS * batch_size
    seconds = median_seconds(lambda: pipelines.our_epoch(case, model, images, precision), repeats)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        pipelines.our_epoch(case, model, images, precision)
    operators = {each.key: each.self_cpu_time_total for each in profiler.key_averages()}
    total = sum(operators.values())
    shares = sorted(((time / total, name) for name, time in operators.items()), reverse=True)
    return {"case": case, "precision": mh.training.precision_name(precision),
            "flops": counter.get_total_flops(), "seconds": seconds / STEPS,
            "operators": [(name, share) for share, name in shares]}


def run(repeats=5):
    fast = mh.training.fast_precision(torch.device("cpu"))
    return {"rates": rates(repeats), "steps": [step(case, precision, repeats) for case in pipelines.CASES
                                               for precision in dict.fromkeys((None, fast))]}


def tables(measured):
    """What the processor can do, how much of it a step gets, and what the rest of the time goes to."""
    can, rows = measured["rates"], []
    for each in measured["steps"]:
        achieved = each["flops"] / each["seconds"] / 1e9
        rows.append([each["case"], each["precision"], f"{each['flops'] / 1e9:.2f}", f"{1e3 * each['seconds']:.1f}",
                     f"{achieved:.0f}", f"{can[each['precision']]:.0f}", f"{achieved / can[each['precision']]:.0%}"])
    steps = Table(["network", "precision", "billion operations a step", "milliseconds", "achieved, billion a second",
                   "matrix product, billion a second", "share"], rows)
    last = measured["steps"][-1]
    operators = Table([f"operator ({last['case']}, {last['precision']})", "share of a step"],
                      [[f"`{name}`", f"{share:.0%}"] for name, share in last["operators"][:SHOWN]])
    return {f"Distance to the limit. Memory is copied at {can['memory']:.0f} GB a second.": steps,
            "Where the time goes, by operator:": operators}
