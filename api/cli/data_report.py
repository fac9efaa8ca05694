"""A data report as a person reads it."""

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from service.spec.data_report import DataReport, Lengths, RowSet

_BAR = 40


def show(report: DataReport, console: Console) -> None:
    made = f" make {report.rows} for the job" if report.rows != report.file_rows else ""
    console.print(f"{report.file_rows} rows{made}, {report.used} used, {report.bad} left out", style="bold")
    if report.read_as:
        console.print(f"read as: {report.read_as}", markup=False)
    if report.cut_off:
        console.print(f"cannot be read past {report.cut_off}", style="red", markup=False)
    if report.reasons:
        console.print(_reasons(report))
    console.print(_counts(report))
    for title, lengths in (("prompt", report.prompt_lengths), ("answer", report.answer_lengths)):
        if lengths is not None:
            console.print(f"\n{title}, {report.unit}", style="bold")
            console.print(_histogram(lengths))
    for advice in report.warnings:
        console.print(f"\nwarning: {advice.message} [{advice.code}]", style="yellow", markup=False)


def _reasons(report: DataReport) -> Table:
    table = Table(Column("left out", no_wrap=True), Column("rows", justify="right"), "numbers", "reason", box=None)
    for reason in report.reasons:
        table.add_row(reason.code, str(reason.count), _numbers(reason), escape(reason.message))
    return table


def _counts(report: DataReport) -> Table:
    table = Table(Column(no_wrap=True), Column(justify="right"), "", box=None, show_header=False)
    table.add_row("truncated", str(report.truncated), f"{report.truncated_share:.1%}")
    table.add_row("longest, as used", str(report.longest), report.unit)
    table.add_row("exact duplicates", str(report.duplicates.count), _numbers(report.duplicates))
    table.add_row("equal answers", str(report.equal_answers.count), _numbers(report.equal_answers))
    table.add_row("contradicted", str(report.contradictions.count), _numbers(report.contradictions))
    overlap = report.overlap
    table.add_row("held-out prompts trained on", str(overlap.shared.count), f"of {overlap.held_out} held out")
    if report.special_tokens is not None:
        table.add_row("special tokens in content", str(report.special_tokens.count), _numbers(report.special_tokens))
    if (bias := report.length_bias) is not None:
        name = "longer answer is better" if bias.measure == "longer_is_better" else "AUC of length for the label"
        table.add_row(name, f"{bias.value:.3f}", f"95 % interval {bias.low:.3f} to {bias.high:.3f}, {bias.count} rows")
    return table


def _histogram(lengths: Lengths) -> Table:
    table = Table(Column(justify="right"), Column(justify="right"), "", box=None, show_header=False)
    most = max(bin_.count for bin_ in lengths.bins)
    for bin_ in lengths.bins:
        table.add_row(f"<= {bin_.up_to}", str(bin_.count), "█" * round(_BAR * bin_.count / most))
    table.caption = (
        f"mean {lengths.mean:g}, median {lengths.median}, 95 % up to {lengths.p95}, from {lengths.min} to {lengths.max}"
    )
    return table


def _numbers(rows: RowSet) -> str:
    if not rows.count:
        return ""
    return "row " + ", ".join(map(str, rows.rows[:8])) + (" ..." if rows.count > 8 else "")
