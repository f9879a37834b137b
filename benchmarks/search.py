"""The trials behind the challenges: networks and recipes, trained on the training and compared on the validation split.

    python -m benchmarks.search '{"net": "c5s2-16 c3-24 P c3-32 P flat", "epochs": 4}' --challenge mine --seeds 3

Every trial is appended to ``results/trials.jsonl``, the ones that led nowhere included; the test images are not opened.
With the environment variable ``TQDM_DISABLE=1`` there are no progress bars.

A network is a line of layers: ``c5s2-16`` is a 5x5 convolution of stride 2 to 16 channels, ``v3-8`` one without
padding, ``d3`` a depthwise one, each followed by batch norm and activation (``l1-8`` is a 1x1 convolution without);
``=`` applies the convolution before it once more, the same weights with a batch norm of their own, and with it the
one without batch norm in front of it (``l3g8-8 c1-8 =``). ``+`` adds the input of the layer before it to its output.
``S`` at the front straightens the images, as in the notebook of under 1,000 parameters. ``P`` pools 2x2, as a part of
``c3-24P`` it does so before the batch norm; ``D.1`` drops out, ``gap`` averages or ``flat`` flattens, and the
classifier follows.
Without ``rotation`` (0) there is no augmentation at all. The rate follows one cycle, or stays with ``"anneal":
"constant"``. With ``"shares": [1, 0.4]`` the first epoch takes all images and the second the 40 % with the largest
losses, as in the notebook of the speed run; with ``"at_random": true`` as well, as many images that are drawn at
random. With ``"teacher": {"net": ..., "members": 4}`` four networks of that configuration are trained first, and the
pupil learns from the mean of their opinions, softened by ``"temperature"``; ``"trust"`` is the share of that in its
loss, and labels have the rest. With a ``"seed"`` of their own, the same teachers serve pupils of all seeds.
"""

import argparse
import functools
import hashlib
import io
import json
import re
import types

import torch
import torch.nn.functional as F
from torch import nn

import mnist_helpers as mh
from mnist_helpers import checkpoint, data, files
from mnist_helpers.course import networks, notebooks, tables
from mnist_helpers.layers import count_parameters

DEFAULTS = {"epochs": 20, "batch": 128, "lr": 0.01, "optimizer": "adam", "weight_decay": 0.0, "warmup": 0.2,
            "smoothing": 0.0, "rotation": 10, "shift": 0.08, "scale": 0.1, "elastic": 0, "plain": 0,
            "activation": "relu", "precision": "bf16", "anneal": "linear", "div": 10}
OF_TEACHERS = {"members", "seed"}
OPTIONS = {*DEFAULTS, "net", "muon", "matrix", "teacher", "temperature", "trust", "shares", "at_random"}
ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class Muon(torch.optim.Adam):
    """Adam for vectors, the classifier and whatever else is no convolution; orthogonal steps for convolutions.

    The momentum of a convolution's weights, a matrix of a row for each output channel, is replaced by the orthogonal
    matrix nearest to it, so that every direction moves equally far. The weights keep their length (batch norm undoes
    it anyway), so that ``turn`` times the learning rate is how far they turn in a step.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), as in his airbench.
    """

    def __init__(self, params, lr, turn=3.0, momentum=0.8, **more):
        params = list(params)
        self.kernels = [p for p in params if p.ndim == 4]
        super().__init__([p for p in params if p.ndim != 4], lr=lr, **more)
        self.buffers, self.turn, self.momentum = [torch.zeros_like(p) for p in self.kernels], turn, momentum

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        rate = self.turn * self.param_groups[0]["lr"]
        for weight, buffer in zip(self.kernels, self.buffers, strict=True):
            buffer.lerp_(weight.grad, 1 - self.momentum)
            update = orthogonal(weight.grad.lerp(buffer, self.momentum).flatten(1))
            length = weight.norm()
            weight -= rate * length * (update / update.norm()).view_as(weight)
            weight *= length / weight.norm()

    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)
        for weight in self.kernels:
            weight.grad = None


