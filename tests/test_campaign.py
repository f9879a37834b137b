"""The campaign of faults in its short form, always the same tries; and what its table would say if something failed."""

import random

import campaign

from mnist_helpers import data


def test_nothing_is_lost_believed_or_a_traceback():
    failures = []
    counts = campaign.campaign(3, seed=0, short=True, say=failures.append)
    assert not failures
    assert all(count["tries"] for count in counts.values()) and len(counts) >= 8


def believe(folder, chance):
    raise campaign.Believed("a lie")


def lose(folder, chance):
    (folder / "file").touch()
    raise campaign.Lost("a line")


def trace(folder, chance):
    return {}["key"]


def test_what_fails_is_counted_and_can_be_repeated(monkeypatch):
    monkeypatch.setattr(campaign, "KINDS", {function.__name__: (function, True) for function in (believe, lose, trace)})
    said = []
    counts = campaign.campaign(0, seed=3, say=said.append)
    columns = {"believe": "believed", "lose": "lost", "trace": "tracebacks"}
    assert {name: dict(count) for name, count in counts.items()} == {
        name: {"tries": 1, column: 1} for name, column in columns.items()}
    assert "| believe | 1 | 1 | 0 | 0 |" in campaign.table(counts) and "try 3000001" in said[0]


def test_harm_changes_something():
    content = bytes(range(1, 256)) * 20
    assert all(campaign.harmed(content, random.Random(seed)) != content for seed in range(50))


def test_the_last_figures_are_shown_and_hold_no_failure():
    text = (data.project_root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- campaign:start -->")[2].partition("<!-- campaign:end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")][2:]
    assert {row[0] for row in rows} == set(campaign.KINDS)
    assert all(int(row[1].replace(",", "")) > 0 and row[2:] == ["0"] * 3 for row in rows)
