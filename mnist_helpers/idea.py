"""An idea of one's own: trained over seeds, measured on the validation images, and kept.

Every training is a line of ``results/ideas.jsonl``, those that led nowhere included, and its weights lie in
``results/ideas/``; both may lie in the folder that ``MNIST_IDEAS`` names instead. git ignores them; runs of the command
line have a folder of their own. An idea has a number, by the order in which the ideas were first tried.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from pathlib import Path

import torch
import torch.nn.functional as F

from . import checkpoint, files
from .data import Split, load_mnist, project_root
from .device import get_device, set_seed
from .loader import Loader
from .recipe import recipe as tell_recipe
from .recipe import weights_digest
from .run import Run
from .stats import Mean, mean_over_seeds
from .train import TrainingDiverged, fit

KEYS = frozenset({"idea", "seed"})  # of every line
NO_PART_OF_IT = ("seed", "device", "precision")  # of a recipe: an idea is the same under each


@dataclass(frozen=True)
class Recipe:
    """What a training needs besides its seed."""

    name: str  #: the class of the lesson's network that it began with
    network: Callable[[], torch.nn.Module]  #: a class, or a function that makes a fresh network
    optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer]  #: of the network
    epochs: int
    scheduler: Callable | None = None  #: of the optimiser; or of it and the number of steps of the whole training
    augment: Callable | None = None  #: of a batch of images; see `Loader`
    batch_size: int = 64
    loss_fn: Callable = F.cross_entropy
    images: int | Split | tuple | None = None  #: the first so many training images, or others; by default all

    def but(self, **changes) -> "Recipe":
        """The same recipe with these parts replaced. Raises `ValueError` for a part that there is not."""
        parts = [each.name for each in fields(self) if each.name != "name"]
        if unknown := set(changes) - set(parts):
            raise ValueError(f"a recipe has no {min(unknown)!r} to change; its parts are {', '.join(parts)}")
        return replace(self, **changes)


@dataclass
class Idea:
    """An idea that was tried: `runs` has a `Run` for each seed whose training did not diverge."""

    number: int
    note: str
    key: str = field(repr=False)  #: the same for the same recipe, whatever the seed
    runs: list[Run] = field(repr=False)

    @property
    def model(self) -> torch.nn.Module:
        """The network of the first seed, in eval mode."""
        return self.runs[0].model

    @property
    def accuracies(self) -> dict[int, float]:
        """The validation accuracy after the last epoch, by seed."""
        return {run.card["seed"]: run.history["val_accuracy"][-1] for run in self.runs if run.history["val_accuracy"]}

    @property
    def mean(self) -> Mean:
        return mean_over_seeds(self.accuracies.values())

    def __repr__(self):
        if not self.accuracies:
            return f"idea {self.number}, {self.note}: no training came to its end"
        card = self.runs[0].card
        return (f"idea {self.number}, {self.note}: {card['model']}, {card['parameters']:,} parameters, validation "
                f"accuracy {self.mean} %")


def try_idea(recipe: Recipe, *, note: str, seeds: int | Iterable[int] = 3, profile: str | None = None,
             **changes) -> Idea:
    """Train ``recipe`` with ``changes`` under each of ``seeds`` (3 for 0, 1 and 2), measure it on the validation
    images, log it, and return the `Idea`. ``note`` says in a few words what is tried, and why.

    The test images are not opened. ``changes`` are parts of `Recipe`: ``network=MyNetwork``, ``epochs=5``,
    ``optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1)``. A training that was interrupted goes on
    from its last whole epoch when the same line is run again, and one that is in the log is not trained again.
    ``profile`` is as for `load_mnist`.

    Raises `ValueError` for arguments that make no sense, and what `fit` raises, but for `TrainingDiverged`: that is
    logged, and the next seed is trained.
    """
    recipe, seeds = recipe_with(recipe, changes), seeds_of(seeds)
    if not str(note).strip():
        raise ValueError("say in `note` what you try and why: a log without words tells nothing next week")
    mnist, runs, key = load_mnist(profile=profile, verbose=False), [], ""
    for seed in seeds:
        model, train, options = prepared(recipe, mnist, seed)
        told = tell_recipe(model=model, train=train, val=None, **options)
        key = _digest(told, mnist.epochs(recipe.epochs))
        done = logged().get(key, {}).get(seed)
        run = _kept(done, model) if done else None
        if run is None and not (done and "diverged" in done):
            try:
                with on_one_line():
                    run = _trained(key, seed, model, train, mnist, recipe, options)
            except TrainingDiverged as error:
                done = _line(key, note, recipe, told, mnist, seed, model, train) | {"diverged": str(error)}
                files.append_line(log_file(), json.dumps(done))
            if run and not done and mnist.profile != "trace":
                files.append_line(log_file(), json.dumps(
                    _line(key, note, recipe, told, mnist, seed, model, train) | _measured(run)))
        print(f"{note}, seed {seed}: {_said(run, done)}")
        runs += [run] if run else []
    every = list(logged())
    number = every.index(key) + 1 if key in every else 0  # 0 where nothing is logged
    return Idea(number, _first_note(key) or note, key, runs)


def _said(run, line):
    if not run:
        return line["diverged"]
    accuracies = run.history["val_accuracy"]
    return f"{accuracies[-1]:.2%} of the validation images" if accuracies else "its first steps"


@contextlib.contextmanager
def on_one_line():
    """What is printed within it, such as a bar for each epoch, is written over the line before, and wiped at the end;
    the last line of what fails stays."""
    out = sys.stdout

    class OneLine:
        def __getattr__(self, name):
            return getattr(out, name)

        def write(self, text):
            return out.write(text.replace("\n", "\r"))

    try:
        with contextlib.redirect_stdout(OneLine()):
            yield
    except BaseException:
        print(flush=True)
        raise
    print("\r" + 79 * " ", end="\r", flush=True)


def recipe_with(recipe, changes) -> Recipe:
    """A recipe, changed. Raises `ValueError` for what is none, and for networks that exist already."""
    if not isinstance(recipe, Recipe):
        raise ValueError("the first argument is the recipe that your idea changes, such as mh.recipe_of(3), that of "
                         "lesson 3")
    recipe = recipe.but(**changes)
    if isinstance(recipe.network, torch.nn.Module) or not callable(recipe.network):
        raise ValueError("`network` is a class, or a function that makes a network, without its brackets: each seed "
                         "begins with fresh weights")
    for part in ("optimizer", "scheduler"):
        given = getattr(recipe, part)
        if not callable(given) and (part == "optimizer" or given is not None):
            example = "model: torch.optim.SGD(model.parameters(), lr=0.1)" if part == "optimizer" else (
                "optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 15)")
            raise ValueError(f"`{part}` is a function that makes one for each seed, such as lambda {example}")
    return recipe


def seeds_of(seeds) -> list[int]:
    """3 as 0, 1 and 2; others as they are, each once. Raises `ValueError` for none."""
    seeds = list(dict.fromkeys(range(seeds) if isinstance(seeds, int) else seeds))
    if not seeds or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise ValueError("`seeds` is how many, such as 3, or which, such as [0, 1, 2]")
    return seeds


def prepared(recipe: Recipe, mnist, seed: int):
    """``(model, loader, options of fit)``, made in the order in which the lessons make them, so that a lesson's own
    recipe has its draws."""
    device = get_device()
    set_seed(seed)
    model = recipe.network()
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"`network` made a {type(model).__name__}: it has to return an nn.Module")
    model = model.to(device)
    optimizer = recipe.optimizer(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"`optimizer` made a {type(optimizer).__name__}: it has to return an optimiser of "
                         "PyTorch, made from model.parameters()")
    train = Loader(images_of(recipe.images, mnist), recipe.batch_size, augment=recipe.augment)
    scheduler = recipe.scheduler
    if scheduler is not None:
        steps = len(train) * mnist.epochs(recipe.epochs)
        scheduler = scheduler(optimizer, *[steps] * (len(signature(scheduler).parameters) > 1))
    return model, train, {"optimizer": optimizer, "scheduler": scheduler, "loss_fn": recipe.loss_fn}


def images_of(images, mnist):
    """What a recipe trains on. Raises `ValueError` for the images that measure it."""
    if images is None:
        return mnist.train
    if isinstance(images, int):
        if images < 1:
            raise ValueError(f"`images` is how many training images to take, at least 1, not {images}")
        return mnist.train[:images]
    if getattr(images, "name", "train") != "train":
        raise ValueError(f"these are the {images.name} images: train on mnist.train, or the measure means nothing")
    return images


def _trained(key, seed, model, train, mnist, recipe, options):
    path = folder() / f"{key}-s{seed}.pt"
    try:
        run = fit(model, train, mnist.val, epochs=mnist.epochs(recipe.epochs), checkpoint=path, **options)
    except checkpoint.CheckpointError as error:
        raise checkpoint.CheckpointError(f"{error} Or delete the file: seed {seed} then begins anew.") from None
    if mnist.profile != "trace":
        folder().mkdir(parents=True, exist_ok=True)
        checkpoint.keep(run, folder())
    path.unlink(missing_ok=True)
    return run


def _kept(line, model):
    """The `Run` of a line of the log, or None where its weights are gone."""
    path = folder() / f"{line.get('run')}.safetensors"
    if not path.is_file():
        return None
    kept = checkpoint.read_kept(path)
    model.load_state_dict(kept["weights"])
    return Run(model.eval(), kept["history"], kept["batch_loss"], kept["card"], line["run"], weights_digest(model))


# ---------------------------------------------------------------- the log


def _base() -> Path:
    """The folder of the log: the command line's, else what ``MNIST_IDEAS`` names, else ``results``."""
    return Path(os.environ.get("MNIST_COLLECT") or os.environ.get("MNIST_IDEAS") or project_root() / "results")


