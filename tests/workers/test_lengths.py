"""Distributions of lengths and how well they predict a label, against counting."""

import random
from collections import Counter

from workers.data.lengths import length_auc, longer_is_better, summarise


def test_a_distribution_has_its_quantiles_and_all_its_lengths_in_bins() -> None:
    found = summarise(Counter([1, 16, 17, 40, 100, 100, 5000]))
    assert found is not None
    assert (found.count, found.min, found.median, found.p95, found.max) == (7, 1, 40, 5000, 5000)
    assert found.mean == round((1 + 16 + 17 + 40 + 100 + 100 + 5000) / 7, 1)
    filled = {bin_.up_to: bin_.count for bin_ in found.bins if bin_.count}
    assert filled == {16: 2, 32: 1, 48: 1, 128: 2, 6144: 1}
    assert [bin_.up_to for bin_ in found.bins][:8] == [16, 32, 48, 64, 96, 128, 192, 256]


def test_no_lengths_have_no_distribution() -> None:
    assert summarise(Counter()) is None


def test_the_auc_is_the_share_of_couples_in_which_the_desirable_answer_is_longer() -> None:
    rng = random.Random(0)
    desirable = [rng.randint(3, 12) for _ in range(60)]
    undesirable = [rng.randint(1, 10) for _ in range(40)]
    wins = sum((a > b) + (a == b) / 2 for a in desirable for b in undesirable)
    found = length_auc(Counter(desirable), Counter(undesirable))
    assert found is not None
    assert found.value == round(wins / 2400, 4)
    assert found.low < found.value < found.high
    assert found.count == 100


def test_a_label_that_length_decides_has_an_auc_of_one_and_one_it_decides_not_a_half() -> None:
    decided = length_auc(Counter([5, 6]), Counter([1, 2]))
    undecided = length_auc(Counter([1, 2]), Counter([1, 2]))
    assert decided is not None
    assert undecided is not None
    assert (decided.value, undecided.value) == (1.0, 0.5)
    assert length_auc(Counter([1]), Counter()) is None


def test_the_interval_of_a_share_is_wilsons() -> None:
    found = longer_is_better(8, 2)
    assert found is not None
    assert (found.low, found.value, found.high) == (0.4902, 0.8, 0.9433)
    assert longer_is_better(0, 0) is None
