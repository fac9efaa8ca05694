"""What an evaluation shows, as it is told: numbers with their intervals, by judge and pair of models."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.evaluations.states import EvaluationState

CONFIDENCE = 0.95
ALPHA = 0.05


class Figures(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class IntervalFigure(Figures):
    estimate: float
    low: float
    high: float
    num: int = Field(description="Outcomes that it is computed from.")
    num_clusters: int = Field(description="Prompts that they are about.")


class LengthControlledFigure(Figures):
    estimate: float
    low: float
    high: float
    length_effect: float = Field(description="Log-odds that an answer gains by being longer; 0 if it does not matter.")
    mean_length_difference: float = Field(description="Characters that the model's answers are longer by.")
    num: int


class SequentialFigure(Figures):
    """A test that holds however often one looks: one may stop as soon as there is a decision."""

    num: int = Field(description="Outcomes, one for each prompt.")
    low: float = Field(description="Of the confidence sequence: at all times at once it holds the true win rate.")
    high: float
    e_value: float = Field(description="Evidence now against `both win equally often`.")
    p_bound: float = Field(description="Anytime-valid p-value: the lowest so far.")
    decision: Literal["better", "worse"] | None = Field(description="Of the model, at alpha 0.05; null: not yet.")
    decided_at: int | None = Field(description="After how many outcomes.")


class CategoryFigure(Figures):
    category: str | None
    win_rate: IntervalFigure


class PairFigures(Figures):
    """wins, losses, ties: of the model against the baseline, prompts for a judge that sees each pair in both orders
    (a tie if they contradict each other), votes for people."""

    model: str
    baseline: str
    wins: int
    losses: int
    ties: int
    win_rate: IntervalFigure | None = Field(description="Ties as half. Null without a verdict.")
    length_controlled: LengthControlledFigure | None = Field(description="Null with fewer than 10 prompts.")
    sequential: SequentialFigure
    categories: list[CategoryFigure] = Field(
        description="Intervals are of each category by itself: of twenty, one misses its truth by chance."
    )


class PositionFigure(Figures):
    first_rate: IntervalFigure = Field(description="How often what was shown first (left) won; 0.5 without bias.")
    biased: bool = Field(description="The interval leaves out 0.5.")
    consistent: IntervalFigure | None = Field(description="Share of pairs with one outcome in both orders.")


class RatingFigure(Figures):
    model: str
    rating: float = Field(description="Elo's scale, the mean of the models at 1000.")
    low: float
    high: float
    rank: int = Field(description="1 and the number of models that are better beyond doubt.")
    num: int


class JudgeFigures(Figures):
    judge: str
    type: Literal["human", "llm"]
    prompt: str | None = Field(description="Version of the prompt that an LLM judge is given.")
    num: int = Field(description="Votes or verdicts with an outcome.")
    failed: int = Field(description="Verdicts that could not be had or read, and pairs that voters skipped.")
    voters: int | None = Field(description="People who voted.")
    pairs: list[PairFigures]
    position: PositionFigure | None
    ranking: list[RatingFigure] | None = Field(
        description="Of three models or more, once all are linked by verdicts on 10 prompts or more."
    )


class AgreementFigure(Figures):
    estimate: float = Field(description="1: full agreement; 0: what chance gives.")
    low: float
    high: float
    num_items: int = Field(description="Pairs of answers that two raters or more have judged.")
    raters: int = Field(description="LLM judges and single voters.")


class KappaFigure(Figures):
    first: str
    second: str
    kappa: float
    num: int


class RewardFigures(Figures):
    judge: str
    job_id: str
    step: int
    accuracy: IntervalFigure
    margin: float | None = Field(description="Mean reward of the chosen answer less that of the rejected one.")


class MetricFigures(Figures):
    judge: str
    metric: str
    model: str
    mean: float | None
    low: float | None
    high: float | None
    num: int
    failed: int


class ModelFigures(Figures):
    model: str
    answered: int
    failed: int
    cut_off: int = Field(description="Answers that `max_tokens` ended.")
    mean_tokens: float | None
    mean_characters: float | None


class Results(Figures):
    evaluation_id: str
    object: Literal["evaluation.results"] = "evaluation.results"
    name: str | None
    job_id: str | None
    state: EvaluationState
    as_of: datetime
    num_items: int
    confidence: float = CONFIDENCE
    models: list[ModelFigures]
    judges: list[JudgeFigures]
    agreement: AgreementFigure | None
    kappas: list[KappaFigure]
    rewards: list[RewardFigures]
    metrics: list[MetricFigures]
    methods: dict[str, str] = Field(description="How each kind of number is computed, with the paper.")
