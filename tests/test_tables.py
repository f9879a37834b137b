"""The tables against records written by hand."""

import json

import numpy
import pytest
import scipy.stats
from test_records import course, of  # noqa: F401

from mnist_helpers import data
from mnist_helpers.course import catalogue, records, stamps, tables
from mnist_helpers.course.table import Code, Table
from mnist_helpers.stats import over_seeds_and_images


@pytest.fixture
def keep(course):  # noqa: F811
    """Keep records of networks: the numbers of correct test images under seeds 0, 1, ..."""
    def kept(**correct):
        for name, counts in correct.items():
            for seed, count in enumerate(counts):
                records.keep(of(name, seed, count))
    return kept


def row(table, name):
    (found,) = [row for row in table.rows if isinstance(row, list) and row[0] == name]
    return dict(zip(table.header, found, strict=True))


def width(table):
    return max(map(len, str(table).splitlines()))


# ---------------------------------------------------------------- Table


def test_a_table_on_a_terminal_is_aligned_and_in_markdown_a_table():
    table = Table(["network", "same measure"], ["a group", ["A", "99.1"], ["Longer", "[1, 2]"]], "A note.")
    assert str(table) == ("            same\nnetwork  measure\n----------------\na group\nA           99.1\n"
                          "Longer    [1, 2]\n\nA note.")
    assert table._repr_markdown_() == ("| network | same measure |\n| --- | --: |\n| **a group** |  |\n| A | 99.1 |\n"
                                       "| Longer | [1,\N{NO-BREAK SPACE}2] |\n\nA note.")
    assert Table(["a"], [])._repr_markdown_() == "| a |\n| --- |" and str(Table(["a"], [])) == "a\n-"


@pytest.mark.parametrize(("cell", "markdown", "terminal"), [
    ("a | b", "a \\| b", "a | b"),
    ("<script>&amp;", "&lt;script>&amp;amp;", "<script>&amp;"),
    ("`x` *y* _z_ $1$", "\\`x\\` \\*y\\* \\_z\\_ \\$1\\$", "`x` *y* _z_ $1$"),
    ("[a](http://b)", "[a\\](http://b)", "[a](http://b)"),
    ("a\nb\tc\r", "a b c ", "a b c "),
    ("\x1b[31mred\x9b2J\u202e", " [31mred 2J ", " [31mred 2J "),
    (Code("c3-8 * `2` | P"), "`c3-8 * '2' \\| P`", "c3-8 * `2` | P"),
    (Code(""), "", ""),
])
def test_cells_show_as_they_stand(cell, markdown, terminal):
    table = Table(["first", "second"], [["x", cell]])
    assert table._repr_markdown_().splitlines()[2:] == [f"| x | {markdown} |"]
    assert str(table).splitlines()[2].rstrip() == f"x      {terminal:>6}".rstrip()
    assert len(str(Table(["a"], [cell], cell)).splitlines()) <= 5 and "\x1b" not in str(Table(["a"], [cell], cell))


# ---------------------------------------------------------------- the lessons


def by_hand(a, b=None):
    """Half the width of the interval of a mean or a mean difference over seeds and images of two kinds, in points."""
    right = numpy.array([[image not in map(int, a[seed]["mistakes"]) for image in range(10_000)] for seed in a], float)
    if b is not None:
        right -= [[image not in map(int, b[seed]["mistakes"]) for image in range(10_000)] for seed in a if seed in b]
    mean = over_seeds_and_images(right, [image < 5_001 for image in range(10_000)])
    return 100 * (mean.high - mean.low) / 2