def orthogonal(matrix, steps=4):
    """The orthogonal matrix near ``matrix``: fifth-order Newton-Schulz steps that bring the singular values near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-9)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


OPTIMIZERS = {"adam": functools.partial(torch.optim.Adam, fused=True),
              "adamw": functools.partial(torch.optim.AdamW, fused=True),
              "sgd": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
              "muon": Muon, "full matrix": mh.optim.FullMatrixAdam}
OWN = {"muon": "muon", "full matrix": "matrix"}  # the option that holds an optimiser's own settings
PRECISIONS = {"bf16": torch.bfloat16, "fp32": None}


class Residual(nn.Module):
    """What the layers make of the input, and the input itself, added (K. He et al., 2015)."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


def of_challenge(name):
    """The module of a challenge's notebook, for what it defines."""
    return networks.module_of(notebooks.folder() / "challenges" / f"{name}.ipynb")


def network(line, activation="relu"):
    """The module of a line of layers; see the module's docstring."""
    layers, channels, side, activation = [], 1, 28, ACTIVATIONS[activation]
    for word in line.split():
        if word == "P":
            layers.append(nn.MaxPool2d(2))
            side //= 2
        elif word == "=":
            inner = [module for module in nn.Sequential(*layers).modules() if not [*module.children()]]
            last = max(place for place, module in enumerate(inner) if isinstance(module, nn.Conv2d))
            pair = isinstance(inner[last - 1], nn.Conv2d)
            layers += [*inner[last - pair:last + 1], nn.BatchNorm2d(channels), activation()]
        elif word == "+":
            if len(layers) < 3 or not isinstance(layers[-3], nn.Conv2d):
                raise ValueError("+ follows a convolution, with nothing in between")
            layers[-3:] = [Residual(*layers[-3:])]
        elif word == "S":
            layers.append(of_challenge("under_1000").Straighten())
        elif word == "gap":
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            side = 1
        elif word == "flat":
            layers.append(nn.Flatten())
        elif word[0] == "D":
            layers.append(nn.Dropout(float(word[1:])))
        else:
            pattern = r"([cvdl])(\d)(?:s(\d))?(?:g(\d+))?(?:-(\d+))?(P)?"
            if not (match := re.fullmatch(pattern, word)):
                raise ValueError(f"{word!r} is no layer: see the docstring of benchmarks/search.py")
            kind, kernel, stride, groups, out, pooled = match.groups()
            kernel, stride, out = int(kernel), int(stride or 1), int(out or channels)
            padding = 0 if kind == "v" else kernel // 2
            layers.append(nn.Conv2d(channels, out, kernel, stride, padding, bias=False,
                                    groups=channels if kind == "d" else int(groups or 1)))
            channels, side = out, (side + 2 * padding - kernel) // stride + 1
            if pooled:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            if kind != "l":
                layers += [nn.BatchNorm2d(out), activation()]
    return nn.Sequential(*layers, nn.Linear(channels * side * side, 10))


def distillation(model, teachers, temperature=3.0, trust=0.5):
    """A loss for ``model``: the cross-entropy with the labels and, of weight ``trust``, that with the mean of the
    teachers' softened opinions.

    Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the knowledge in a neural network" (2015).
    """
    seen = {}
    model.register_forward_pre_hook(lambda module, inputs: seen.update(images=inputs[0]))

    def loss_fn(logits, targets):
        loss = F.cross_entropy(logits, targets)
        if not model.training:
            return loss
        with torch.no_grad(), torch.autocast(logits.device.type, torch.bfloat16):
            opinions = [(teacher(seen["images"]).float() / temperature).softmax(1) for teacher in teachers]
        opinion = torch.stack(opinions).mean(0)
        return (1 - trust) * loss + trust * temperature**2 * F.cross_entropy(logits / temperature, opinion)

    return loss_fn


