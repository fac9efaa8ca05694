"""The model card of a finished job, with what became known after its model was published."""

import json
import re
from collections.abc import Sequence

from service.evaluations.figures import IntervalFigure, Results
from service.reports.facts import CURVES, Facts
from service.spec import AlignmentJob


def card(facts: Facts) -> str:
    """Markdown in the Hugging Face form. What clients wrote is escaped: it can make neither markup nor front matter."""
    spec = AlignmentJob.model_validate(facts.job.spec)
    losses = ", ".join(f"{loss.weight:g} x {loss.type}" for loss in spec.losses)
    base = facts.lineage[-1].source if facts.lineage else spec.model.source
    front = [
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([f"base_model: {json.dumps(base.removeprefix('hf:').partition('@')[0])}"] if base.startswith("hf:") else []),
        f"tags: [plumbline, {', '.join(loss.type for loss in spec.losses)}]",
    ]
    sections = [
        "---\n" + "\n".join(front) + "\n---",
        f"# {text(facts.job.spec.get('name') or facts.job.id)}",
        f"Aligned with Plumbline in job `{facts.job.id}`, starting from {code(facts.started_from)}.",
        _table(
            ("", ""),
            [
                ("losses", losses),
                ("method", spec.training.method.type),
                ("batch size", f"{spec.training.batch_size} rows"),
                ("learning rate", f"{spec.learning_rate:g}, {spec.training.schedule}"),
                ("epochs", f"{spec.training.epochs:g}"),
                ("seed", str(spec.training.seed)),
                ("GPU-hours", f"{facts.job.gpu_seconds / 3600:.2f}"),
            ],
        ),
        "## Data\n\n" + _data(facts),
        "## Training\n\n" + _training(facts),
        "## Evaluation\n\n" + _evaluations(facts.evaluations),
        "## Lineage\n\n" + _lineage(facts),
        "## Specification\n\n" + _fenced(json.dumps(facts.spec, indent=2, ensure_ascii=False)),
    ]
    return "\n\n".join(sections) + "\n"


def text(value: object) -> str:
    """Text of somebody else's for Markdown: shown as it is, on one line."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]()<>#+!|~&-])", r"\\\1", line).replace("\\<", "&lt;").replace("\\&", "&amp;")


def code(value: object) -> str:
    """The same as code."""
    line = " ".join(str(value).split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"`{line}`"


def percent(figure: IntervalFigure | None) -> str:
    return f"{figure.estimate:.1%} [{figure.low:.1%}, {figure.high:.1%}]" if figure else "not measured"


def _data(facts: Facts) -> str:
    rows = [("source", code(facts.spec["data"]["train"])), ("SHA-256", code(facts.data_sha256 or "not known"))]
    if facts.data is not None:
        rows += [
            ("rows", f"{facts.data.used} used of {facts.data.rows}, {facts.data.bad} could not be"),
            ("truncated", str(facts.data.truncated)),
            ("held out", str(facts.data.overlap.held_out)),
        ]
    return _table(("", ""), rows)


def _training(facts: Facts) -> str:
    parts = []
    if facts.curve:
        first, last = facts.curve[0], facts.curve[-1]
        rows = [
            (name, f"{first.mean[name]:.4g}", f"{last.mean[name]:.4g}")
            for name in CURVES
            if name in first.mean and name in last.mean
        ]
        parts.append(_table(("metric", f"step {first.first_step}", f"step {last.last_step}"), rows))
    if facts.held_out is not None:
        values = sorted((name, value) for name, value in facts.held_out.values.items() if value is not None)
        heading = f"On held-out rows, after step {facts.held_out.step}:\n\n"
        parts.append(heading + _table(("metric", "value"), [(text(name), f"{value:.4g}") for name, value in values]))
    if facts.alarms:
        parts.append("Alarms:\n\n" + "\n".join(f"- {text(alarm.message)}" for alarm in facts.alarms))
    else:
        parts.append("No alarm was raised.")
    return "\n\n".join(parts)


def _evaluations(evaluations: Sequence[Results]) -> str:
    return "\n\n".join(_evaluation(one) for one in evaluations) or "None yet."


def _evaluation(results: Results) -> str:
    heading = f"{text(results.name or results.evaluation_id)} (`{results.evaluation_id}`, {results.num_items} prompts)"
    rows = [
        (
            f"{text(pair.model)} against {text(pair.baseline)}",
            text(judge.judge),
            percent(pair.win_rate),
            f"{pair.length_controlled.estimate:.1%}" if pair.length_controlled else "",
            f"{pair.sequential.decision or 'undecided'}, p <= {pair.sequential.p_bound:.2g}",
        )
        for judge in results.judges
        for pair in judge.pairs
    ]
    shown = (
        [_table(("models", "judge", "win rate [95%]", "length-controlled", "sequential test"), rows)] if rows else []
    )
    shown += [f"Implicit-reward accuracy: {percent(one.accuracy)}, held-out pairs." for one in results.rewards]
    shown += [
        f"{text(one.metric)} of {text(one.model)}: {one.mean:.4g}" for one in results.metrics if one.mean is not None
    ]
    return "\n\n".join([heading, *shown])


def _lineage(facts: Facts) -> str:
    lines = [f"- `{facts.job.id}`"]
    lines += [f"{'  ' * depth}- from {code(one.source)}" for depth, one in enumerate(facts.lineage, 1)]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _fenced(body: str) -> str:
    longest = max((len(run) for run in re.findall("`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}json\n{body}\n{fence}"