def test_the_lessons_table_has_means_and_gains(keep):
    keep(Baseline=[9_810, 9_800, 9_820], FewerParameters=[9_890, 9_881, 9_899])
    table = tables.lessons_table()
    assert table.header == ["lesson", "parameters", "epochs", "published", "same measure", "test", "gain"]
    seeds = records.by_seed()
    test, gain = by_hand(seeds["FewerParameters"]), by_hand(seeds["FewerParameters"], seeds["Baseline"])
    assert row(table, "2 smaller") == {
        "lesson": "2 smaller", "parameters": "24,210", "epochs": "5", "published": "98.35", "same measure": "99.46",
        "test": f"98.90 ± {test:.2f}", "gain": f"+0.80 [{0.8 - gain:+.2f}, {0.8 + gain:+.2f}]"}
    assert test > 0.22 and gain > 0.02, "4.303 * 0.09 / sqrt(3) and 4.303 * 0.01 / sqrt(3) are those of seeds alone"
    assert row(table, "1 baseline")["gain"] == ""
    assert row(tables.lessons_table(narrow=True), "2 smaller")["gain"] == f"+0.80 ± {gain:.2f}"
    # A lesson without a record is there, and neither it nor the next one has a gain.
    assert len(table.rows) == len(catalogue.lessons())
    assert list(row(table, "3 20 epochs").values())[3:] == ["99.46", "", "", ""]


def test_one_seed_has_neither_spread_nor_gain(keep):
    keep(Baseline=[9_810], FewerParameters=[9_890])
    assert list(row(tables.lessons_table(), "2 smaller").values())[-2:] == ["98.90", ""]


def test_narrow_tables_fit_a_terminal(keep):
    keep(**{network.name: [9_900, 9_950, 9_999] for network in catalogue.networks()})
    for record in records.course_records():
        stamps.stamp(record["id"], trace="differs", notebook=record["notebook"])
    last = of("DropoutEverywhere", profile="quick")
    for table in (tables.lessons_table(narrow=True), tables.table_so_far(last), tables.scoreboard(last),
                  tables.measures(of("Baseline"))):
        assert len(table.header) <= 7 and width(table) <= 80, str(table)


def test_the_table_so_far_ends_with_this_run(keep):
    keep(Baseline=[9_810, 9_800], TwentyEpochs=[9_920, 9_930], BatchNorm=[9_930, 9_936])
    table = tables.table_so_far(of("TwentyEpochs", 0, 9_000))
    assert [row[0] for row in table.rows] == ["1 baseline", "2 smaller", "3 20 epochs", "this run"]
    assert row(table, "3 20 epochs")["test"].startswith("99.25") and row(table, "this run")["test"] == "90.00"
    quick = tables.table_so_far(of("TwentyEpochs", profile="quick", epochs=2, val_curve=[]))
    assert row(quick, "this run, quick")["epochs"] == "2"
    assert [row[0] for row in tables.table_so_far(of("TwentyEpochs", dataset="digits")).rows] == ["this run, digits"]
    mine = tables.table_so_far(of("TwentyEpochs", model="Mine", parameters=5))
    assert len(mine.rows) == len(catalogue.lessons()) + 1 and row(mine, "this run")["parameters"] == "5"


def test_a_learners_run_is_in_no_table(keep):
    keep(Baseline=[9_810, 9_800], OneEpoch=[9_920, 9_930])
    before = [str(table()) for table in (tables.lessons_table, tables.scoreboard, tables.means, tables.entries)]
    for name in ("Baseline", "OneEpoch"):
        records.append(of(name, 7, 5_000), records.mine_file())
    assert before == [str(table()) for table in (tables.lessons_table, tables.scoreboard, tables.means, tables.entries)]


def test_stale_rows_are_marked_and_the_note_says_what_that_means(keep, monkeypatch):
    keep(Baseline=[9_810, 9_800], FewerParameters=[9_890, 9_881], OneEpoch=[9_920, 9_930])
    for table in (tables.lessons_table(), tables.scoreboard(), tables.table_so_far(of("FewerParameters"))):
        assert tables.MARK not in str(table)
    monkeypatch.setattr(stamps, "recipe_now", lambda notebook: "r" if notebook == "01_baseline" else "new")
    for table, fresh, old in ((tables.lessons_table(), "1 baseline", "2 smaller†"),
                              (tables.table_so_far(of("FewerParameters")), "1 baseline", "2 smaller†"),
                              (tables.scoreboard(), None, "OneEpoch†")):
        assert tables.MARKED in table.note and row(table, old)
        assert fresh is None or row(table, fresh)
    assert tables.UNVERIFIED in tables.compare(of("Baseline"), "FewerParameters")


