"""A release: a tag, what changed in the code and in the numbers, and the environment that the numbers come from."""

import datetime
import json
import re
from collections import Counter
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .. import checkpoint
from ..data import project_root
from ..files import replace_file
from . import catalogue, doctor, notebooks, pages, records
from .git import answer, git
from .stamps import stale

UNRELEASED = "## Unreleased\n"
START, END = "<!-- numbers:start -->", "<!-- numbers:end -->"  # around what `numbers` writes
NEXT = f"{UNRELEASED}\n### Code\n\n- ...\n\n### Numbers\n\n{START}\n{END}\n\n"
DECIMALS = {"test": 2, "same measure": 2, "validation": 2, "test loss": 4, "parameters": 0, "epochs": 0}
VERSION = re.compile(r'(?<=^__version__ = ")[^"]+', re.MULTILINE)
REQUIRED = re.compile(r'(?<=\.ready\(\\")[\d.]+(?=\\"\))')  # in a set-up cell, as JSON has it


# ---------------------------------------------------------------- the numbers


def shown(runs: list[dict]) -> dict[str, tuple[int, dict[str, str]]]:
    """``{subject: (seeds, {measure: text})}`` of records, as tables show them: means over a network's fresh seeds once
    all are there, till then over the others. Of two records of a seed, the later counts."""
    found = {}
    for network in catalogue.networks():
        own = {run["seed"]: run for run in runs if run["model"] == network.name and records.is_full_mnist(run)}
        own = records.shown(network, own)
        texts = {}
        for measure, decimals in DECIMALS.items():
            key, scale = pages.MEASURES[measure]
            values = [run[key] for run in own.values() if run.get(key) is not None]
            if values:
                texts[measure] = f"{scale * sum(values) / len(values):,.{decimals}f}"
        if texts:
            found[f"lesson {network.lesson}" if network.lesson else network.name] = len(own), texts
    return found


def numbers(before: list[dict], after: list[dict]) -> list[str]:
    """What changed in the numbers between two lists of records, a line each: ``"lesson 4, test: 99.31 to 99.33"``."""
    old, new = shown(before), shown(after)
    found = [f"{subject}: gone" for subject in old if subject not in new]
    for subject, (seeds, texts) in new.items():
        if subject not in old:
            found.append(f"{subject}: new; test {texts['test']} over {seeds} seeds")
            continue
        more = f", over {seeds} seeds instead of {old[subject][0]}" if seeds != old[subject][0] else ""
        found += [f"{subject}, {measure}: {was} to {now}{more}" for measure, now in texts.items()
                  if (was := old[subject][1].get(measure, "none")) != now]
    return found


def changes(root: Path, tag: str) -> list[str]:
    """`numbers` between a release (none: ``""``) and the records as they stand."""
    before = answer(root, "show", f"{tag}:results/runs.jsonl") if tag else ""
    return numbers([json.loads(line) for line in before.splitlines()], records.course_records())


def with_numbers(changelog: str, lines: list[str]) -> str:
    """The changelog with these lines in its newest section. Reasons that were written there stay."""
    body = changelog.partition(START)[2].partition(END)[0]
    reasons = dict(line.removeprefix("- ").split(", because ", 1) for line in body.splitlines() if ", because " in line)
    return pages.between(changelog, "numbers", "\n".join(
        f"- {line}" if ": new; " in line else f"- {line}, because {reasons.get(line, '...')}" for line in lines))


# ---------------------------------------------------------------- the environment


def constraints() -> str:
    """The contents of ``constraints.txt``: what this environment has of everything that the course requires.

    Raises `ValueError` if no record was made with its PyTorch: then the numbers come from another environment.
    """
    versions = [run["card"]["versions"] for runs in records.by_seed().values() for run in runs.values()]
    named, here = Counter(each.get("torch") for each in versions), metadata.version("torch")
    torch = Version(here).public
    if not named[torch]:
        raise ValueError(f"this environment has torch {torch}, and the records were made with "
                         f"{', '.join(sorted(map(str, named)))}: make the release in theirs")
    python = Counter(each.get("python") for each in versions if each.get("torch") == torch).most_common(1)[0][0]
    others = "".join(f", {count} with torch {name}" for name, count in sorted(named.items()) if name != torch)
    pins = sorted(f"{name}=={Version(metadata.version(name)).public}" for name in _installed(doctor.requirements()))
    return "\n".join([
        "# The environment that the course's numbers come from: pip install -r requirements.txt -c constraints.txt",
        f"# {named[torch]} of {len(versions)} recorded runs were made with it, on Python {python}{others}.",
        "# Written by `python -m mnist_helpers release`.", *pins, ""])


