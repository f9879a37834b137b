"""Tables: what they escape, and what their words are made of."""

import pytest

from mnist_helpers.course import records, tables


def test_a_cell_cannot_break_its_table_or_run_anything():
    table = tables.Table(["a|b"], [["<script>x</script>\n\x1b[2Jred"]])
    markdown = table._repr_markdown_()
    assert len(markdown.splitlines()) == 3 and "<script>" not in markdown and "a\\|b" in markdown
    assert "\x1b" not in str(table)


@pytest.fixture
def seeds(monkeypatch):
    """Three seeds of lessons 3 and 5, whose differences are 2, 3 and 4 images."""
    found = {name: {seed: {"model": name, "seed": seed, "test_accuracy": (base + seed * step) / 10_000, "id": f"{seed}",
                           "parameters": 18_374, "epochs": 20, "dataset": "mnist", "profile": "full",
                           "test_correct": base + seed * step, "test_total": 10_000, "mistakes": {"1": 2},
                           "augmented_train_accuracy": 0.99, "notebook": "x"}
                    for seed in range(3)} for name, base, step in (("TwentyEpochs", 9_900, 1), ("Under20K", 9_902, 2))}
    monkeypatch.setattr(records, "by_seed", lambda: found)
    monkeypatch.setattr(tables, "stale", lambda record: None)
    return found


def test_a_gain_is_taken_seed_by_seed(seeds):
    step = tables.difference_over_seeds(seeds["Under20K"], seeds["TwentyEpochs"])
    assert (step.mean, step.n) == (pytest.approx(0.0003), 3)
    assert (step.high - step.mean) * 10_000 == pytest.approx(4.303 / 3**0.5, rel=1e-3)  # Student's t, std of 1 image
    assert tables.difference_over_seeds(seeds["Under20K"], {0: seeds["TwentyEpochs"][0]}) is None


def test_comparisons_and_tables_use_the_courses_seeds(seeds):
    run = seeds["Under20K"][0] | {"mistakes": {"5": 1}}
    said = tables.compare(run, "TwentyEpochs")
    assert "Over 3 seeds a side: mean difference +0.03 points" in said
    table = tables.table_so_far(run)
    assert [row[0] for row in table.rows] == ["3 20 epochs", "5 under 20k"] and len(table.header) <= 7
    alone = tables.table_so_far(run | {"dataset": "digits"})
    assert len(alone.rows) == 1 and "Nothing to compare" in tables.compare(run | {"dataset": "digits"}, "TwentyEpochs")


def test_a_stale_row_is_marked_and_explained(seeds, monkeypatch):
    monkeypatch.setattr(tables, "stale", lambda record: "the recipe has changed" if record["model"] == "Under20K" else None)
    table = tables.lessons_table()
    assert [tables.STALE in row[0] for row in table.rows] == [False, True] and table.note == tables.NOTE
