"""What an exposition says, and what was added to it."""

import re
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, tuple[str, ...]], float]


def samples(exposition: str) -> Samples:
    """Values by name and label values, in the order of the labels' names."""
    found: Samples = defaultdict(float)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found[sample.name, tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def names(exposition: str) -> set[str]:
    """Of Plumbline's own families."""
    return set(re.findall(r"^# TYPE (plumbline_\w+)", exposition, re.MULTILINE))
