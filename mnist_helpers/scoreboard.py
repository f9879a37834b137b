"""The challenges: what was published for each, what our networks reach over seeds, and the trials that led there."""

import json
from statistics import fmean

from .data import project_root
from .results import Table, between, by_seed, entry, is_full_mnist, percent, read, read_lines, same_network
from .stats import mean_over_seeds

MARKERS = "<!-- scoreboard:start -->", "<!-- scoreboard:end -->"

# (notebook, network, the challenge it answers, published accuracy, how that was measured)
ONE_EPOCH = "one epoch, under 25,000 parameters"
TWENTY_EPOCHS = "20 epochs, under 20,000 parameters"
SIX = "six requirements, 99.4 % one of them"
ENTRIES = [
    ("one_epoch", "DoubleNorm", ONE_EPOCH, 0.9702, "test images, one run"),
    ("one_epoch", "TwoLinear", ONE_EPOCH, 0.98, "test images, \"about\""),
    ("one_epoch", "OneEpoch", ONE_EPOCH, None, ""),
    ("twenty_epochs", "SixConvolutions", TWENTY_EPOCHS, 0.9949, "test images, one run, last epoch"),
    ("twenty_epochs", "Strided", TWENTY_EPOCHS, None, ""),
    ("all_images", "AllImages", TWENTY_EPOCHS, None, ""),
    ("under_8000", "Under8000", "20 epochs, under 8,000 parameters", None, ""),
    ("fewest_parameters", "Fewest", "99.4 % with the fewest parameters", 0.9952, "test images, one run, 15 epochs"),
    ("under_2500", "Under2500", "20 epochs, under 2,500 parameters", None, ""),
    ("six_requirements", "OptimizedMNISTNet", SIX, None, ""),
    ("six_requirements", "FinalMNISTNet", SIX, 0.9924, "test images, one run, the best epoch on them"),
    ("six_requirements", "SixOfSix", SIX, None, ""),
    ("speed_run", "SpeedRun", "99.4 % in the fewest seconds", None, ""),
    ("few_epochs", "FewEpochs", "99.4 % in the fewest epochs", None, ""),
    ("few_epochs", "TwoEpochs", "99.4 % in the fewest epochs", None, ""),
]


def entries(*runs):
    """``{entry: {seed: run}}``: the course's own runs of each network of a challenge, in the order of `ENTRIES`, and
    ``runs`` of now, which take the place of those of the same seed."""
    seeds = by_seed(read(), reference=True)
    for run in filter(is_full_mnist, runs):
        own = seeds.get(entry(run), {})
        seeds[entry(run)] = (own if same_network(run, own) else {}) | {run["seed"]: run}
    names = [f"challenges/{notebook}.ipynb: {network}" for notebook, network, *_ in ENTRIES]
    return {name: seeds[name] for name in names if name in seeds}


def scoreboard(*runs, notebook=None):
    """A `Table` of the challenges (those of one ``notebook``, if given): of each network its size and length, the
    means over seeds of its last epoch's accuracies, the range that holds the test accuracy of a run under a new seed
    with 95 % probability, and what was published. ``runs`` of now count with those recorded."""
    rows, recorded = [], entries(*runs)
    for name, network, challenge, published, how in ENTRIES:
        seeds = recorded.get(f"challenges/{name}.ipynb: {network}")
        if not seeds or notebook not in (None, name):
            continue
        run = next(iter(seeds.values()))
        test = mean_over_seeds([run["test_accuracy"] for run in seeds.values()])
        low, high = test.new_run()
        rows.append([challenge, network, f"{run['parameters']:,}", str(run["epochs"]),
                     _mean([run["val_accuracy"] for run in seeds.values()]), str(test),
                     f"[{100 * low:.2f}, {100 * high:.2f}]" if test.n > 1 else "", percent(published), how])
    return Table(["challenge", "network", "parameters", "epochs", "validation", "test over seeds", "a new run",
                  "published", "published on"], rows)


def _mean(accuracies):
    """Their mean in words; empty for networks that were trained on the validation images too."""
    return "" if None in accuracies else percent(fmean(accuracies))


def trials_file():
    return project_root() / "results" / "trials.jsonl"


def trials(challenge, spread=False):
    """A `Table` of the trials of a challenge (``benchmarks/search.py`` makes them), in the order they were made: what
    each was to find out, the network, what its recipe changed, and means over its seeds on the *validation* split.

    With ``spread``, the training loss of the last epoch as well, and of several seeds the smallest and the largest."""
    groups = {}
    for trial in read_lines(trials_file(), {"challenge", "given", "why", "val_accuracy"}):
        if trial["challenge"] == challenge:
            groups.setdefault((trial["why"], json.dumps(trial["given"])), []).append(trial)
    rows = []
    for (why, given), group in groups.items():
        recipe = ", ".join(f"{name} {value}" for name, value in json.loads(given).items() if name != "net")
        config = group[0]["config"]
        finished = [trial for trial in group if "diverged" not in trial]
        accuracies, losses = ([trial[name] for trial in finished] for name in ("val_accuracy", "train_loss"))
        if not finished:
            measured = [""] * (1 + spread)
        elif spread:
            measured = [_spread(accuracies, percent), _spread(losses, "{:.4f}".format)]
        else:
            measured = [_mean(accuracies)]
        if len(finished) < len(group):
            measured[0] = f"{measured[0]} ({len(group) - len(finished)} diverged)".lstrip()
        rows.append([why, f"`{config['net']}`", recipe, f"{group[0]['parameters']:,}", str(config["epochs"]),
                     str(len(group)), *measured, f"{fmean(trial['seconds'] for trial in group):.0f}"])
    return Table(["question", "network", "recipe", "parameters", "epochs", "seeds", "validation",
                  *(["training loss"] if spread else []), "seconds"], rows)


def _spread(values, written):
    """Their mean and, if there are several, the smallest and the largest."""
    ends = f" [{written(min(values))}, {written(max(values))}]" if len(values) > 1 else ""
    return written(fmean(values)) + ends


def readme_section(readme):
    """The README's text with the scoreboard of the course's own runs between its two markers."""
    return between(readme, MARKERS, scoreboard()._repr_markdown_())
