"""The file in which a job leaves what training did to its pairs: written by its worker, read by the API.

An SQLite database, whole when it has its name and never changed after: pages of any order are read from it without
holding the rest, and both sides have it in their standard library. Log-probs are natural logarithms.

    about    name, value: facts of the whole file as JSON (`PairsAbout`)
    pairs    one line a pair: sums and margins, the beginnings of its texts, and its place in every order
    details  what is needed of a pair that is looked at: its texts, those of tokens as JSON, token ids and log-probs

Blobs are little-endian: ids int32, log-probs float32, one for each token of an answer; NaN where the token does not
count in the loss. `digest` is the key of the pair in the reference store (`workers.data.examples.Example.key`). The
number of a pair is that of its row in the training file.
"""

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

DEFAULT_PAIRS = 1000
MAX_PAIRS = 20_000
EXCERPT = 240  # characters of a text that a list shows


class PairSort(StrEnum):
    """Orders of pairs, each from its least value up."""

    ROW = "row"
    MOST_WRONG = "most_wrong"  # mean log-prob of a chosen token less that of a rejected one, after training
    MARGIN_BEFORE = "margin_before"
    MARGIN_AFTER = "margin_after"
    MARGIN_CHANGE = "margin_change"

    @property
    def column(self) -> str:
        """Of table `pairs`: the place of each pair in this order, from 1, or its row."""
        return "row" if self is PairSort.ROW else f"by_{self.value}"


class PairsAbout(BaseModel):
    """What the numbers of a job's pairs are."""

    before: Literal["reference", "start"] = Field(
        description="What `before` was measured under: the job's reference model, or, where the losses have none or it "
        "follows the policy, the policy at the start of training."
    )
    scored: int = Field(description="Pairs that were measured.")
    trained: int = Field(description="Pairs that were trained on; more than `scored` if a sample was drawn.")
    seed: int = Field(description="`training.seed`, by which the sample was drawn.")
    steps: int = Field(description="Optimizer steps after which `after` was measured.")
    seconds: float = Field(description="What measuring took of the policy's workers.")
    preferred_before: int = Field(description="Pairs whose chosen answer was likelier than the rejected one before.")
    preferred_after: int = Field(description="The same after training.")


SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE pairs (
    row INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    num_answers INTEGER NOT NULL,
    prompt_end TEXT NOT NULL,
    chosen_start TEXT NOT NULL,
    rejected_start TEXT NOT NULL,
    chosen_tokens INTEGER NOT NULL,
    rejected_tokens INTEGER NOT NULL,
    chosen_before REAL, chosen_after REAL, rejected_before REAL, rejected_after REAL,
    margin_before REAL, margin_after REAL, margin_change REAL, most_wrong REAL,
    by_margin_before INTEGER, by_margin_after INTEGER, by_margin_change INTEGER, by_most_wrong INTEGER
);
CREATE TABLE details (
    row INTEGER PRIMARY KEY,
    prompt TEXT NOT NULL,
    chosen_ids BLOB NOT NULL, chosen_texts TEXT NOT NULL,
    chosen_logps_before BLOB NOT NULL, chosen_logps_after BLOB NOT NULL,
    rejected_ids BLOB NOT NULL, rejected_texts TEXT NOT NULL,
    rejected_logps_before BLOB NOT NULL, rejected_logps_after BLOB NOT NULL
);
"""
