"""What the explanations that move show (site/explanations.md, site/live/): numbers of our networks' weights, of our
records, and ten digits.

Each piece has a function here, named as its JavaScript module, that returns its data; `write` puts them beside the
modules. `findings` are what the page says of them. Their pictures are drawn by `pieces`.
"""

import base64
import functools
import itertools
import json
from pathlib import Path

import torch
import torch.fx
import torch.nn.functional as F

from ..data import normalize, project_root
from ..files import replace_file
from ..stats import mean_over_seeds
from . import catalogue, notebooks, records, tables

NETWORK = "Under20K"  # whose kernels are shown
NORMED = "BatchNorm"  # whose second batch norm is shown
SEVEN = 7  # the digit to begin with
BY_HAND = {
    "upper edges": [-1, -1, -1, 0, 0, 0, 1, 1, 1],
    "left edges": [-1, 0, 1, -1, 0, 1, -1, 0, 1],
    "outline": [-1, -1, -1, -1, 8, -1, -1, -1, -1],
    "blur": [0.11] * 9,
    "sharpen": [0, -1, 0, -1, 5, -1, 0, -1, 0],
    "copy": [0, 0, 0, 0, 1, 0, 0, 0, 0],
}
REACHES = ("Under20K", "FewerParameters")  # whose layers are shown by what their units see
CHANNELS = (13, 8, 7, 2)  # of that batch norm
PAIRS = (("TwentyEpochs", "Under20K"), ("BatchNorm", "Under20K"), ("Under20K", "DropoutBeforeTheClassifier"),
         ("TwentyEpochs", "DropoutBeforeTheClassifier"), ("Under20K", "DropoutEverywhere"),
         ("Baseline", "FewerParameters"))


def folder() -> Path:
    """Where the pieces' modules are."""
    return project_root() / "site" / "live"


@functools.cache
def digits() -> torch.Tensor:
    """The first validation image of each digit, uint8 ``(10, 28, 28)``, as site/live/digits.json keeps them."""
    kept = json.loads((folder() / "digits.json").read_text(encoding="utf-8"))["pixels"]
    return torch.stack([torch.frombuffer(bytearray(base64.b64decode(each)), dtype=torch.uint8).view(28, 28)
                        for each in kept])


def _bytes(values):
    """Numbers as base64 of uint8 or, for others, of little-endian float32."""
    kind = "<u1" if values.dtype == torch.uint8 else "<f4"
    return base64.b64encode(values.contiguous().numpy().astype(kind).tobytes()).decode()


# ---------------------------------------------------------------- of a network's weights


def kernel_editor() -> dict:
    """Ten digits, kernels made by hand, and those that `NETWORK` learned in its first layer."""
    lesson, weight = catalogue.network(NETWORK).lesson, notebooks.trained(NETWORK).conv1.weight.detach()
    return {
        "digits": [{"label": label, "pixels": _bytes(image)} for label, image in enumerate(digits())], "start": SEVEN,
        "presets": [{"name": name, "weights": weights} for name, weights in BY_HAND.items()],
        "learned_by": f"Learned by lesson {lesson}'s network, first layer:",
        "learned": [{"name": f"lesson {lesson}, kernel {number}", "weights": [round(each, 2) for each in kernel]}
                    for number, kernel in enumerate(weight.flatten(1).tolist())],
    }


class _Stages(torch.fx.Interpreter):
    """Sends an image through a network and notes the layers that look at a neighbourhood, with what they make of it."""

    def __init__(self, model, image):
        super().__init__(torch.fx.symbolic_trace(model))
        self.found = []
        self._note("image", 1, 1, 0, image)
        self.run(image)

    def run_node(self, node):
        output = super().run_node(node)
        layer = self.submodules.get(node.target) if node.op == "call_module" else None
        if isinstance(layer, torch.nn.Conv2d):
            side = layer.kernel_size[0]
            self._note(f"conv {side}×{side}", side, layer.stride[0], layer.padding[0], output)
        elif node.target is F.max_pool2d:
            self._note("max-pool", node.args[1], node.args[1], 0, output)
        elif isinstance(layer, torch.nn.Linear):  # each unit sees the whole of the last map: a stride of 0
            self._note("linear", self.found[-1]["map"].shape[-1], 0, 0, output[:, None, None])
        elif output.ndim == 4:
            self.found[-1]["map"] = output  # after the batch norm or ReLU that followed
        return output

    def _note(self, name, kernel, stride, padding, made):
        self.found.append({"name": name, "kernel": kernel, "stride": stride, "padding": padding, "map": made})


