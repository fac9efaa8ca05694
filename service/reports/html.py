"""Reports as HTML pages of one file each: plots inline, no script, nothing to fetch.

What clients and models wrote is text here: the templates escape everything, and the page's policy (`CSP`) lets nothing
run or load whatever it says.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.db.evaluation_tables import EvaluationAnswer, EvaluationItem
from service.evaluations.figures import IntervalFigure, LengthControlledFigure, Results
from service.evaluations.judge_prompt import as_text, text_of, version
from service.evaluations.request import EvaluationRequest, LlmJudge
from service.evaluations.results import Rows, compute
from service.evaluations.service import request_of
from service.reports import plots
from service.reports.facts import CURVES, Facts

NUM_EXAMPLES = 20
_STYLE = (Path(__file__).parent / "templates" / "style.css").read_text()
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CSP = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@dataclass(frozen=True)
class Example:
    position: int
    category: str | None
    prompt: str
    answers: Sequence[tuple[str, str]]


def evaluation_report(rows: Rows, items: Sequence[EvaluationItem], answers: Sequence[EvaluationAnswer]) -> str:
    """items, answers: those that are shown as examples."""
    request = request_of(rows.evaluation)
    judges = [one for one in request.judges if isinstance(one, LlmJudge)]
    return (
        _templates()
        .get_template("evaluation_report.html")
        .render(
            found=compute(rows),
            examples=_examples(request, items, answers),
            judge_prompts=[(one.name, version(one.prompt), text_of(one.prompt)) for one in judges],
            request=json.dumps(rows.evaluation.spec, indent=2, ensure_ascii=False),
        )
    )


def job_report(facts: Facts) -> str:
    curves = []
    for name in CURVES:
        points = [(float(at.last_step), at.mean[name]) for at in facts.curve if name in at.mean]
        if points:
            curves.append((name, points))
    return (
        _templates()
        .get_template("job_report.html")
        .render(facts=facts, curves=curves, spec=json.dumps(facts.spec, indent=2, ensure_ascii=False))
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("service.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.globals |= {
        "style": Markup(_STYLE),  # noqa: S704 - ours; and the policy names its digest
        "percent": _percent,
        "interval_rows": _interval_rows,
        "line": lambda points, label: Markup(plots.line(points, label)),  # noqa: S704 - it escapes
        "intervals": lambda rows, label: Markup(plots.intervals(rows, label)),  # noqa: S704 - it escapes
    }
    return templates


def _percent(figure: IntervalFigure | LengthControlledFigure) -> str:
    return f"{figure.estimate:.1%} [{figure.low:.1%}, {figure.high:.1%}]"


def _interval_rows(results: Results) -> list[tuple[str, float, float, float]]:
    return [
        (
            f"{pair.model} / {pair.baseline}, {judge.judge}",
            pair.win_rate.estimate,
            pair.win_rate.low,
            pair.win_rate.high,
        )
        for judge in results.judges
        for pair in judge.pairs
        if pair.win_rate is not None
    ]


def _examples(
    request: EvaluationRequest, items: Sequence[EvaluationItem], answers: Sequence[EvaluationAnswer]
) -> list[Example]:
    of_place = {(one.position, one.model): one for one in answers}
    examples = []
    for item in items:
        said = [
            (candidate.name, answer.text if answer.text is not None else f"(no answer: {answer.error})")
            for model, candidate in enumerate(request.models)
            if (answer := of_place.get((item.position, model))) is not None
        ]
        if said:
            examples.append(Example(item.position, item.category, as_text(item.prompt), said))
    return examples
