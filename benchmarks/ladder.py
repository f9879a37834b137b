"""From 94 to 98 % in one epoch: which of the published changes matter, one at a time, on the validation images.

    python -m benchmarks.ladder --seeds 10

A published exercise tells of a first version with 94 to 95 % after one epoch and a final one with about 98 %, and lists
what was changed. Here the changes are made one after another (ladder "up"), and each is left out of the final version
(ladder "down"). The ladder "guess" holds other readings of the first version.

Every run is one epoch, under the seeds 100, 101, ..., and one line of ``results/ladder.jsonl``. All rungs are trained
under one seed before the next seed begins. What is there already is not trained again: the command may be
stopped and given again. Weights are not kept, and the test images are not opened.

Source: Gaju27/mnsit_25k_parameters, README.md. It gives neither rate nor momentum of the first version; its notebook
has them in a comment: ``optim.SGD(model.parameters(), lr=0.01, momentum=0.9)``.
"""

import argparse
import functools
import hashlib
import inspect
import json

import torch
from torch import nn

import mnist_helpers as mh
from mnist_helpers import data, files
from mnist_helpers.layers import count_parameters
from mnist_helpers.recipe import syntax

from . import lines

FIRST_SEED = 100  # the searches used 0 to 3, the records 0 to 4
ACTIVATIONS = {"none": nn.Identity, "tanh": nn.Tanh, "ReLU": nn.ReLU}
OPTIMIZERS = {"SGD 0.01": functools.partial(torch.optim.SGD, lr=0.01),
              "SGD 0.01, momentum 0.9": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9),
              "Adam 0.0005": functools.partial(torch.optim.Adam, lr=5e-4)}
FIRST = {"norm": "first", "activation": "none", "dropout": 0.0, "init": "PyTorch's",
         "optimizer": "SGD 0.01, momentum 0.9", "batch": 128, "channels": [8, 16], "pooling": "max", "hidden": 32}
# In the published order: the list of six, then the rows of its table that the list leaves out.
CHANGES = {"norm after every conv.": {"norm": "every"}, "ReLU": {"activation": "ReLU"},
           "dropout 0.2": {"dropout": 0.2}, "Xavier, dense layers": {"init": "Xavier"},
           "Adam for SGD": {"optimizer": "Adam 0.0005"}, "batches of 64": {"batch": 64},
           "three wider conv.": {"channels": [16, 32, 64]}, "average pooling": {"pooling": "max, then average"},
           "23 hidden units": {"hidden": 23}}
LISTED = 6
FINAL = functools.reduce(lambda config, change: config | change, CHANGES.values(), FIRST)
GUESSES = {"tanh": {"activation": "tanh"}, "ReLU": {"activation": "ReLU"}, "no momentum": {"optimizer": "SGD 0.01"}}


class Net(nn.Module):
    """The network of a configuration: convolutions of 3x3, a 2x2 max-pool after each of the first two, two dense
    layers."""

    def __init__(self, config):
        super().__init__()
        activation, layers, channels = ACTIVATIONS[config["activation"]], [], 1
        for number, out in enumerate(config["channels"]):
            layers.append(nn.Conv2d(channels, out, 3, padding=1))
            if config["norm"] == "every" or number == 0:
                layers.append(nn.BatchNorm2d(out))
            layers += [activation(), *[nn.MaxPool2d(2)] * (number < 2)]
            channels = out
        average = config["pooling"] != "max"
        inputs = channels * (1 if average else 7 * 7)
        linear1, linear2 = nn.Linear(inputs, config["hidden"]), nn.Linear(config["hidden"], 10)
        if config["init"] == "Xavier":
            for linear in (linear1, linear2):
                nn.init.xavier_uniform_(linear.weight)
        self.layers = nn.Sequential(*layers, *[nn.AdaptiveAvgPool2d(1)] * average, nn.Flatten(),
                                    nn.Dropout(config["dropout"]), linear1, activation(), linear2)

    def forward(self, images):
        return self.layers(images)


def rungs():
    """``[(config, places)]``: every configuration once, with the list of ``(ladder, number, name)`` it stands for.

    Number 0 is where a ladder begins. A rung's name is the change that it makes (up, guess) or leaves out (down).
    """
    found, config = [("up", 0, "first version", FIRST)], FIRST
    for number, (name, change) in enumerate(CHANGES.items(), start=1):
        config = config | change
        without = FINAL | {key: FIRST[key] for key in change}
        found += [("up", number, name, config), ("down", number, name, without)]
    found += [("guess", number, name, FIRST | more) for number, (name, more) in enumerate(GUESSES.items(), start=1)]
    found += [("guess", 0, "first version", FIRST), ("down", 0, "final version", FINAL)]
    merged = {}
    for *place, config in sorted(found, key=lambda each: (["up", "down", "guess"].index(each[0]), each[1])):
        merged.setdefault(json.dumps(config), (config, []))[1].append(place)
    return list(merged.values())


def digest(config):
    """The digest of all that makes a run but its seed: the configuration, and the code here that trains it."""
    code = [syntax(inspect.getsource(part)) for part in (Net, train)]
    return hashlib.sha256(json.dumps([config, code], sort_keys=True).encode()).hexdigest()[:12]


def train(config, seed, dataset):
    """The `Run` of one epoch. A seed draws the same order of the images for every rung."""
    mh.set_seed(seed)
    model = Net(config).to(memory_format=torch.channels_last)
    order = torch.Generator().manual_seed(seed)
    return mh.fit(model, mh.Loader(dataset.train, config["batch"], generator=order), dataset.val, epochs=1,
                  optimizer=OPTIMIZERS[config["optimizer"]](model.parameters()))


def ladder_file():
    return data.project_root() / "results" / "ladder.jsonl"


def measured(config, places, seed, dataset):
    """Train a rung under one seed; return its record."""
    told = {"places": places, "seed": seed, "config": config, "parameters": count_parameters(Net(config)),
            "recipe": digest(config)}
    return lines.measured(told, lambda: train(config, seed, dataset))


def missing(seeds):
    """``(config, places, seed)`` of all runs that the file lacks, seed by seed."""
    done = {(record["recipe"], record["seed"]) for record in files.read_records(ladder_file(), {"recipe", "seed"})}
    return [(config, places, seed) for seed in range(FIRST_SEED, FIRST_SEED + seeds) for config, places in rungs()
            if (digest(config), seed) not in done]


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds, from 100 on (default: 10)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor (default: 1)")
    options = parser.parse_args()
    mh.set_threads(options.threads)
    mh.cpu.keep_freed_memory()
    dataset = lines.all_of_mnist(parser)
    lines.add((("; ".join(" ".join(map(str, place)) for place in places), measured(config, places, seed, dataset))
               for config, places, seed in missing(options.seeds)), ladder_file())


if __name__ == "__main__":
    main()