def stages(model, image) -> list[dict]:
    """The layers of ``model`` that look at a neighbourhood, for one uint8 image ``(28, 28)``: name, kernel, stride,
    padding, the rows and columns of the map, and the mean of its channels as uint8, the largest 255. The linear layer's
    ten outputs are a map of one row. Networks with square kernels only."""
    with torch.no_grad():
        found = _Stages(model, normalize(image)[None, None]).found
    for stage in found:
        mean = stage.pop("map")[0].mean(0)
        mean = (mean - mean.min() if stage is found[0] else mean.clamp(min=0)) / mean.max()
        stage |= {"rows": mean.shape[0], "columns": mean.shape[1], "map": _bytes((255 * mean.clamp(0, 1)).byte())}
    return found


def seen_pixels(found: list[dict], layer: int) -> int:
    """How many pixels in a row the middle unit of a layer sees, where its neighbourhood ends inside the image."""
    first = last = found[layer]["rows"] // 2
    for at in range(layer, 0, -1):
        stage, side = found[at], found[at - 1]["rows"]
        first = max(first * stage["stride"] - stage["padding"], 0)
        last = min(last * stage["stride"] - stage["padding"] + stage["kernel"] - 1, side - 1)
    return last - first + 1


def receptive_field() -> dict:
    """The layers of the networks in `REACHES`, with the maps they make of one digit."""
    return {"networks": [{"name": f"lesson {catalogue.network(name).lesson}: {catalogue.network(name).title}",
                          "stages": stages(notebooks.trained(name), digits()[SEVEN])} for name in REACHES]}


@functools.cache
def _second_norm():
    """The second batch norm of `NORMED`, and what the ten digits give it, float32 ``(10, 16, 14, 14)``."""
    model, given = notebooks.trained(NORMED), []
    model.norm2.register_forward_hook(lambda layer, inputs, output: given.append(inputs[0]))
    with torch.no_grad():
        model(normalize(digits())[:, None])
    return model.norm2, given[0]


def batch_norm() -> dict:
    """What a few channels of ten digits' maps hold before a batch norm of `NORMED`, and its weights."""
    norm, given = _second_norm()
    channels = [{"name": str(channel), "values": _bytes(given[:, channel]), "weight": norm.weight[channel].item(),
                 "bias": norm.bias[channel].item()} for channel in CHANNELS]
    return {"channels": channels, "eps": norm.eps, "side": given.shape[-1], "digits": list(range(10)), "start": SEVEN,
            "white": 4.0}


