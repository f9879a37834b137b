"""Seconds from the start of a process to a trained network of the speed-run notebook, and of the published recipe."""

import json
import statistics
import subprocess
import sys
import time

from mnist_helpers.course import notebooks, records
from mnist_helpers.course.tables import Table
from mnist_helpers.stats import mean_over_seeds

from . import epoch, pipelines, spread

NOTEBOOK, NETWORK = "challenges/speed_run", "SpeedRun"
CASE, PUBLISHED_EPOCHS = "six convolutions", 15  # the first epoch at which it was reported to reach 99.4 %


def recipe(seed):
    """The code of the notebook's cells tagged ``recipe``, under a seed: what is timed is what the notebook shows."""
    notebook = notebooks.read(notebooks.find([NOTEBOOK])[0])
    parameters, cells = ([cell.source for cell in notebooks.tagged(notebook, tag)] for tag in ("parameters", "recipe"))
    return "\n".join([*parameters, f"SEED = {seed}", *cells])


def timed(seed, device):
    """Run the recipe in a fresh process on ``"cpu"`` or ``"cuda"``: seconds until the network is trained, and its
    accuracy on the validation images, measured afterwards."""
    code = ("import json, time, torch, mnist_helpers\n"
            "mnist_helpers.set_threads(torch.get_num_threads())\n"
            f"mnist_helpers.get_device = lambda: torch.device({device!r})\n{recipe(seed)}\n"
            f"model.to('cpu')\nfinished = time.time()\n"
            f"print(json.dumps([finished, mh.evaluate(model, mnist.val).accuracy]))")
    started = time.time()
    said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    finished, val_accuracy = json.loads(said.stdout.splitlines()[-1])
    return {"seconds": finished - started, "val_accuracy": val_accuracy}


def run(repeats=5, images=55_000):
    """``{device: ...}``. Alternate, seed by seed: ours, and an epoch as published, with the number of workers that
    serves it best."""
    measured = {device: {"workers": epoch.best_workers(CASE, images, device), "ours": [], "published": []}
                for device in pipelines.devices()}
    for seed in range(repeats):
        for device, each in measured.items():
            each["ours"].append(timed(seed, device))
            each["published"].append(epoch.published(CASE, images, each["workers"], device)["seconds"])
    return measured


def tables(measured):
    """Medians; the accuracy is that of the recorded runs, since a stopwatch that looked at the test images each time
    would be another look at them."""
    seeds = records.by_seed().get(NETWORK, {}).values()
    test = str(mean_over_seeds([run["test_accuracy"] for run in seeds])) if seeds else "not recorded"
    recorded = " and ".join(dict.fromkeys(run["card"]["device"] for run in seeds))
    source = f" The test accuracy over seeds is of the recorded runs, on {recorded}." if seeds else ""
    rows = []
    for device, each in measured.items():
        whole = [PUBLISHED_EPOCHS * seconds for seconds in each["published"]]
        ratios = [theirs / ours["seconds"] for theirs, ours in zip(whole, each["ours"], strict=True)]
        rows += [[f"published recipe, {device}, workers: {each['workers']}", spread(whole, ".0f"), "1x", "",
                  "99.4 in one run"],
                 [f"ours, {device}", spread([ours["seconds"] for ours in each["ours"]]),
                  spread(ratios, ".0f", "x"),
                  f"{100 * statistics.fmean(ours['val_accuracy'] for ours in each['ours']):.2f}", test]]
    rounds = len(next(iter(measured.values()))["ours"])
    caption = (f"Time to 99.4 %, from the start of the process, in {rounds} rounds; the published "
               f"recipe's is a timed epoch, times {PUBLISHED_EPOCHS}.{source}")
    return {caption: Table(["recipe", "seconds [smallest, largest]", "times as fast [smallest, largest]",
                            "validation (%)", "test over seeds (%)"], rows)}
