"""How the result is judged."""

from pydantic import Field, model_validator

from service.spec.base import SpecModel
from service.spec.pairs import DEFAULT_PAIRS, MAX_PAIRS

KL_BUDGET = 0.5


class Evaluation(SpecModel):
    held_out_fraction: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of the rows kept out of training, on which loss and rewards are measured at the end.",
        json_schema_extra={"unit": "share of the rows"},
    )
    every: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Measure the held-out rows after every so many optimizer steps too, not only at the end.",
        json_schema_extra={"unit": "steps"},
    )
    kl_budget: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Nats a token that the policy may move from its reference (metric `kl`) before the alarm "
        f"kl_beyond_budget is raised; by default {KL_BUDGET}. Training goes on. Only with a reference.",
        json_schema_extra={"unit": "nats per token"},
    )
    held_out_max: int = Field(
        512, ge=1, le=100_000, description="At most this many rows are held out.", json_schema_extra={"unit": "rows"}
    )

    pairs: int | None = Field(
        None,
        ge=0,
        le=MAX_PAIRS,
        description="Of how many training pairs (of rankings, best and worst) the log-probs after training are kept, "
        f"for GET /v1/jobs/JOB/pairs: a sample drawn by `training.seed` if there are more. By default {DEFAULT_PAIRS}; "
        "0 measures none.",
        json_schema_extra={"unit": "pairs"},
    )

    @model_validator(mode="after")
    def _something_is_measured(self) -> "Evaluation":
        if self.every is not None and not self.held_out_fraction:
            raise ValueError("`every` measures held-out rows, of which `held_out_fraction: 0` leaves none")
        return self