def test_means_and_differences_over_seeds(keep):
    keep(Baseline=[9_810, 9_800], FewerParameters=[9_890, 9_881, 9_899], Strided=[9_950])
    assert list(tables.means()) == ["Baseline", "FewerParameters"]
    test, same = tables.means()["FewerParameters"]
    assert test.mean == pytest.approx(0.989) and test.n == 3 and same.mean == pytest.approx(0.9946)
    by_name = tables.difference_over_seeds("FewerParameters", "Baseline")
    assert (by_name.n, by_name.mean) == (2, pytest.approx(0.00805))
    seeds = records.by_seed()
    assert tables.difference_over_seeds(seeds["FewerParameters"], seeds["Baseline"]) == by_name
    assert tables.difference_over_seeds("Strided", "Baseline") is None


# ---------------------------------------------------------------- one run


def test_measures_stand_beside_the_published_figure_only_where_they_compare():
    table = tables.measures(of("TwentyEpochs"))
    assert [row[:2] for row in table.rows] == [
        ["published", "99.46 %"], ["same measure", "99.46 %"], ["validation", "99.24 %"],
        ["test [95 % interval]", "99.31 % [99.13, 99.45]"]]
    for change in ({"profile": "quick"}, {"dataset": "digits"}, {"model": "Mine"}):
        assert "published" not in str(tables.measures(of("TwentyEpochs", **change)))
    less = of("TwentyEpochs", val_accuracy=None, val_curve=[])
    del less["augmented_train_accuracy"]
    assert [row[0] for row in tables.measures(less).rows] == ["published", "test [95 % interval]"]


def test_compare_says_what_the_shared_images_say(keep):
    others = {str(image): 0 for image in range(100, 169)}
    ours = {str(image): 0 for image in range(102, 163)} | {"7": 1, "8": 1}     # 2 only ours, 8 only theirs
    records.keep(of("Baseline", 0, 9_931, mistakes=others))
    said = tables.compare(of("TwentyEpochs", 0, 10_000 - len(ours), mistakes=ours), "Baseline")
    assert "99.37 % against 99.31 %" in said and "+0.06 points" in said
    assert "2 images only this run gets wrong, 8 only the other" in said
    # exact 2 (1 + 10 + 45) / 2^10, mid-p less 45 / 2^10
    assert "exact p = 0.11, mid-p = 0.07" in said
    # Newcombe's paired interval by hand: phi is (9929 * 61 - 2 * 8 - 5000) / sqrt(9937 * 63 * 9931 * 69) = 0.917;
    # 0.06 - sqrt(0.15^2 + 0.17^2 - 2 phi 0.15 * 0.17) to 0.06 + sqrt(0.14^2 + 0.18^2 - 2 phi 0.14 * 0.18)
    assert "95 % interval -0.01 to +0.14" in said
    assert tables.UNDECIDED in said and max(map(len, said.splitlines())) <= 85


def test_compare_tells_noise_from_more_over_seeds(keep):
    keep(Baseline=[9_900, 9_905, 9_910], TwentyEpochs=[9_930, 9_936, 9_939])
    # differences 30, 31, 29 images: 30 -+ 4.303 * 1 / sqrt(3) by seeds alone, +0.28 to +0.32
    half = by_hand(*(records.by_seed()[name] for name in ("TwentyEpochs", "Baseline")))
    assert half > 0.03 and (f"Over 3 seeds a side: mean difference +0.30 points, 95 % interval {0.3 - half:+.2f} to "
                            f"{0.3 + half:+.2f}: more than noise") in tables.compare(of("TwentyEpochs"), "Baseline")
    assert tables.UNDECIDED in tables.compare(of("TwentyEpochs", parameters=9_000), "Baseline"), "another network"
    assert "seed 2" in tables.compare(of("TwentyEpochs", 2), "Baseline")


