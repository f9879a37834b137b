"""The claims: their verdicts against known truth, and the page against the function that writes it."""

import random

import pytest

from benchmarks import variants
from mnist_helpers.course import catalogue, claims
from mnist_helpers.data import project_root
from mnist_helpers.stats import Mean, finding, holm, mean_over_seeds


def test_a_verdict_takes_holms_correction():
    estimate = Mean(0.5, 0.0, 5, images=0.01)
    assert claims.decide(estimate, "more", 0.1, 0.01) == claims.HOLDS
    assert claims.decide(estimate, "more", 0.1, 0.05) == claims.UNDECIDED


def test_pairs_count_the_images_that_one_gets_wrong():
    runs = {name: {seed: {"test_accuracy": 1 - len(wrong) / 10_000, "test_total": 10_000,
                          "mistakes": {str(image): 0 for image in wrong}} for seed in range(5)}
            for name, wrong in (("A", range(60)), ("B", range(20, 120)))}
    estimate = claims.measure({"a": "A", "b": "B", "measure": "test"}, runs)
    assert (estimate.mean, estimate.std) == (pytest.approx(0.4), 0)
    assert estimate.error ** 2 == pytest.approx(80 / 10_000, rel=0.2), "20 + 60 images, in points"
    del runs["A"][0]
    assert claims.measure({"a": "A", "b": "B", "measure": "test"}, runs) is None


def test_without_mistakes_images_count_as_those_of_one_run():
    runs = {name: {seed: {"val_accuracy": 0.99 + step * seed} for seed in range(5)}
            for name, step in (("A", 0.001), ("B", 0.0))}
    against, alone = (claims.measure({"a": "A", "b": b, "measure": "validation"}, runs) for b in ("B", 99))
    for estimate, share in ((against, 2 * 0.0099 - 0.00196 - 0.000006), (alone, 0.0099 - 0.00196 - 0.000006)):
        assert estimate.mean == pytest.approx(0.2) and estimate.std == pytest.approx(0.1581, abs=1e-4)
        assert estimate.images == pytest.approx(1e4 * share / 5_000)


def test_a_gap_is_training_minus_validation_and_as_chancy_as_validation():
    runs = {name: {seed: {"clean_train_accuracy": 0.995 + step, "val_accuracy": 0.99} for seed in range(5)}
            for name, step in (("A", 0.002), ("B", 0.0))}
    estimate = claims.measure({"a": "A", "b": "B", "measure": "gap of training and validation"}, runs)
    assert (estimate.mean, estimate.std) == (pytest.approx(0.2), pytest.approx(0))
    assert estimate.images == pytest.approx(1e4 * 2 * 0.99 * 0.01 / 5_000)


def simulated(rng, truth, n=5, of_seeds=0.08, of_images=0.07):
    """An estimate of a known difference: one draw of images, which all seeds share, and one a seed."""
    images = rng.gauss(0, of_images)
    return mean_over_seeds([truth + images + rng.gauss(0, of_seeds) for _ in range(n)], images=of_images ** 2)


def test_intervals_cover_the_truth_on_new_images():
    rng, times = random.Random(1), 4000
    covered = sum(low <= 0.3 <= high for low, high in (simulated(rng, 0.3).interval for _ in range(times)))
    assert 0.935 <= covered / times <= 0.975


def test_one_wrong_verdict_among_twenty_claims_is_rare():
    rng, times, wrong = random.Random(2), 300, 0
    for _ in range(times):
        estimates = [simulated(rng, 0) for _ in range(20)]  # no difference, and each claims one
        corrected = holm([finding(each, "more", 0.1)[1] for each in estimates])
        wrong += claims.HOLDS in [claims.decide(each, "more", 0.1, p)
                                  for each, p in zip(estimates, corrected, strict=True)]
    assert wrong / times <= 0.05


def test_rows_name_what_exists():
    lines = {f"{ladder} {number}" for ladder in ("up", "down") for number in range(10)}
    lines |= {name for name, *_ in variants.variants()}
    for row in claims.read():
        assert (project_root() / "notebooks" / f"{row['link']}.ipynb").is_file(), row["link"]
        assert row["exercise"] in claims.EXERCISES and not set("0123456789") & set(row["comment"]) - {
            *"34567", *"1x"}, row["comment"]
        for name in (row.get("test", {}).get("a"), row.get("test", {}).get("b"), row.get("count", {}).get("a")):
            assert not isinstance(name, str) or catalogue.network(name) or name in lines, name
    assert len({row["claim"] for row in claims.read()}) == len(claims.read())


def test_a_row_with_wrong_keys_is_refused(tmp_path):
    (tmp_path / "claims.toml").write_text('[[claim]]\nexercise = 0\nclaim = "x"\n')
    with pytest.raises(ValueError, match="'x'"):
        claims.read(tmp_path / "claims.toml")


def test_each_claim_has_a_verdict_and_they_add_up():
    found = claims.verdicts()
    assert len(found) == len(claims.read()) >= 50 and {each.verdict for each in found} <= set(claims.VERDICTS)
    numbers = [int(word) for word in claims.counts(found).replace(":", " ").replace(",", " ").split()
               if word.isdigit()]
    assert sum(numbers[1:]) == numbers[0] == len(found)
    assert sum(len(claims.table(number, found).rows) for number in claims.EXERCISES) == len(found)


def test_a_mean_over_runs_settles_a_count():
    runs = {"A": {seed: {"train_loss": 0.4 + seed / 10, "val_curve": [0.9, 0.8, 0.8, 0.95, 0.94]} for seed in range(5)}}
    count = {"a": "A", "measure": "training loss of the epoch", "says": "about", "b": 0.5, "within": 0.1}
    assert claims._counted(count, runs) == (claims.HOLDS, "0.6 training loss of the epoch, mean of 5 runs")
    assert claims._counted(count | {"b": 0.4}, runs)[0] == claims.NOT
    falls = count | {"measure": "falls of the validation curve", "says": "below", "b": 2}
    assert claims._counted(falls, runs) == (claims.NOT, "2.0 falls of the validation curve, mean of 5 runs")
    del runs["A"][0]
    assert claims._counted(count, runs)[0] == claims.UNMEASURED
