"""Seed 0 of the lessons on this processor, beside the course's records: how far rounding alone carries a training.

    python -m mnist_helpers run
    python -m benchmarks.processors --write

Two processors add the same numbers in another order, and so round otherwise. The first line notes its runs in
``results/mine.jsonl``; the second compares the latest of each with the record of the very same recipe and seed, and
writes the table into ``site/method.md``.
"""

import argparse
from statistics import fmean

from mnist_helpers import data, files
from mnist_helpers.course import catalogue, pages, records


def pairs() -> list[tuple[dict, dict]]:
    """``[(run, record)]`` of the lessons: of one recipe and seed, from processors with other instructions."""
    mine = {record["id"]: record for record in files.read_records(records.mine_file(), {"id", "test_correct", "card"})}
    lessons = {network.name for network in catalogue.lessons()}
    return [(mine[record["id"]], record) for record in records.course_records() if record["model"] in lessons
            and record["id"] in mine and _processor(mine[record["id"]]) != _processor(record)]


def _processor(record):
    return record["card"]["device"], record["card"].get("instructions")


def table(found: list[tuple[dict, dict]]) -> str:
    rows, seeds = [], records.all_seeds()
    for ours, theirs in found:
        others = [each for seed, each in seeds[theirs["model"]].items() if seed != theirs["seed"]]
        another_seed = f"{fmean(_apart(theirs, other) for other in others):.0f}" if others else ""
        rows.append([catalogue.network(ours["model"]).label, *(f"{each['test_correct']:,}" for each in (theirs, ours)),
                     f"{ours['test_correct'] - theirs['test_correct']:+d}", str(_apart(ours, theirs)), another_seed])
    header = ["lesson", ">record", ">here", ">difference", ">answered otherwise", ">by another seed"]
    return pages.markdown(header, *rows)


def _apart(one, other):
    """On how many images one of two runs is right and the other wrong."""
    return len(set(one["mistakes"]) ^ set(other["mistakes"]))


def text(found: list[tuple[dict, dict]]) -> str:
    (ours, theirs), *_ = found
    here, there = (" with ".join(filter(None, _processor(record))) for record in (ours, theirs))
    return (f"Correct test images under seed {theirs['seed']}: the record, made on {there}, and a run on {here}. "
            "*Answered otherwise* are the images that one of both networks gets right and the other wrong; *by another "
            "seed*, the mean number of them between that record and those of other seeds.\n\n"
            f"{table(found)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processors", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="the table into site/method.md")
    options = parser.parse_args()
    if not (found := pairs()):
        parser.error("no run of yours has a record from another processor beside it: run the lessons first, in full")
    print(said := text(found))
    if options.write:
        path = data.project_root() / "site" / "method.md"
        files.replace_file(path, pages.between(path.read_text(encoding="utf-8"), "processors", said))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
