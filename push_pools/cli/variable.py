"""`push-pools variable`: named JSON values that templates may use."""

from __future__ import annotations

from typing import Annotated

import typer

from push_pools.cli.base import noun, opened
from push_pools.cli.inputs import json_or_text
from push_pools.cli.output import Format, Output, plain, print_data, print_records, say

app = noun("Variables: named JSON values that templates may use. Not for secrets.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the variable.")]


@app.command("set")
def set_(
    name: Name,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A JSON value; what is not JSON is text.")],
    overwrite: Annotated[bool, typer.Option(help="Whether a variable that is there may be changed.")] = True,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag; may be repeated.")] = None,
) -> None:
    """Set a variable."""
    from push_pools.services.catalogue import set_variable

    with opened() as home:
        set_variable(home, name, json_or_text(value), tags=tag or (), overwrite=overwrite)
    say(f"Set variable {name!r}.")


@app.command()
def get(name: Name, output: Output = Format.TABLE) -> None:
    """Print the value of a variable; with -o json or yaml all of the variable."""
    from push_pools.services.catalogue import get_variable

    with opened() as home:
        variable = get_variable(home, name)
    if output is not Format.TABLE:
        print_data(variable.model_dump(mode="json"), output)
    elif isinstance(variable.value, str):
        say(variable.value)
    else:
        print_data(variable.value, Format.JSON)


@app.command()
def ls(output: Output = Format.TABLE) -> None:
    """List the variables."""
    from push_pools.services.catalogue import list_variables

    with opened() as home:
        variables = list_variables(home)
    rows = [(each.name, plain(each.value)[:80], ", ".join(each.tags), each.updated_at) for each in variables]
    data = [each.model_dump(mode="json") for each in variables]
    print_records(data, output, ("name", "value", "tags", "updated"), rows, variables)


@app.command()
def unset(name: Name) -> None:
    """Delete a variable; where a template names it, there is empty text from now on."""
    from push_pools.services.catalogue import unset_variable

    with opened() as home:
        unset_variable(home, name)
    say(f"Deleted variable {name!r}.")