def test_compare_refuses_what_does_not_compare(keep):
    keep(Baseline=[9_900])
    assert "Nothing to compare" in tables.compare(of("TwentyEpochs", profile="quick"), "Baseline")
    assert "Nothing to compare" in tables.compare(of("TwentyEpochs"), "Under20K")
    with pytest.raises(ValueError, match="no network 'Basline'"):
        tables.compare(of("TwentyEpochs"), "Basline")


def test_a_small_p_is_not_shown_as_zero(keep):
    records.keep(of("Baseline", 0, 10_000))
    assert "exact p < 0.01, mid-p < 0.01" in tables.compare(of("TwentyEpochs", 0, 9_990), "Baseline")


def test_only_full_runs_on_mnist_have_a_published_figure():
    assert tables.published_figure(of("FewerParameters"))[0] == 0.9835
    assert tables.published_figure(of("Strided")) == tables.published_figure(of("Baseline", profile="quick")) == (None, "")


# ---------------------------------------------------------------- the challenges


def test_the_scoreboard_has_the_means_over_seeds(keep):
    keep(OneEpoch=[9_900, 9_910, 9_920, 9_930, 9_940], TwoLinear=[9_500], Strided=[9_950, 9_960], Baseline=[9_810])
    table = tables.scoreboard()
    assert [row if isinstance(row, str) else row[0] for row in table.rows] == [
        "one epoch, under 25,000 parameters", "TwoLinear", "OneEpoch", "20 epochs, under 20,000 parameters", "Strided"]
    # log-odds from 4.590 to 5.097: mean 4.830, standard deviation 0.2002, pooled with Strided's 0.157 (1 value):
    # 0.1924, t(0.975, 5) = 2.571; 4.830 -+ 2.571 * 0.1924 * sqrt(1.2)
    half = by_hand(records.by_seed()["OneEpoch"])
    assert list(row(table, "OneEpoch").values()) == [
        "OneEpoch", "23,418", "1", "99.24", f"99.20 ± {half:.2f} (5)", "98.64–99.54", ""]
    assert list(row(table, "TwoLinear").values())[4:] == ["95.00 (1)", "", "98.00"]
    for notebook in ("one_epoch", "challenges/one_epoch", "challenges/one_epoch.ipynb"):
        assert [row[0] for row in tables.scoreboard(notebook=notebook).rows[1:]] == ["TwoLinear", "OneEpoch"]
    assert "without a log (TwoLinear)" in table.note


def test_a_network_trained_on_all_images_has_no_validation_accuracy(keep):
    records.keep(of("AllImages", val_accuracy=None, val_curve=[]))
    assert row(tables.scoreboard(), "AllImages")["validation"] == ""


def test_a_run_of_now_stands_below_the_courses_own(keep):
    keep(OneEpoch=[9_900, 9_910])
    now = of("OneEpoch", 9, 5_000)
    table = tables.scoreboard(now, of("TwoLinear", profile="quick"))
    assert [row[0] for row in table.rows[1:]] == ["this run, quick", "OneEpoch", "this run"]
    assert row(table, "OneEpoch")["test (n)"].startswith("99.05") and row(table, "this run")["test (n)"] == "50.00"


def test_entries_fill_in_what_the_course_has_not(keep):
    keep(OneEpoch=[9_900, 9_910], Baseline=[9_810])
    assert {name: list(seeds) for name, seeds in tables.entries().items()} == {"OneEpoch": [0, 1]}
    found = tables.entries(of("OneEpoch", 1, 5_000), of("OneEpoch", 2, 9_920), of("OneEpoch", 3, profile="quick"),
                           of("OneEpoch", 4, parameters=7))["OneEpoch"]
    assert list(found) == [0, 1, 2] and found[1]["test_correct"] == 9_910


