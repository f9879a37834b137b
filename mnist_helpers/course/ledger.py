"""The page from a figure to its runs: of every network each run, its seed, its accuracy, and where the figure that it
is compared with was published. A run is one look at the test images, and so are the runs of earlier recipes."""

import itertools
from statistics import fmean
from urllib.parse import quote

from .. import files
from ..data import project_root
from . import catalogue, records

FILE = "records.md"
SPACE = "\N{NO-BREAK SPACE}"


def earlier() -> dict[str, list[dict]]:
    """``{network: records}`` of the runs that no table shows any more: those of earlier recipes and of earlier code,
    which lack what records have learned to tell since. A run that comes again with the same mistakes counts once."""
    found = {}
    seen = {_result(record) for record in records.course_records()}
    for record in _lines("earlier_runs.jsonl"):
        if _result(record) not in seen:
            found.setdefault(record["model"], []).append(record)
            seen.add(_result(record))
    return found


def _lines(name):
    return files.read_records(project_root() / "results" / name)


def _result(record):
    return record["model"], record["seed"], tuple(sorted(record["mistakes"].items()))


def cited(published: dict, text: str) -> str:
    """``text`` as a link to the file, at its commit, that a published figure is from; without one where no file is
    known."""
    if not {"file", "commit"} <= set(published):
        return text
    return f"[{text}](https://github.com/{published['source']}/blob/{published['commit']}/{quote(published['file'])})"


def place(network: catalogue.Network) -> str:
    """Where a network's runs are, from a page beside this one."""
    return f"{FILE}#{network.name.lower()}"


def page() -> str:
    """Everything between the markers of ``site/records.md``, in Markdown."""
    every, tables, before = records.all_seeds(), records.by_seed(), earlier()
    count = sum(map(len, every.values())), sum(map(len, before.values()))
    claims = [run for run in _lines("variants.jsonl") if "test_accuracy" in run]
    what = sorted({f"{run['variant']}, {_count(run['epochs'], 'epoch')}" for run in claims})
    lines = [f"{len(every)} networks looked at the test images {sum(count)} times: once for each of {count[0]} runs, "
             f"and {count[1]} times under earlier recipes or earlier code. {len(claims)} more looks were for the "
             f"claims: {'; '.join(what)}.", ""]
    for title, networks in (("lessons", catalogue.lessons()), ("challenges", catalogue.challenges())):
        lines += [f"## The {title}", ""]
        for network in networks:
            if runs := every.get(network.name):
                lines += [f"### {network.name}", "", *_network(network, runs, tables.get(network.name, {}),
                                                               before.get(network.name, [])), ""]
    return "\n".join(lines[:-1])


def _network(network, runs, shown, before):
    one = next(iter(runs.values()))
    what = f"lesson {network.lesson}" if network.lesson else network.challenge
    yield (f"[Recipe and result](../notebooks/{network.notebook_file}): {what}. {network.size} parameters, "
           f"{_count(network.epochs, 'epoch')}, {one['train_images']:,} training images.")
    yield ""
    if network.published:
        told = "; ".join(network.published[key] for key in ("images", "note") if key in network.published)
        yield (f"- Published: {100 * network.published['accuracy']:.2f} % ({told}), "
               + cited(network.published, ", ".join(filter(None, map(network.published.get, ("source", "file"))))))
    rest = [run for seed, run in runs.items() if seed not in shown]
    for title, found in (("In the tables", list(shown.values())), ("Not in the tables", rest)):
        if found:
            kinds = sorted({run["card"].get("device", "") for run in found} - {""})
            yield f"- {title}, {_count(len(found), 'run')} on {' and '.join(kinds)}: " + ", ".join(
                f"{run['seed']}:{SPACE}{100 * run['test_accuracy']:.2f}" for run in found)
    for (parameters, epochs, images), found in itertools.groupby(sorted(before, key=_version), _version):
        accuracies = [100 * record["test_accuracy"] for record in found]
        other = "" if (parameters, epochs) == (network.parameters, network.epochs) else (
            f", another network with {parameters:,} parameters and {_count(epochs, 'epoch')}")
        yield (f"- Earlier, {_count(len(accuracies), 'run')} on {images:,} training images{other}: "
               + (f"{min(accuracies):.2f} to {max(accuracies):.2f}, mean " if accuracies[1:] else "")
               + f"{fmean(accuracies):.2f}")
    yield f"- Looks at the test images: {len(runs) + len(before)}"


def _version(record):
    return record["parameters"], record["epochs"], record["train_images"]


def _count(number, word):
    return f"{number} {word}" + "s" * (number != 1)
