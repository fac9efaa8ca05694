"""How the result is judged."""

from pydantic import Field, model_validator

from service.spec.base import SpecModel

KL_BUDGET = 0.5


class Evaluation(SpecModel):
    held_out_fraction: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of the rows kept out of training, on which loss and rewards are measured at the end.",
    )
    every: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Measure the held-out rows after every so many optimizer steps too, not only at the end.",
    )
    kl_budget: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Nats a token that the policy may move from its reference (metric `kl`) before the alarm "
        f"kl_beyond_budget is raised; by default {KL_BUDGET}. Training goes on. Only with a reference.",
    )
    held_out_max: int = Field(512, ge=1, le=100_000, description="At most this many rows are held out.")

    @model_validator(mode="after")
    def _something_is_measured(self) -> "Evaluation":
        if self.every is not None and not self.held_out_fraction:
            raise ValueError("`every` measures held-out rows, of which `held_out_fraction: 0` leaves none")
        return self
