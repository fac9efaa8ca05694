"""`plumbline losses`: the catalogue, which needs no running Plumbline."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from api.cli.errors import CliError
from service.loss_hints import unknown_loss
from service.spec.catalogue import NOTATION, LossEntry, catalogue


def losses(
    type_: Annotated[str | None, typer.Argument(metavar="TYPE", help="Show all there is about this one.")] = None,
) -> None:
    """List the losses, or explain one."""
    entries = {str(entry.type): entry for entry in catalogue().data}
    console = Console(highlight=False)
    if type_ is None:
        console.print(_overview(list(entries.values())))
        console.print(f"\n{NOTATION}\n\nplumbline losses TYPE tells more of one.", markup=False)
    elif type_ in entries:
        _explain(entries[type_], console)
    else:
        raise CliError(unknown_loss(type_))


def _overview(entries: list[LossEntry]) -> Table:
    table = Table(Column("type", no_wrap=True), "formula", "reference", "rows", "options", box=None)
    for entry in entries:
        options = ", ".join(option.name for option in entry.parameters)
        reference = "yes" if entry.needs_reference else "no"
        table.add_row(entry.type, escape(entry.formula), reference, entry.data_shape, options)
    return table


def _explain(entry: LossEntry, console: Console) -> None:
    reference = "read" if entry.needs_reference else "not read"
    for line in (
        f"{entry.type}: {entry.title}",
        f"  {entry.formula}",
        f"  reference model {reference}; rows: {entry.data_shape}; paper: {entry.paper or '-'}",
        f"\n{entry.when_to_use}\n",
    ):
        console.print(line, markup=False)
    table = Table(Column("option", no_wrap=True), "default", "values", "meaning", box=None)
    for option in entry.parameters:
        values = option.range or ", ".join(option.choices or ("true", "false"))
        default = "" if option.default is None else str(option.default).lower()
        table.add_row(option.name, default, escape(values), escape(option.description))
    console.print(table)
    console.print(f"\n{NOTATION}", markup=False)
