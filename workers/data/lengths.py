"""Distributions of lengths, and how well length alone predicts a preference."""

import math
from collections import Counter

from service.spec.data_report import LengthBias, LengthBin, Lengths

_Z = 1.959964  # 95 % of a normal distribution


def summarise(lengths: Counter[int]) -> Lengths | None:
    """None for no lengths. Bins end at 16, 32, 48, 64, 96, 128, 192 and so on, up to the one that holds the maximum."""
    count = lengths.total()
    if not count:
        return None
    ordered = sorted(lengths.items())
    edges = [16, 32]
    while edges[-1] < ordered[-1][0]:
        edges += [edges[-1] * 3 // 2, edges[-1] * 2]
    return Lengths(
        count=count,
        mean=round(sum(length * times for length, times in ordered) / count, 1),
        min=ordered[0][0],
        median=_quantile(ordered, count, 0.5),
        p95=_quantile(ordered, count, 0.95),
        max=ordered[-1][0],
        bins=_bins(ordered, edges),
    )


def longer_is_better(longer: int, shorter: int) -> LengthBias | None:
    """longer, shorter: rows whose preferred answer is the longer one, the shorter one. Wilson's interval."""
    count = longer + shorter
    if not count:
        return None
    share, z2 = longer / count, _Z * _Z / count
    centre = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return _bias("longer_is_better", share, centre - half, centre + half, count)


def length_auc(desirable: Counter[int], undesirable: Counter[int]) -> LengthBias | None:
    """Area under the ROC curve of length as a predictor of the label (Mann and Whitney's U over its maximum).

    The interval takes the standard error of Hanley and McNeil, "The meaning and use of the area under a receiver
    operating characteristic (ROC) curve", Radiology 143, 1982.
    """
    positives, negatives = desirable.total(), undesirable.total()
    if not positives or not negatives:
        return None
    wins = 0.0
    shorter = 0  # undesirable answers that are shorter than the present length
    for length in sorted(desirable.keys() | undesirable.keys()):
        wins += desirable[length] * (shorter + undesirable[length] / 2)
        shorter += undesirable[length]
    auc = wins / (positives * negatives)
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc * auc) + (negatives - 1) * (q2 - auc * auc)
    half = _Z * math.sqrt(max(spread, 0.0) / (positives * negatives))
    return _bias("auc", auc, auc - half, auc + half, positives + negatives)


def _bias(measure: str, value: float, low: float, high: float, count: int) -> LengthBias:
    return LengthBias.model_validate(
        {
            "measure": measure,
            "value": round(value, 4),
            "low": round(max(low, 0.0), 4),
            "high": round(min(high, 1.0), 4),
            "count": count,
        }
    )


def _quantile(ordered: list[tuple[int, int]], count: int, share: float) -> int:
    seen = 0
    for length, times in ordered:
        seen += times
        if seen >= share * count:
            return length
    return ordered[-1][0]


def _bins(ordered: list[tuple[int, int]], edges: list[int]) -> list[LengthBin]:
    counts = [0] * len(edges)
    at = 0
    for length, times in ordered:
        while length > edges[at]:
            at += 1
        counts[at] += times
    while len(counts) > 1 and not counts[-1]:
        counts.pop()
    return [LengthBin(up_to=edge, count=count) for edge, count in zip(edges, counts, strict=False)]
