"""Published networks with one thing changed: what their claims need, measured on the validation images.

    python -m benchmarks.variants

A claim such as "two norms are needed" takes the network with one norm, trained in the same way. Every variant is
trained under the seeds 100, 101, ... (ten of them for one epoch, five for more), the short trainings first, and is one
line of ``results/variants.jsonl``, which names the device. What is there already is not trained again: the command may
be stopped and given again, and several may share the work (``--share 1 8`` to ``--share 8 8`` on one GPU). Weights are
not kept. One claim names the test images, that fewer than twenty epochs are
enough: they are opened once a run of that variant, after its last epoch. All else is measured on validation images.
"""

import argparse
import hashlib
import inspect
import json
import types

import torch
import torch.nn.functional as F
from torch import nn

import mnist_helpers as mh
from mnist_helpers import data, files
from mnist_helpers.layers import count_parameters
from mnist_helpers.recipe import syntax

from . import lines

FIRST_SEED = 100  # the searches used 0 to 3, the records 0 to 4
SEEDS = {1: 10, 5: 5, 20: 5, 19: 5}  # how many, by epochs
LESSONS = mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(15))
#: ``{network: how it is trained}``: as in its notebook, but that lessons 1 and 3 share the recipe of lesson 3.
TRAINED = {"DoubleNorm": {"lr": 1e-3, "augment": None, "drop_at": None},
           "Baseline": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15},
           "TwentyEpochs": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15},
           "BatchNorm": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15},
           "Under20K": {"lr": 2e-3, "augment": LESSONS, "drop_at": 15}}
RATES = (0.002, 0.006, 0.02, 0.06)
SIX_PARTS = mh.Augment(mh.CenterCropResize(22, p=0.1), mh.Rotation(10), mh.Brightness(0.2), mh.Contrast(0.2),
                       mh.Translation(0.1), mh.Scale(0.9, 1.1))
TRAINED |= {"SixConvolutions": {"lr": 1e-3, "augment": SIX_PARTS, "drop_at": 15},
            "OptimizedMNISTNet": {"lr": 0.02, "augment": mh.Augment(mh.Rotation(10), mh.Translation(0.08),
                                                                    mh.Scale(0.9, 1.1)), "drop_at": None}}
ON_TEST = "SixConvolutions, one dropout"


def as_published(model):
    """Change nothing."""


def constant_rate(model):
    """The network stays, and `train_at_one_rate` leaves the schedule out."""


def no_norms(model):
    """Every batch norm passes its inputs on."""
    for name in [name for name, layer in model.named_children() if isinstance(layer, nn.BatchNorm2d)]:
        setattr(model, name, nn.Identity())


def one_norm_a_block(model):
    """Of the two norms round each ReLU, the one before it stays."""
    model.after1 = model.after2 = model.after3 = nn.Identity()


def no_dropout(model):
    model.dropout.p = 0.0


class LastOfThree(nn.Module):
    """Dropout in the third of three calls alone."""

    def __init__(self, p):
        super().__init__()
        self.p, self.calls = p, 0

    def forward(self, x):
        self.calls += 1
        return F.dropout(x, self.p, self.training) if self.calls % 3 == 0 else x


def one_dropout(model):
    """Of the three dropouts that `SixConvolutions` is said to have, its published code calls the last one."""
    model.dropout = LastOfThree(model.dropout.p)


def no_augmentation(model):
    """One dropout; and the network is trained on the images as they are."""
    one_dropout(model)


def wide_and_one_dropout(model):
    one_dropout(model)
    wide_convolutions(model)


def flattened(model, x):
    """`OptimizedMNISTNet`'s forward without the mean over the last map."""
    x = F.relu(model.norm1(model.conv1(x)))
    x = model.dropout(F.max_pool2d(F.relu(model.norm2(model.conv2(x))), 2))
    x = F.relu(model.norm3(model.conv3(x)))
    x = model.dropout(F.max_pool2d(F.relu(model.norm4(model.conv4(x))), 2))
    x = F.relu(model.norm5(model.conv5(x)))
    return model.linear(model.dropout(x.flatten(1)))


def no_average_pooling(model):
    """The classifier has weights of its own for each place of the last map."""
    model.linear, model.forward = nn.Linear(16 * 7 * 7, 10), types.MethodType(flattened, model)


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
    found.append(("TwentyEpochs, constant rate", "TwentyEpochs", constant_rate, 20, None))
    found.append(("TwentyEpochs, 3x3 for 1x1", "TwentyEpochs", wide_convolutions, 20, None))
    six, small = "SixConvolutions", "OptimizedMNISTNet"
    found += [(f"{six}, epochs: 1", six, as_published, 1, None), (f"{six}, no norms", six, no_norms, 1, None)]
    found += [(f"{small}, epochs: 5", small, as_published, 5, None), (f"{small}, no norms", small, no_norms, 5, None),
              (f"{small}, no average pooling", small, no_average_pooling, 5, None),
              (f"{small}, 3x3 for 1x1", small, wide_convolutions, 5, None),
              (f"{small}, epochs: 20", small, as_published, 20, None),
              (f"{small}, no dropout", small, no_dropout, 20, None)]
    found += [(ON_TEST, six, one_dropout, 19, None), (f"{six}, no augmentation", six, no_augmentation, 19, None),
              (f"{six}, no dropout", six, no_dropout, 19, None),
              (f"{six}, 3x3 for 1x1", six, wide_and_one_dropout, 19, None),
              (f"{six}, three dropouts", six, as_published, 19, None)]
    return found


def untrained(network, change):
    """A fresh network, changed; its weights are drawn as in its notebook."""
    model = type(mh.network(network))()
    change(model)
    return model.to(mh.get_device())


