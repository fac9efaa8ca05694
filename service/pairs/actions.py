"""What a person may say of a mislabelled pair."""

from enum import StrEnum


class FlagAction(StrEnum):
    SWAP = "swap"  # the rejected answer is the better one
    DROP = "drop"  # neither is: the row teaches nothing, or the wrong thing
