"""The plan of the fresh seeds is judged as it says: against scipy, and on records made up so that the answer is known."""

import pytest
from scipy.stats import ttest_1samp, ttest_rel

from mnist_helpers.course import plan, records
from mnist_helpers.course.plan import Mean, verdict


def run(accuracy):
    correct = round(10_000 * accuracy)
    return {"test_accuracy": correct / 10_000, "augmented_train_accuracy": accuracy, "test_total": 10_000,
            "mistakes": dict.fromkeys(map(str, range(correct, 10_000)), 0)}


@pytest.fixture
def made(monkeypatch):
    """What every network's fresh seeds reach; seeds 0 to 4 reach as much, and 100 images more under seed 0."""
    def make(**accuracies):
        seeds = {name: {**{seed: run(accuracy + 0.001 * (not seed)) for seed in range(5)},
                        **{100 + seed: run(accuracy + 0.0001 * (seed % 3)) for seed in range(20)}}
                 for name, accuracy in accuracies.items()}
        monkeypatch.setattr(records, "all_seeds", lambda: seeds)
        return {claim: found for claim, *found in plan.judged()}
    return make


@pytest.mark.parametrize(("mean", "side", "said"), [
    (0.5, "above", "holds"), (0.5, "below", "refuted"), (-0.5, "above", "refuted"), (-0.5, "below", "holds"),
    (0.01, "above", "open"), (0.01, "below", "open")])
def test_the_interval_and_the_claimed_side_give_the_verdict(mean, side, said):
    assert verdict(Mean(mean, 0.1, 20), side, 0.0, "open") == said
    assert verdict(Mean(mean + 99.4, 0.1, 20), side, 99.4, "open") == said


def test_a_claim_is_judged_on_fresh_seeds_alone_and_as_scipy_does(made):
    found = made(Under20K=0.993, DropoutEverywhere=0.992, TwentyEpochs=0.9925)
    estimate, side, bound, inside = found["1"]
    ours, theirs = ([100 * each["test_accuracy"] for each in records.all_seeds()[name].values()][5:]
                    for name in ("Under20K", "DropoutEverywhere"))
    assert estimate.n == 20 and (side, bound, inside) == ("below", 0.455, "refuted")
    assert estimate.mean == pytest.approx(ttest_rel(ours, theirs).confidence_interval()[0], abs=1e-6) == pytest.approx(0.1)
    assert found["4"][0] is None, "lesson 6 has no runs"


def test_missing_networks_keep_claims_open_and_count_in_the_correction(made, monkeypatch):
    made(FewerParameters=0.9871, Baseline=0.987, TwentyEpochs=0.9871)
    monkeypatch.setattr(plan, "_difference", lambda seeds, a, b, key: Mean(0.03, 0.05, 20) if "Fewer" in a else None)
    rows = {row[0]: row for row in plan.rows()}
    p = ttest_1samp([0.03 + 0.05 * x for x in ((19 / 20) ** 0.5, -(19 / 20) ** 0.5) * 10], 0).pvalue
    assert rows["6"][3] == f"{18 * p:.3f}" and 18 * p > 0.05
    assert rows["6"][4] == "holds by the interval; not decided after the correction"
    assert rows["8: Strided"][1:] == ["", "", "", "the runs are not all made"] == rows["9"][1:]


def test_goals_and_flattery_take_all_networks(made):
    names = {network.name: 0.9965 for network in plan.catalogue.networks()}
    found = made(**names)
    assert verdict(*found["8: Strided"]) == "holds" and found["8: Strided"][0].mean == pytest.approx(99.6595)
    # Old seeds: one of five has 10 images more than the others. Fresh: of 20 seeds, 7 none more, 7 one, 6 two more.
    estimate = found["9"][0]
    assert estimate.n == len(names) and estimate.mean == pytest.approx(100 * ((7 + 2 * 6) / 20 * 1e-4 - 1e-3 / 5))
    assert verdict(*found["9"]) == "refuted"
    strided = next(row for row in plan.changes() if row[0] == "Strided")
    assert strided == ["Strided", "99.67", "99.66", "−0.01"] and len(plan.changes()) == len(names)
    assert verdict(*made(**names | {"Strided": 0.98})["8: Strided"]) == "refuted"