def digest(network, change, epochs, rate):
    """The digest of all that makes a run but its seed."""
    trained = {key: repr(value) for key, value in TRAINED[network].items()}
    code = [syntax(inspect.getsource(part)) for part in (change, trainer(network, change), type(mh.network(network)))]
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


def train_at_one_rate(network, change, epochs, rate, seed, dataset):
    """The `Run` of a variant of a lesson whose learning rate stays as it begins.

    Beside `train`, and not a case in it: its code is in the digest of all that it trained.
    """
    recipe = TRAINED[network]
    mh.set_seed(seed)
    model = untrained(network, change)
    return mh.fit(model, mh.Loader(dataset.train, batch_size=64, augment=recipe["augment"]), dataset.val,
                  epochs=epochs, optimizer=torch.optim.Adam(model.parameters(), lr=rate or recipe["lr"]))


def train_halved(network, change, epochs, rate, seed, dataset):
    """The `Run` of a variant of exercise 2: batches of 128, the rate halved after fifteen epochs."""
    recipe = TRAINED[network]
    mh.set_seed(seed)
    model = untrained(network, change).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate or recipe["lr"])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, recipe["drop_at"], gamma=0.5)
    augment = None if change is no_augmentation else recipe["augment"]
    return mh.fit(model, mh.Loader(dataset.train, batch_size=128, augment=augment), dataset.val, epochs=epochs,
                  optimizer=optimizer, scheduler=scheduler)


def train_one_cycle(network, change, epochs, rate, seed, dataset):
    """The `Run` of a variant of exercise 4: our recipe of ``challenges/six_requirements``, in float32."""
    recipe = TRAINED[network]
    mh.set_seed(seed)
    model = untrained(network, change).to(memory_format=torch.channels_last)
    batches = mh.Loader(dataset.train, batch_size=128, augment=recipe["augment"])
    optimizer = torch.optim.Adam(model.parameters(), lr=rate or recipe["lr"])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate or recipe["lr"], total_steps=epochs * len(batches), pct_start=0.2,
        anneal_strategy="linear", div_factor=10, final_div_factor=1_000, cycle_momentum=False)
    return mh.fit(model, batches, dataset.val, epochs=epochs, optimizer=optimizer, scheduler=mh.each_step(scheduler),
                  loss_fn=nn.CrossEntropyLoss(label_smoothing=0.1))


def trainer(network, change):
    if change is constant_rate:
        return train_at_one_rate
    return {"SixConvolutions": train_halved, "OptimizedMNISTNet": train_one_cycle}.get(network, train)


def shifted(images, pixels):
    """``(n, 1, 28, 28)``: image i moved right, left, down or up, by i modulo 4. What leaves comes in opposite."""
    moved = images.clone()
    for i, (step, axis) in enumerate([(pixels, 3), (-pixels, 3), (pixels, 2), (-pixels, 2)]):
        moved[i::4] = images[i::4].roll(step, axis)
    return moved


def thicker(images):
    """Each pixel as bright as the brightest of its 3 x 3."""
    return F.max_pool2d(images.float(), 3, 1, padding=1).to(images.dtype)


def variants_file():
    return data.project_root() / "results" / "variants.jsonl"


def measured(name, network, change, epochs, rate, seed, dataset):
    """Train a variant under one seed; return its record."""
    told = {"variant": name, "seed": seed, "epochs": epochs, "device": mh.device.describe(mh.get_device()),
            "parameters": count_parameters(untrained(network, change)),
            "recipe": digest(network, change, epochs, rate)}

    def more(run):
        def accuracy(*data, **options):
            return round(mh.evaluate(run.model, *data, **options).accuracy, 6)

        val, found = dataset.val, {}
        if name == ON_TEST:
            test = mh.evaluate(run.model, dataset.test)
            answers = test.logits.argmax(1)
            found = {"test_accuracy": round(test.accuracy, 6), "test_total": test.total,
                     "mistakes": {image: answers[image].item()
                                  for image in (answers != test.labels).nonzero().flatten().tolist()}}
        return {"val_curve": [round(value, 4) for value in run.history["val_accuracy"]],
                "train_accuracy": round(run.history["train_accuracy"][-1], 5),
                "augmented_train_accuracy": accuracy(dataset.train, augment=TRAINED[network]["augment"]),
                "clean_train_accuracy": accuracy(dataset.train),
                "shifted_val_accuracy": accuracy((shifted(val.images, 3), val.labels)),
                "thicker_val_accuracy": accuracy((thicker(val.images), val.labels)), **found}
    return lines.measured(told, lambda: trainer(network, change)(network, change, epochs, rate, seed, dataset), more)


def missing():
    """``[(variant, seed)]`` of all runs that the file lacks, the short ones first, seed by seed."""
    done = {(record["recipe"], record["seed"]) for record in files.read_records(variants_file(), {"recipe", "seed"})}
    return [(variant, seed) for epochs, seeds in SEEDS.items() for seed in range(FIRST_SEED, FIRST_SEED + seeds)
            for variant in variants() if variant[3] == epochs and (digest(*variant[1:]), seed) not in done]


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__.splitlines()[0])
    parser.add_argument("--share", nargs=2, type=int, default=(1, 1), metavar=("K", "N"),
                        help="every N-th missing run, from the K-th on (default: 1 1, all)")
    share, of = parser.parse_args().share
    mh.cpu.keep_freed_memory()
    dataset = lines.all_of_mnist(parser)
    lines.add(((variant[0], measured(*variant, seed, dataset))
               for variant, seed in missing()[share - 1::of]), variants_file())


if __name__ == "__main__":
    main()