def test_trials_are_grouped_by_configuration(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(data, "project_root", lambda: tmp_path)
    trial = {"challenge": "mine", "why": "rate", "given": {"net": "c3-4", "lr": 0.1},
             "config": {"net": "c3-4", "lr": 0.1, "epochs": 3}, "parameters": 100, "seconds": 4.0, "train_loss": 0.02}
    lines = [trial | {"seed": 0, "val_accuracy": 0.98}, trial | {"seed": 1, "val_accuracy": 0.99, "train_loss": 0.03},
             trial | {"challenge": "another", "val_accuracy": 0.5},
             trial | {"challenge": "another", "val_accuracy": None, "diverged": "in epoch 1"}]
    text = "\n".join(map(json.dumps, lines)) + '\n\n{"challenge": "mine", "giv'
    (tmp_path / "results" / "trials.jsonl").write_text(text, encoding="utf-8")
    assert tables.trials("mine").rows == [["rate", "c3-4", "lr 0.1", "100", "3", "2", "98.50 %"]]
    assert "| `c3-4` |" in tables.trials("mine")._repr_markdown_()
    assert tables.trials("mine", spread=True).rows == [
        ["rate", "c3-4", "lr 0.1", "100", "3", "2", "98.50 % [98.00 %, 99.00 %]", "0.0250 [0.0200, 0.0300]"]]
    (row,) = tables.trials("another", spread=True).rows
    assert row[5:] == ["2", "50.00 % (1 diverged)", "0.0200"], "one seed has no range"
    chosen = tables.trials("mine", "rate")
    assert chosen.header == ["question", "parameters", "epochs", "seeds", "validation"]
    assert chosen.rows == [["rate", "100", "3", "2", "98.50 %"]]
    with pytest.raises(ValueError, match="'depth'"):
        tables.trials("mine", "rate", "depth")


def test_trials_under_the_same_seeds_are_paired(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "trials_file", lambda: tmp_path / "trials.jsonl")
    before, after = [0.981, 0.984, 0.983], [0.987, 0.986, 0.988]
    common = {"challenge": "mine", "given": {}, "config": {"net": "c3-4", "epochs": 1}, "parameters": 100}
    lines = [common | {"why": why, "seed": seed, "val_accuracy": accuracy}
             for why, accuracies in (("after", after), ("before", before), ("other seeds", [*before, 0.98]))
             for seed, accuracy in reversed([*enumerate(accuracies)])]
    (tmp_path / "trials.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    low, high = scipy.stats.ttest_rel(after, before).confidence_interval()
    one, other = tables.trials("mine", "before", "after", paired=True).rows
    assert one[0] == "before" and one[1] == "3" and one[2].startswith("98.27 ± ") and one[3] == ""
    assert other[2].startswith("98.70 ± ") and other[3] == f"+0.43 ± {100 * (high - low) / 2:.2f}"
    with pytest.raises(ValueError, match="'other seeds' and 'before' were not tried under the same seeds"):
        tables.trials("mine", "before", "other seeds", paired=True)


def test_a_published_log_names_the_epochs_outside_of_our_runs(monkeypatch):
    runs = {seed: {"val_curve": curve} for seed, curve in enumerate([[0.5, 0.97, 0.98], [0.6, 0.96, 0.99]])}
    network = catalogue.Network("Net", "05_under_20k", 1, 3, {}, published={"log": [0.55, 0.95, 0.94]})
    monkeypatch.setattr(records, "by_seed", lambda: {"Net": runs})
    monkeypatch.setattr(catalogue, "network", lambda name: network)
    table = tables.published_log("Net")
    assert table.rows == [["2", "95.00 %", "96.00 to 97.00 %"], ["3", "94.00 %", "98.00 to 99.00 %"]]
    assert "2 of 3 epochs" in table.note and "highest of 3 in 2.0 of them" in table.note and "falls 1 time" in table.note
