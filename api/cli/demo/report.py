"""What the demo prints about the answers: a table to look at, and shares to believe."""

from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.cli.demo.facts import Fact
from api.cli.demo.judge import MAX_WORDS, Verdict, judge
from api.views import Comparison

_EXAMPLES = 8


@dataclass(frozen=True)
class Answered:
    """Both models' answers to one held-out question."""

    question: str
    base: str
    aligned: str
    base_verdict: Verdict
    aligned_verdict: Verdict


@dataclass(frozen=True)
class Shares:
    """Of one model's answers, each 0..1."""

    preferred: float
    courteous: float
    brief: float
    right: float


def answered(fact: Fact, question: str, comparison: Comparison) -> Answered:
    """Judge a comparison as the API answers it."""
    base, aligned = comparison.base, comparison.aligned
    return Answered(
        question,
        base.text.strip(),
        aligned.text.strip(),
        judge(base.text, fact, finished=base.finish_reason == "stop"),
        judge(aligned.text, fact, finished=aligned.finish_reason == "stop"),
    )


def shares(verdicts: list[Verdict]) -> Shares:
    def share(name: str) -> float:
        return sum(bool(getattr(verdict, name)) for verdict in verdicts) / len(verdicts)

    return Shares(share("preferred"), share("courteous"), share("brief"), share("right"))


def render(answers: list[Answered]) -> RenderableType:
    """The table of examples, evenly spread over the questions, and the shares below it."""
    spread = [answers[i * len(answers) // _EXAMPLES] for i in range(min(_EXAMPLES, len(answers)))]
    examples = Table(title="Held-out questions: topics that job 2 never saw", title_justify="left", expand=True)
    for column in ("question", "base (job 1)", "aligned (job 2)"):
        examples.add_column(column, ratio=1)
    for answer in spread:
        examples.add_row(
            Text(answer.question),
            _marked(answer.base, answer.base_verdict),
            _marked(answer.aligned, answer.aligned_verdict),
        )

    base = shares([answer.base_verdict for answer in answers])
    aligned = shares([answer.aligned_verdict for answer in answers])
    table = Table(title=f"All {len(answers)} held-out questions", title_justify="left")
    table.add_column("share of answers that are")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for meaning, name in (
        ("courteous: a kind word, no rude one", "courteous"),
        (f"brief: ended within {MAX_WORDS} words", "brief"),
        ("right: the answer and no other", "right"),
        ("preferred: all three", "preferred"),
    ):
        style = "bold" if name == "preferred" else ""
        table.add_row(meaning, f"{getattr(base, name):.0%}", f"{getattr(aligned, name):.0%}", style=style)
    return Group(examples, table)


def _marked(text: str, verdict: Verdict) -> Text:
    return Text(text, "green" if verdict.preferred else "")