def taught(config, seed, dataset):
    """The teachers of a configuration, under the seeds from ``1000 * seed`` on where there are several."""
    members, seed = config.get("members", 1), config.get("seed", seed)
    config = {option: value for option, value in config.items() if option not in OF_TEACHERS}
    return [_taught(config, seed if members == 1 else 1000 * seed + each, dataset) for each in range(members)]


def _taught(config, seed, dataset):
    """A teacher, trained once for each seed and state of the package, kept in ``results/teachers``."""
    what = json.dumps([DEFAULTS | config, seed, checkpoint.package_digest()], sort_keys=True)
    path = data.project_root() / "results" / "teachers" / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.pt"
    with torch.random.fork_rng():  # the pupil's draws must not depend on who trained the teacher
        model = network(config["net"], (DEFAULTS | config)["activation"])
        if not path.exists():
            content = io.BytesIO()
            torch.save(train(config, seed, dataset).model.cpu().state_dict(), content)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_file(path, content.getvalue())
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval().to(mh.get_device(), memory_format=torch.channels_last)


def at_random(batches):
    """An `order` for the speed run's ``Hardest``: as many images, whatever they cost, in another draw each epoch."""
    draw = torch.randperm(len(batches.losses), generator=batches.generator, device=batches.losses.device)
    batches.now = draw[:round(batches.shares[batches.epoch] * len(draw))]
    batches.epoch, batches.seen = batches.epoch + 1, 0
    return batches.now


def trial(given, seed, dataset):
    """Train the configuration ``given``, as far as it differs from the defaults, under one seed; return its record."""
    record = {"given": given, "config": DEFAULTS | given, "seed": seed,
              "parameters": count_parameters(network(given["net"])), "threads": torch.get_num_threads(),
              "device": mh.device.describe(mh.get_device())}
    try:
        run = train(given, seed, dataset)
    except mh.train.TrainingDiverged as error:
        return record | {"val_accuracy": None, "train_loss": None, "diverged": str(error),
                         "seconds": round(sum(error.history["seconds"]), 1)}
    history = run.history
    return record | {"val_accuracy": round(history["val_accuracy"][-1], 4), "val_curve": history["val_accuracy"],
                     "val_cross_entropy": round(mh.evaluate(run.model, dataset.val).loss, 5),
                     "train_loss": history["train_loss"][-1],
                     "train_cross_entropy": round(mh.evaluate(run.model, dataset.train).loss, 5),
                     "seconds": round(sum(history["seconds"]), 1)}


def check(given):
    """Raise `ValueError` if ``given`` is no configuration that can be trained."""
    if not isinstance(given, dict) or "net" not in given:
        raise ValueError(f"{given!r} is no configuration: a JSON object with a \"net\"")
    if unknown := set(given) - OPTIONS:
        raise ValueError(f"there is no option {', '.join(sorted(unknown))}; there are {', '.join(sorted(OPTIONS))}")
    config = DEFAULTS | given
    for option, known in (("optimizer", OPTIMIZERS), ("activation", ACTIVATIONS), ("precision", PRECISIONS),
                          ("anneal", ("linear", "cos", "constant"))):
        if config[option] not in known:
            raise ValueError(f"there is no {option} {config[option]!r}; there are {', '.join(known)}")
    if others := set(given) & set(OWN.values()) - {OWN.get(config["optimizer"])}:
        raise ValueError(f"{', '.join(sorted(others))}: not for the optimizer {config['optimizer']!r}")
    try:
        model = network(config["net"], config["activation"])
        model.eval()(torch.zeros(1, 1, 28, 28))
    except RuntimeError as error:  # PyTorch's, of shapes that do not fit
        raise ValueError(f"{config['net']!r} is no network: {error}") from error
    try:
        optimizer_of(config, model)
    except TypeError as error:  # of an argument that there is not
        raise ValueError(f"{config['optimizer']} with these settings: {error}") from error
    if "shares" in given and ("teacher" in given or len(given["shares"]) != config["epochs"]):
        raise ValueError("shares are one for each epoch, and go with no teacher")
    if "at_random" in given and "shares" not in given:
        raise ValueError("at_random says how the images of shares are chosen, and there are no shares")
    if "teacher" in given:
        check({option: value for option, value in given["teacher"].items() if option not in OF_TEACHERS})
    elif alone := {"temperature", "trust"} & set(given):
        raise ValueError(f"{', '.join(sorted(alone))}: not without a teacher")


