"""What rows a job learns from."""

from enum import StrEnum


class DataShape(StrEnum):
    PAIRS = "pairs"  # a prompt with a chosen and a rejected answer
    RANKED = "ranked"  # a prompt with k answers, best first; a pair is the case k = 2
    UNPAIRED = "unpaired"  # a prompt with one answer and whether it is desirable; a pair makes two of them
    ANSWERS = "answers"  # a prompt with one good answer; of a pair or a ranking the best