def folder() -> Path:
    """Where weights are kept, and from where an interrupted training goes on."""
    return _base() / "ideas"


def log_file() -> Path:
    return _base() / "ideas.jsonl"


def logged(looks: bool = False) -> dict[str, dict[int, dict]]:
    """``{idea: {seed: line}}`` of the log, ideas in the order of their numbers; with ``looks`` the looks at the test
    images instead, in lists."""
    found = {}
    for line in files.read_records(log_file(), KEYS):
        if looks and "test_accuracy" in line:
            found.setdefault(line["idea"], []).append(line)
        elif not looks and "test_accuracy" not in line:
            found.setdefault(line["idea"], {}).setdefault(line["seed"], line)
    return found


def note_look(idea: Idea, accuracies: dict[int, float]) -> None:
    """Log one look at the test images: the accuracy of each seed."""
    files.append_line(log_file(), json.dumps({"idea": idea.key, "seed": None, "test_accuracy": accuracies}))


def _first_note(key):
    return next((line["note"] for line in logged().get(key, {}).values()), "")


def _digest(told, epochs):
    shared = {name: text for name, text in told.items() if name not in NO_PART_OF_IT}
    return hashlib.sha256(json.dumps([shared, epochs], sort_keys=True).encode()).hexdigest()[:12]


def _line(key, note, recipe, told, mnist, seed, model, train):
    """What a line says of a training before it begins."""
    return {"idea": key, "note": str(note).strip(), "lesson": recipe.name, "model": type(model).__name__,
            "parameters": sum(p.numel() for p in model.parameters()), "seed": seed,
            "epochs": mnist.epochs(recipe.epochs), "images": len(train.labels), "dataset": mnist.name,
            "profile": "full" if mnist.profile == "recorded" else mnist.profile, "recipe": told}


def _measured(run):
    curve = [round(accuracy, 6) for accuracy in run.history["val_accuracy"]]
    return {"run": run.id, "val_accuracy": curve[-1], "val_curve": curve,
            "seconds": round(sum(run.history["seconds"]), 1)}
