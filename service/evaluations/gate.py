"""What an evaluation must show before a model may be promoted. Pure."""

from dataclasses import dataclass

from pydantic import Field, model_validator

from service.evaluations.figures import JudgeFigures, PairFigures, Results
from service.spec.base import SpecModel

ANY_NAME = "*"
NAME_PATTERN = r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,99})$"


class Rule(SpecModel):
    """Everything that is given must hold, for the model against each baseline that it was compared with."""

    judge: str | None = Field(None, max_length=100, description="Whose verdicts count; by default every judge's.")
    judge_prompt: str | None = Field(
        None,
        max_length=100,
        description="Version of the prompt that LLM judges must have been given, such as `pairwise-v2`.",
    )
    baseline: str | None = Field(
        None,
        max_length=300,
        description="The model that it must have been compared with, as GET /v1/models names it: others "
        "do not count. A name that models are promoted to stands for what it means when the gate is asked. By default "
        "all comparisons with models before it count.",
        examples=["job:job-019316f0a6b2f3c1d4e5a:base"],
    )
    min_win_rate: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="The lower bound of the win rate's interval must be above this; of people's votes, whose number is "
        "not fixed beforehand, that of the confidence sequence, which holds whenever the voting is closed.",
    )
    length_controlled: bool = Field(False, description="`min_win_rate` is of the length-controlled win rate.")
    min_votes: int = Field(0, ge=0, le=1_000_000, description="Outcomes that the win rate must be computed from.")
    min_prompts: int = Field(0, ge=0, le=2000, description="Prompts that those outcomes must be about.")
    decided: bool = Field(False, description="The sequential test must have decided for the model.")
    no_position_bias: bool = Field(False, description="The judge's preference for a place must not be beyond doubt.")
    min_agreement: float | None = Field(None, ge=-1, le=1, description="Krippendorff's alpha, at least.")
    min_accuracy: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Implicit-reward accuracy on held-out pairs, at least: of the very job that made the model, and of "
        "a checkpoint after the very step.",
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Rule":
        if not self.model_dump(
            exclude_defaults=True, exclude={"judge", "judge_prompt", "baseline", "length_controlled"}
        ):
            raise ValueError("the rule asks for nothing: give `min_win_rate`, `min_votes`, `decided`...")
        if self.length_controlled and self.min_win_rate is None:
            raise ValueError("`length_controlled` says which win rate `min_win_rate` is of: give that too")
        return self


@dataclass(frozen=True)
class Promoted:
    """The model that is to be promoted. name: what the evaluation calls it. step: of a checkpoint. baseline: what it
    calls the rule's one, None if it has none of that."""

    name: str
    job_id: str
    step: int | None = None
    baseline: str | None = None


@dataclass(frozen=True)
class Check:
    """One thing that the rule asks for. required, found: for people."""

    what: str
    required: str
    found: str
    passed: bool


def check(rule: Rule, results: Results, model: Promoted) -> list[Check]:
    """What the rule asks for and whether `results` show it of the model. The gate is passed if all checks are; there is
    one at least. What was not measured is not passed."""
    checks: list[Check] = []
    judges = [one for one in results.judges if rule.judge in (None, one.judge)]
    against = [pair.baseline for one in judges for pair in one.pairs] if rule.baseline is None else [model.baseline]
    pairs = [
        (judge, pair)
        for judge in judges
        for pair in judge.pairs
        if pair.model == model.name and pair.baseline in against
    ]
    compares = rule.min_win_rate is not None or rule.min_votes or rule.min_prompts or rule.decided
    if (compares or rule.no_position_bias) and not pairs:
        who = f"by '{rule.judge}' " if rule.judge else ""
        whom = f"'{rule.baseline}', which must come before it" if rule.baseline else "a baseline"
        checks.append(Check(f"'{model.name}' compared {who}with {whom}", "yes", "no", False))
    if rule.judge_prompt is not None:
        prompts = [(one.judge, one.prompt) for one in judges if one.prompt is not None]
        for judge_name, prompt in prompts:
            checks.append(Check(f"prompt of '{judge_name}'", rule.judge_prompt, prompt, prompt == rule.judge_prompt))
    for judge, pair in pairs:
        checks += _of_pair(rule, judge, pair)
    if rule.no_position_bias:
        checks += [_of_position(judge) for judge in judges]
    if rule.min_agreement is not None:
        alpha = results.agreement.estimate if results.agreement else None
        checks.append(_at_least("agreement of judges (Krippendorff's alpha)", rule.min_agreement, alpha))
    if rule.min_accuracy is not None:
        # results have the job's last measurement, which is of the model that it publishes
        mine = [one for one in results.rewards if one.job_id == model.job_id and model.step in (None, one.step)]
        accuracy = mine[0].accuracy.estimate if mine else None
        checks.append(_at_least("implicit-reward accuracy", rule.min_accuracy, accuracy))
    assert checks, f"nothing was checked by {rule}"
    return checks


def _of_pair(rule: Rule, judge: JudgeFigures, pair: PairFigures) -> list[Check]:
    checks = []
    against = f"against '{pair.baseline}' by '{judge.judge}'"
    num = pair.win_rate.num if pair.win_rate else 0
    if rule.min_win_rate is not None:
        rate = pair.length_controlled if rule.length_controlled else pair.win_rate
        kind = "length-controlled win rate" if rule.length_controlled else "win rate"
        low = rate.low if rate else None
        if rate and judge.type == "human" and not rule.length_controlled:
            kind, low = "win rate's confidence sequence", pair.sequential.low
        found = f"{low:.3f} (estimate {rate.estimate:.3f}, {num} outcomes)" if rate else "not measured"
        passed = low is not None and low > rule.min_win_rate
        checks.append(Check(f"lower bound of the {kind} {against}", f"above {rule.min_win_rate:g}", found, passed))
    if rule.min_votes:
        checks.append(Check(f"outcomes {against}", f"{rule.min_votes} or more", str(num), num >= rule.min_votes))
    if rule.min_prompts:
        num_prompts = pair.win_rate.num_clusters if pair.win_rate else 0
        enough = num_prompts >= rule.min_prompts
        checks.append(Check(f"prompts judged {against}", f"{rule.min_prompts} or more", str(num_prompts), enough))
    if rule.decided:
        test = pair.sequential
        found = f"{test.decision or 'undecided'} after {test.num} prompts (p <= {test.p_bound:.2g})"
        checks.append(Check(f"sequential test {against}", "better", found, test.decision == "better"))
    return checks


def _of_position(judge: JudgeFigures) -> Check:
    rate = judge.position.first_rate if judge.position else None
    found = f"first place wins {rate.estimate:.3f} [{rate.low:.3f}, {rate.high:.3f}]" if rate else "not measured"
    passed = judge.position is not None and not judge.position.biased
    return Check(f"position bias of '{judge.judge}'", "none beyond doubt", found, passed)


def _at_least(what: str, required: float, found: float | None) -> Check:
    shown = "not measured" if found is None else f"{found:.3f}"
    return Check(what, f"{required:g} or more", shown, found is not None and found >= required)
