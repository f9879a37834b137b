"""Keeping a run: going on where it stopped, and replaying one that was recorded."""

import copy
import hashlib
import io
import json
import random
import tempfile
import types
import warnings
import weakref
import zipfile
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError

import filelock
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch.utils.data import DataLoader, IterableDataset

from .data import project_root
from .device import device_of, random_state, set_random_state
from .files import replace_file
from .loader import Loader
from .recipe import differences, package_digest

TRACE_STEPS = 100  # that a recorded training is compared over
COME_AND_GO = {"verbose", "_is_initial"}  # in a scheduler's state, up to PyTorch 2.6 and since 2.7; no arithmetic


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used here: damaged, in use, not to be written, or made by another model or recipe."""


def digest(content) -> str:
    """SHA-256 of nested dicts, lists, tensors and plain values, to the bit."""
    found = hashlib.sha256()

    def add(value):
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict | list | tuple):
            found.update(f"{len(value)} {'of' if isinstance(value, dict) else 'in'} ".encode())
            for each in (part for item in value.items() for part in item) if isinstance(value, dict) else value:
                add(each)
        else:
            found.update(f"{type(value).__name__} {value!r} ".encode())

    add(content)
    return found.hexdigest()


# ---------------------------------------------------------------- going on where a run stopped


class Checkpoint:
    """The file at ``path`` from which `run` can go on: everything that its training changes.

    Warns if the batches come from what cannot be put back. Raises `CheckpointError` if nothing can be written there, or
    another process trains with it.
    """

    def __init__(self, path: str | Path, run, optimizer, scheduler, train, val):
        try:
            self.path = Path(path).expanduser()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path.parent).close()  # before the first epoch, and not after it
        except (OSError, RuntimeError) as error:  # RuntimeError: ~ of a user that does not exist
            raise CheckpointError(f"no checkpoint can be written to {path}: {error}. Use another path.") from error
        self.run, self.batches = run, {"training": train, "validation": val}
        if why := "; ".join(f"the {name} batches come from {text}" for name, batches in self.batches.items()
                            if (text := not_kept(batches))):
            warnings.warn(MAY_DIFFER + why, stacklevel=4)
        self.parts = {"model": run.model, "optimizer": optimizer}
        if scheduler is not None:
            self.parts["scheduler"] = scheduler
        self._lock()

    def _lock(self):
        """Keep other processes away for as long as this object lives; this process may come again."""
        path = self.path.resolve()
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CheckpointError(f"{self.path} is in use by another process: give this training a path of its own, or "
                                  "end the other one (a notebook's kernel holds it until it is restarted).") from None
        except (OSError, NotImplementedError):  # a file system without locks, such as a mounted drive
            return
        weakref.finalize(self, lock.release)

    def save(self) -> None:
        """Write it in one step, so that being killed here leaves the previous one. Where it cannot be written, for the
        disk is full, the training goes on with a warning: it can be written after the next epoch."""
        content = {name: part.state_dict() for name, part in self.parts.items()}
        content |= {"start": self.run.card["start"], "recipe": self.run.card["recipe"],
                    "history": self.run.history, "batch_loss": self.run.batch_loss,
                    "generator": {path: each.get_state() for path, each in self._generators().items()},
                    "random_state": random_state(device_of(self.run.model))}
        buffer = io.BytesIO()  # in memory first: an interrupt or a full disk then leaves nothing half done
        torch.save(content | {"digest": digest(content)}, buffer)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, buffer.getvalue())
        except OSError as error:
            warnings.warn(f"after epoch {len(self.run.history['seconds'])} the checkpoint {self.path} could not be "
                          f"written: {error.strerror or error}. The training goes on; the file is as it was before",
                          stacklevel=3)

    def resume(self, epochs: int) -> None:
        """Load it into the run's parts. Raises `CheckpointError`, and leaves the file and the parts, if it does not
        fit."""
        content, path = self._read(), self.path
        # Hooks may only look on; whether they do is the reader's to know.
        theirs, ours = ({name: text for name, text in recipe.items() if name != "hooks"}
                        for recipe in (content["recipe"], self.run.card["recipe"]))
        if lines := differences(theirs, ours):
            raise CheckpointError(f"{path} was made by another run:\n" + "\n".join(lines) +
                                  "\nUse another path for this one; the file stays as it is.")
        done = len(content["history"]["seconds"])
        if done > epochs:
            raise CheckpointError(f"{path} has {done} epochs, and {epochs} were asked for. Use another path.")
        if missing := set(self.parts) - set(content):
            raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}. Use another path; it stays as it is.")
        device = device_of(self.run.model)
        before = copy.deepcopy({name: part.state_dict() for name, part in self.parts.items()})
        state = random_state(device)
        try:
            for name, part in self.parts.items():
                if set(content[name]) - COME_AND_GO != set(before[name]) - COME_AND_GO:
                    raise ValueError(f"the state of the {name} has other parts")
                if set(content[name]) != set(before[name]):
                    content[name] = {key: content[name].get(key, ours) for key, ours in before[name].items()}
                part.load_state_dict(content[name])
            missing = self._set_generators(content["generator"])
            set_random_state(content["random_state"], device)
        except Exception as error:  # made by another version of PyTorch, for example
            for name, part in self.parts.items():
                part.load_state_dict(before[name])
            set_random_state(state, device)
            raise CheckpointError(f"{path} does not fit this training ({type(error).__name__}: {error}). Use another "
                                  "path; the file stays as it is.") from error
        if missing:
            warnings.warn(MAY_DIFFER + f"{missing} is a random generator that is made after the start: make it before",
                          stacklevel=4)
        self.run.history, self.run.batch_loss = content["history"], content["batch_loss"]
        self.run.card["start"] = content["start"]  # of the training that was stopped, not of this call
        self.run.id = identity(self.run.model, self.run.card["recipe"], epochs, content["start"])
        print(f"going on from {path.name}: {done} of {epochs} epochs are done")

    def _generators(self):
        return {path: each for path, each in generators_of(self.batches).items() if isinstance(each, torch.Generator)}

    def _set_generators(self, states):
        """Put back the states of the loaders' generators; returns the name of one that is no longer there, or ""."""
        if isinstance(states, torch.Tensor):  # release 1.0 kept that of the training loader alone
            self.batches["training"].generator.set_state(states)
            return ""
        for name, batches in self.batches.items():
            if isinstance(batches, Loader) and batches.generator is None and f"{name}.generator" in states:
                batches.restart()  # which would do so in its first epoch, and is to go on in a later one
        ours = self._generators()
        if lost := set(ours) - set(states):
            raise ValueError(f"the state of {min(lost)} is missing")
        for path in set(ours) & set(states):
            ours[path].set_state(states[path])
        return min(set(states) - set(ours), default="")

    def _read(self):
        if not self.path.is_file():
            raise CheckpointError(f"{self.path} is no file: give the path of a checkpoint, or of one to make.")
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load compares no checksums
                if any(entry.compress_type for entry in archive.infolist()):
                    raise ValueError("it is compressed")
                if damaged := archive.testzip():
                    raise ValueError(f"{damaged} has another checksum")
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            if content.pop("digest") != digest(content):
                raise ValueError("its content has another digest")
            _check_structure(content)
        except Exception as error:  # torch.load raises whatever the damage makes it stumble over
            # PyTorch's own text, of many lines, advises to load without this protection.
            why = "it holds other objects than tensors, numbers and texts" if isinstance(error, UnpicklingError) else (
                f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            raise CheckpointError(f"{self.path} is not a checkpoint of `fit`, or is damaged ({why}). Use another path; "
                                  "this file stays as it is.") from error
        return content


def _check_structure(content):
    """Raise an exception of some kind unless a checkpoint has the parts of one."""
    columns, epochs = content["history"].values(), len(content["history"]["seconds"])
    if any(not isinstance(column, list) or len(column) != epochs for column in columns):
        raise ValueError("its history has columns of several lengths")
    numbers = [content["batch_loss"], *columns]
    if not all(isinstance(column, list) and all(isinstance(value, int | float) for value in column)
               for column in numbers):
        raise ValueError("its history holds what is no number")
    if set(content["start"]) != {"draws", "weights"} or not {"generator", "random_state"} <= set(content):
        raise ValueError("a part of it is missing")
    content["recipe"].items()


# ---------------------------------------------------------------- what batches draw from

MAY_DIFFER = "a training that goes on from this checkpoint may differ from one without a stop: "
RANDOM = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
MANY = 32  # a list of transforms is shorter, and one of images is longer: it need not be read to its end
OPAQUE = (torch.Tensor, np.ndarray, str, type, types.ModuleType, types.FunctionType)  # hold no generator of interest


def generators_of(thing) -> dict:
    """``{path: generator}`` of the random generators, PyTorch's and others, that a loader reaches through its
    attributes: its own, its sampler's, those of its dataset and transforms. Each is named once."""
    found, seen, todo = {}, set(), [("", thing)]
    for path, value in todo:  # which grows: the shortest path is the first
        if id(value) in seen or path.count(".") > 10 or isinstance(value, OPAQUE):
            continue
        seen.add(id(value))
        if isinstance(value, RANDOM):
            found[path.strip(".")] = value
        elif isinstance(value, dict):
            todo += [(f"{path}.{name}", each) for name, each in islice(value.items(), MANY)]
        elif isinstance(value, list | tuple):
            todo += [(f"{path}.{number}", each) for number, each in enumerate(value[:MANY])]
        elif hasattr(value, "__dict__"):  # workers that stay are in `_iterator`
            todo += [(f"{path}.{name}", each) for name, each in sorted(vars(value).items()) if name != "_iterator"]
    return found


def not_kept(batches) -> str:
    """Where batches come from that a checkpoint cannot put back, and the remedy; "" where it can. PyTorch seeds workers
    of each epoch anew from a random state that is kept, but those that stay have states in other processes."""
    if batches is not None and type(batches) not in (Loader, DataLoader, list, tuple):
        return f"a {type(batches).__name__}, which may keep a state of its own: use mh.Loader or a DataLoader"
    theirs, workers = generators_of(batches), getattr(batches, "num_workers", 0)
    if isinstance(batches, DataLoader):
        samplers = [batches.sampler, batches.batch_sampler, getattr(batches.batch_sampler, "sampler", None)]
        for each in [*samplers, *[batches.dataset] * isinstance(batches.dataset, IterableDataset)]:
            if type(each).__module__ not in ("builtins", "torch.utils.data.sampler", "torch.utils.data.dataloader"):
                return (f"a {type(each).__name__}, which may keep a state of its own: use a dataset with a length, and "
                        "one of PyTorch's samplers")
        if batches.persistent_workers:
            return "workers that stay, whose random states cannot be read: leave persistent_workers out"
        if workers and not getattr(batches, "in_order", True):
            return "workers in no fixed order: leave in_order out"
    # Workers draw from copies of the dataset's generators, the same in each epoch.
    other = [path for path, each in theirs.items() if not isinstance(each, torch.Generator)
             and not (workers and path.startswith("dataset"))]
    return f"draws of {other[0]}, whose state is not kept: use a torch.Generator there" if other else ""


# ---------------------------------------------------------------- replaying a recorded run

MACHINE = ("device", "precision")  # of a recipe: what the machine decides, and a replay does not ask about


def kept_folder() -> Path:
    """Where the weights and histories of recorded runs are kept."""
    return project_root() / "results" / "kept"


def starting_point(model, loader) -> dict:
    """Where a training begins: the order of the images, and each tensor's mean and mean square."""
    generator = getattr(loader, "generator", None)
    return {"draws": None if generator is None else generator.initial_seed(),
            "weights": {name: [value.double().mean().item(), value.double().square().mean().item()]
                        for name, value in model.state_dict().items() if value.is_floating_point()}}


def same_start(theirs: dict, ours: dict) -> bool:
    """Whether two starting points are the same, up to rounding on another processor."""
    return theirs["draws"] == ours["draws"] and set(theirs["weights"]) == set(ours["weights"]) and all(
        abs(a - b) <= 1e-5 + 1e-3 * abs(b) for name in theirs["weights"]
        for a, b in zip(theirs["weights"][name], ours["weights"][name], strict=True))


def identity(model, recipe: dict, epochs: int, start: dict) -> str:
    """The name of a run: model, seed, and a digest of the recipe without what the machine decides."""
    shared = {name: text for name, text in recipe.items() if name not in MACHINE}
    text = json.dumps([shared, epochs, start["draws"]], sort_keys=True)
    return f"{type(model).__name__}-s{recipe['seed']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def keep(run, folder: Path) -> Path:
    """Write what a replay of a run needs, ``<run.id>.safetensors``; return its path."""
    # A layer used in two places is in the state twice; safetensors refuses two names for one memory, so clones.
    tensors = {f"weights.{name}": value.detach().cpu().clone(memory_format=torch.contiguous_format)
               for name, value in run.model.state_dict().items()}
    tensors["batch_loss"] = torch.tensor(run.batch_loss)
    told = json.dumps({"card": run.card, "history": run.history})
    path = Path(folder) / f"{run.id}.safetensors"
    replace_file(path, save(tensors, {"run": told, "digest": kept_digest(told, tensors)}))
    return path


def kept_digest(told: str, tensors: dict) -> str:
    """Of all that a kept file holds, since safetensors has no checksum."""
    return digest([told, {name: tensors[name] for name in sorted(tensors)}])


def read_kept(path: Path) -> dict:
    """``weights``, ``batch_loss``, ``history`` and ``card`` of a kept run. Raises `CheckpointError` if damaged."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # Those kept before the digest was written into each file have theirs in a file beside them.
        expected = header.get("digest") or _digests(Path(path).parent).get(Path(path).stem)
        if expected and expected != kept_digest(header["run"], tensors):
            raise ValueError("its content has another digest")
        content = json.loads(header["run"])
        return {"card": content["card"], "history": content["history"],
                "batch_loss": tensors.pop("batch_loss").tolist(),
                "weights": {name.removeprefix("weights."): value for name, value in tensors.items()}}
    except Exception as error:  # whatever the damage makes the readers stumble over
        raise CheckpointError(f"{path} is no kept run, or is damaged ({type(error).__name__}: {error})") from error


def _digests(folder):
    path = folder / "digests.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def stamps_file() -> Path:
    """Which kept and recorded runs belong to the code as it stands: ``{id: {"recipe": ..., "package": ...}}``."""
    return project_root() / "results" / "stamps.json"


def stamps() -> dict:
    """What `stamps_file` holds. Raises `ValueError` if it is damaged."""
    path = stamps_file()
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if not all({"recipe", "package", "trace"} <= set(each) for each in known.values()):
            raise ValueError("a stamp lacks a part")
        return known
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): restore it from git") from error


def find_kept(id: str, card: dict) -> tuple[dict | None, str]:
    """``(kept run, "")``, or ``(None, why there is none)``, for the card of a run that begins."""
    recipe, start = card["recipe"], card["start"]
    path = kept_folder() / f"{id}.safetensors"
    if path.is_file():
        try:
            kept = read_kept(path)
        except CheckpointError as error:
            return None, str(error)
        if not same_start(kept["card"]["start"], start):
            return None, "it begins with other weights"
        stamp = stamps().get(id, {})
        if stamp.get("trace") == "differs":
            return None, "`python -m mnist_helpers verify` found other losses in its first steps"
        if stamp.get("package") != package_digest():
            return None, "the package has changed since; `python -m mnist_helpers verify` compares"
        return kept, ""
    name = id.split("-s")[0]
    for other in sorted(kept_folder().glob(f"{name}-s*.safetensors")):
        try:
            theirs = read_kept(other)["card"]
        except CheckpointError:
            continue  # a damaged neighbour says nothing about this one
        lines = [line for line in differences(theirs["recipe"], recipe) if line.split(":")[0].strip() not in MACHINE]
        if theirs["recipe"].get("seed") == recipe["seed"]:
            return None, "the recorded one differs:\n" + "\n".join(lines or ["  epochs, or the order of the images"])
    return None, f"no run of {name} with seed {recipe['seed']} is kept"


def write_trace(run, folder: Path) -> None:
    """Write what identifies a run and the losses of its first steps, ``<run.id>.trace.json``."""
    replace_file(Path(folder) / f"{run.id}.trace.json", json.dumps({"id": run.id, "card": run.card,
                                                                    "losses": run.batch_loss}))