def optimizer_of(config, model):
    # FullMatrixAdam has no weight decay, and refuses one; AdamW's own default is not 0.
    without = config["optimizer"] == "full matrix" and not config["weight_decay"]
    own = config.get(OWN.get(config["optimizer"]), {}) | ({} if without else {"weight_decay": config["weight_decay"]})
    return OPTIMIZERS[config["optimizer"]](model.parameters(), lr=config["lr"], **own)


def train(given, seed, dataset):
    """The `Run` that trained a configuration's network. Raises `ValueError` as `check` does."""
    check(given)
    config = DEFAULTS | given
    mh.set_seed(seed)
    model = network(config["net"], config["activation"]).to(mh.get_device(), memory_format=torch.channels_last)
    optimizer = optimizer_of(config, model)
    augment = mh.Augment(mh.Rotation(config["rotation"]), mh.Translation(config["shift"]),
                         mh.Scale(1 - config["scale"], 1 + config["scale"]),
                         *([mh.Elastic(config["elastic"])] if config["elastic"] else []))

    def early(images, generator):
        """Augmentation that ends where the last part of the training, ``plain``, begins."""
        return augment(images, generator) if scheduler.last_epoch < augmented else images

    options = {"augment": early, "precision": PRECISIONS[config["precision"]], "batch_size": config["batch"]}
    if "shares" in config:
        notebook = of_challenge("speed_run")
        batches = notebook.Hardest(dataset.train, config["shares"], **options)
        if config.get("at_random"):
            batches.order = types.MethodType(at_random, batches)
        loss_fn = notebook.noting(batches, config["smoothing"])
    else:
        batches = mh.Loader(dataset.train, **options)
        loss_fn = functools.partial(F.cross_entropy, label_smoothing=config["smoothing"])
    steps = batches.steps(config["epochs"])
    augmented = steps * (1 - config["plain"]) if config["rotation"] else 0
    if config["anneal"] == "constant":
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config["lr"], total_steps=steps, pct_start=config["warmup"], cycle_momentum=False,
            anneal_strategy=config["anneal"], div_factor=config["div"], final_div_factor=1000)
    if "teacher" in config:
        told = {option: config[option] for option in ("temperature", "trust") if option in config}
        loss_fn = distillation(model, taught(config["teacher"], seed, dataset), **told)
    with mh.cpu.contiguous_norms(model):
        return mh.fit(model, batches, dataset.val, epochs=config["epochs"], optimizer=optimizer,
                      scheduler=mh.each_step(scheduler), loss_fn=loss_fn)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", type=json.loads, help="a JSON object: what differs from the defaults")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--challenge", default="", help="the challenge the trial belongs to")
    parser.add_argument("--why", default="", help="what it is to find out")
    options = parser.parse_args()
    try:
        for config in options.configs:
            check(config)
    except ValueError as error:
        parser.error(str(error))
    mh.cpu.keep_freed_memory()
    dataset = mh.load_mnist(verbose=False)
    if (dataset.name, dataset.profile) != ("mnist", "full"):
        parser.error(f"trials are made on all of MNIST, and this is {dataset}")
    for config in options.configs:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            run = trial(config, seed, dataset) | {"challenge": options.challenge, "why": options.why}
            files.append_line(tables.trials_file(), json.dumps(run))
            reached = run.get("diverged") or f"{run['val_accuracy']:.2%} {run['val_cross_entropy']:.4f}"
            print(f"{run['parameters']:,} {reached} {run['seconds']:.0f} s seed {seed} {json.dumps(config)}",
                  flush=True)


if __name__ == "__main__":
    main()
