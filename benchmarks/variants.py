"""Published networks with one thing changed: what their claims need, measured on the validation images.

    python -m benchmarks.variants

A claim such as "two norms are needed" takes the network with one norm, trained in the same way. Every variant is
trained under the seeds 100, 101, ... (ten of them for one epoch, five for more), the short trainings first, and is one
line of ``results/variants.jsonl``. What is there already is not trained again: the command may
be stopped and given again. Weights are not kept, and the test images are not opened.
"""

import argparse
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
SEEDS = {1: 10, 5: 5, 20: 5}  # how many, by epochs
LESSONS = mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(15))
#: ``{network: how it is trained}``: as in its notebook, but that lessons 1 and 3 share the recipe of lesson 3.
TRAINED = {"DoubleNorm": {"lr": 1e-3, "augment": None, "drop_at": None},
           "Baseline": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15},
           "TwentyEpochs": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15},
           "BatchNorm": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15},
           "Under20K": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15}}
RATES = (0.002, 0.006, 0.02, 0.06)


def as_published(model):
    """Change nothing."""


def no_norms(model):
    """Every batch norm passes its inputs on."""
    for name in [name for name, layer in model.named_children() if isinstance(layer, nn.BatchNorm2d)]:
        setattr(model, name, nn.Identity())


def one_norm_a_block(model):
    """Of the two norms round each ReLU, the one before it stays."""
    model.after1 = model.after2 = model.after3 = nn.Identity()


def no_dropout(model):
    model.dropout.p = 0.0


def wide_convolutions(model):
    """Every 1x1 convolution becomes one of 3x3."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            setattr(model, name, nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1))


def variants():
    """``[(name, network, change, epochs, rate or None)]``, cheap ones first; without a rate, the network's own."""
    found = [(f"DoubleNorm, {change.__name__.replace('_', ' ')}", "DoubleNorm", change, 1, None)
             for change in (as_published, no_norms, one_norm_a_block, no_dropout)]
    found += [(f"{network}, rate {rate}", network, as_published, 1, rate)
              for network in ("TwentyEpochs", "BatchNorm") for rate in RATES]
    found.append(("Under20K, epochs: 1", "Under20K", as_published, 1, None))
    found += [(f"{network}, epochs: {epochs}", network, as_published, epochs, None)
              for epochs in (1, 5, 20) for network in ("Baseline", "TwentyEpochs")]
    return [*found, ("TwentyEpochs, 3x3 for 1x1", "TwentyEpochs", wide_convolutions, 20, None)]


def untrained(network, change):
    """A fresh network, changed; its weights are drawn as in its notebook."""
    model = type(mh.network(network))()
    change(model)
    return model


def digest(network, change, epochs, rate):
    """The digest of all that makes a run but its seed."""
    trained = {key: repr(value) for key, value in TRAINED[network].items()}
    code = [syntax(inspect.getsource(part)) for part in (change, train, type(mh.network(network)))]
    return hashlib.sha256(json.dumps([network, trained, epochs, rate, code], sort_keys=True).encode()).hexdigest()[:12]


def train(network, change, epochs, rate, seed, dataset):
    """The `Run` of a variant."""
    recipe = TRAINED[network]
    mh.set_seed(seed)
    model = untrained(network, change)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate or recipe["lr"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, recipe["drop_at"], gamma=0.1) if recipe["drop_at"] else None
    return mh.fit(model, mh.Loader(dataset.train, batch_size=64, augment=recipe["augment"]), dataset.val,
                  epochs=epochs, optimizer=optimizer, scheduler=scheduler)


def variants_file():
    return data.project_root() / "results" / "variants.jsonl"


def measured(name, network, change, epochs, rate, seed, dataset):
    """Train a variant under one seed; return its record."""
    told = {"variant": name, "seed": seed, "epochs": epochs,
            "parameters": count_parameters(untrained(network, change)),
            "recipe": digest(network, change, epochs, rate)}

    def more(run):
        as_published = mh.evaluate(run.model, dataset.train, augment=TRAINED[network]["augment"])
        return {"val_curve": [round(value, 4) for value in run.history["val_accuracy"]],
                "train_accuracy": round(run.history["train_accuracy"][-1], 5),
                "augmented_train_accuracy": round(as_published.accuracy, 6)}
    return lines.measured(told, lambda: train(network, change, epochs, rate, seed, dataset), more)


def missing():
    """``[(variant, seed)]`` of all runs that the file lacks, the short ones first, seed by seed."""
    done = {(record["recipe"], record["seed"]) for record in files.read_records(variants_file(), {"recipe", "seed"})}
    return [(variant, seed) for epochs, seeds in SEEDS.items() for seed in range(FIRST_SEED, FIRST_SEED + seeds)
            for variant in variants() if variant[3] == epochs and (digest(*variant[1:]), seed) not in done]


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__.splitlines()[0])
    parser.parse_args()
    mh.cpu.keep_freed_memory()
    dataset = lines.all_of_mnist(parser)
    lines.add(((variant[0], measured(*variant, seed, dataset)) for variant, seed in missing()), variants_file())


if __name__ == "__main__":
    main()