def _installed(requirements):
    """The names of these packages and of all that they need here."""
    found, left = set(), [requirement.name for requirement in requirements]
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        needs = [Requirement(each) for each in needs]
        left += [each.name for each in needs if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


# ---------------------------------------------------------------- the release


def last(root: Path) -> str:
    """The tag of the newest release that the present commit comes from, or ``""``."""
    tags = git(root, "tag", "--merged", "HEAD", "--list", "v*", "--sort=version:refname").split()
    return tags[-1] if tags else ""


def prepare() -> list[str]:
    """Write ``constraints.txt`` and the changelog's numbers; return what stands in the way of a release, in words."""
    root = project_root()
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    problems = [f"{run['id']}: {reason}" for runs in records.by_seed().values() for run in runs.values()
                if (reason := stale(run, checkpoint.stamps()))]
    try:
        replace_file(root / "constraints.txt", constraints())
    except ValueError as error:
        problems.append(str(error))
    new = with_numbers(changelog, changes(root, last(root)))
    if new != changelog:
        replace_file(root / "CHANGELOG.md", new)
    unreleased = new.partition(UNRELEASED)[2].partition("\n## ")[0]
    if ", because ...\n" in unreleased:
        problems.append("CHANGELOG.md: a changed number has no reason yet, after 'because'")
    if not re.search(r"^- (?!\.\.\.)", unreleased.partition("### Numbers")[0], re.MULTILINE):
        problems.append("CHANGELOG.md: it does not say what changed in the code")
    return problems


def release(version: str) -> str:
    """Commit and tag a release, and begin the next; return its tag. Nothing is pushed.

    Raises `ValueError` that names everything in the way: a record that is out of date, a file that is not committed, a
    number without a reason, a version that does not follow the last.
    """
    root = project_root()
    previous = last(root)
    try:
        number = Version(version)
    except InvalidVersion as error:
        raise ValueError(f"{version!r} is no version: give two or three numbers, as in 1.2") from error
    tag = f"v{version}"
    problems = prepare()
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
        problems.append(f"{version} is no version of a release: give two or three numbers, as in 1.2")
    elif previous and number <= Version(previous[1:]):
        problems.append(f"{version} does not come after {previous[1:]}")
    if answer(root, "rev-parse", "--quiet", "--verify", f"refs/tags/{tag}"):
        problems.append(f"there is a tag {tag}")
    if status := git(root, "status", "--porcelain", "--untracked-files=no"):
        problems.append("these files are not committed: " + ", ".join(line[2:].strip() for line in status.splitlines()))
    if problems:
        raise ValueError("no release:\n  " + "\n  ".join(problems))
    changelog, today = root / "CHANGELOG.md", datetime.date.today()
    text = changelog.read_text(encoding="utf-8").replace(UNRELEASED, f"## {version}, {today}\n", 1)
    text = text.replace(f"{START}\n", "", 1).replace(f"{END}\n", "", 1)
    replace_file(changelog, text)
    _write_version(root, version)
    for path in notebooks.every():
        before = path.read_text(encoding="utf-8")
        if (after := REQUIRED.sub(version, before)) != before:
            replace_file(path, after)
    git(root, "commit", "--quiet", "--all", "--message", f"Release {version}")
    git(root, "tag", "--annotate", tag, "--message", f"Release {version}")
    replace_file(changelog, text.replace("## ", f"{NEXT}## ", 1))
    _write_version(root, f"{number.major}.{number.minor + 1}.dev0")
    git(root, "commit", "--quiet", "--all", "--message", f"After release {version}")
    return tag


def _write_version(root, version):
    path = root / "mnist_helpers" / "version.py"
    replace_file(path, VERSION.sub(version, path.read_text(encoding="utf-8")))