def shifted(channel: int, shift: float, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A channel's values, scaled and then shifted, as ReLU would get them without batch norm and with it."""
    norm, given = _second_norm()
    moved = scale * given[:, channel : channel + 1] + shift
    weight, bias = norm.weight.detach()[channel, None], norm.bias.detach()[channel, None]
    return moved, F.batch_norm(moved, None, None, weight, bias, training=True, eps=norm.eps)


# ---------------------------------------------------------------- of the records


def _told(name, runs):
    lesson = catalogue.network(name)
    return {"lesson": lesson.lesson, "title": lesson.title, "correct": [run["test_correct"] for run in runs.values()]}


def seed_machine() -> dict:
    """The numbers of test images that the runs of each pair of networks read, and the difference of the two over
    seeds, second minus first, in points."""
    seeds, pairs = records.by_seed(), []
    for first, second in PAIRS:
        one, other = seeds[first], seeds[second]
        step = records.over_all(other, one)
        pairs.append({"first": _told(first, one), "second": _told(second, other),
                      "difference": {"mean": 100 * step.mean, "low": 100 * step.low, "high": 100 * step.high,
                                     "n": step.n, "verdict": step.verdict}})
    return {"pairs": pairs, "images": records.TEST_IMAGES}


def misleading(a, b) -> tuple[int, int]:
    """Of all pairs of a value of ``a`` and one of ``b``: how many point away from the means, and how many there are."""
    gap = sum(b) / len(b) - sum(a) / len(a)
    return sum((other - one) * gap < 0 for one, other in itertools.product(a, b)), len(a) * len(b)


def leak() -> dict:
    """Of each lesson the accuracy in percent on augmented training images and on test images: mean over seeds, and half
    the width of its 95 % interval."""
    def over(runs, key):
        mean = (records.over_all(runs) if key == "test_accuracy" else
                mean_over_seeds([run[key] for run in runs.values()]))
        return {"mean": 100 * mean.mean, "half": 100 * mean.half if mean.n > 1 else None}

    seeds = records.by_seed()
    lessons = [{"lesson": each.lesson, "title": each.title, "train": over(seeds[each.name], "augmented_train_accuracy"),
                "test": over(seeds[each.name], "test_accuracy")} for each in catalogue.lessons()]
    counts = sorted({len(seeds[each.name]) for each in catalogue.lessons()})
    return {"lessons": lessons, "seeds": " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))}


# ---------------------------------------------------------------- what the page says


def findings() -> dict[str, str]:
    """What each piece shows, in Markdown, with figures computed here."""
    return {name: found() for name, found in (
        ("kernel_editor", _found_kernels), ("receptive_field", _found_reach), ("batch_norm", _found_kept),
        ("seed_machine", _found_pairs), ("leak", _found_ranks))}


def _found_kernels():
    learned = [kernel["weights"] for kernel in kernel_editor()["learned"]]
    mixed = [min(weights) < 0 < max(weights) for weights in learned]
    return (f"Of the {len(learned)} kernels that lesson {catalogue.network(NETWORK).lesson}'s network learned, "
            f"{sum(mixed)} have weights of both signs, as the two edge kernels have.")


def _found_reach():
    found = receptive_field()["networks"][0]["stages"]
    rows = [f"| {at}: {stage['name']} | {stage['rows']}×{stage['columns']} | {seen_pixels(found, at)}×"
            f"{seen_pixels(found, at)} |" for at, stage in enumerate(found) if at]
    return "\n".join(["| layer | units | its middle unit sees |", "| :-- | --: | --: |", *rows])


def _found_kept():
    here, moved = ([(values > 0).float().mean() for values in shifted(CHANNELS[0], shift)] for shift in (0, -4))
    return (f"Channel {CHANNELS[0]} as the network has it: ReLU keeps {here[0]:.0%} of the values without batch norm "
            f"and {here[1]:.0%} with it. Shifted by −4: {moved[0]:.0%} without and {moved[1]:.0%} with it."
            ).replace("%", " %")


def _found_pairs():
    rows = []
    for pair in seed_machine()["pairs"]:
        first, second, gap = pair["first"], pair["second"], pair["difference"]
        wrong, pairs = misleading(first["correct"], second["correct"])
        bold = "**" * (gap["verdict"] == "more than noise")
        rows.append(f"| {first['lesson']} and {second['lesson']} | {bold}{_points(gap['mean'])}{bold} "
                    f"[{_points(gap['low'])}, {_points(gap['high'])}] | {gap['n']} | {wrong} of {pairs} |")
    return "\n".join(["| lessons | gain on test [95 %] | seeds | misleading |", "| :-- | :-- | --: | --: |", *rows])


def _points(value):
    return tables.signed(value).replace("-", "−")


def ranked(way: str) -> list[str]:
    """The numbers of the lessons, the most accurate first; ``way`` is ``"train"`` or ``"test"``."""
    return [str(each["lesson"]) for each in sorted(leak()["lessons"], key=lambda each: -each[way]["mean"])]


def _found_ranks():
    train, test = ranked("train"), ranked("test")
    return (f"From the first to the last, on training images: lessons {', '.join(train)}. On test images: lessons "
            f"{', '.join(test)}. Lesson 6 moves from place {train.index('6') + 1} to place {test.index('6') + 1}.")


# ---------------------------------------------------------------- all of them

PIECES = {each.__name__: each for each in (kernel_editor, receptive_field, batch_norm, seed_machine, leak)}


def write(target: Path) -> None:
    """Write the data of every piece into the folder ``target``, as NAME.json."""
    for name, data in PIECES.items():
        replace_file(target / f"{name}.json", json.dumps(data(), ensure_ascii=False))
