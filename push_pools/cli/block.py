"""`push-pools block`: credentials and other typed configuration. Secrets come from a file or standard input only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from push_pools.cli.base import confirm, noun, opened
from push_pools.cli.inputs import read_object
from push_pools.cli.output import Format, Output, note, print_data, print_list, print_record, print_records, say

if TYPE_CHECKING:
    from push_pools.credentials import BlockType

app = noun("Blocks: typed configuration, mostly credentials; secrets are encrypted.")
type_app = noun("Block types: which fields a block has, and which of them are secret.")
app.add_typer(type_app, name="type")

Ref = Annotated[str, typer.Argument(metavar="BLOCK", help="TYPE/NAME, or the block's id.")]


@type_app.command("ls")
def list_types(output: Output = Format.TABLE) -> None:
    """List the block types."""
    from push_pools.credentials import block_types

    found = list(block_types().values())
    data = [_type(each) for each in found]
    rows = [(each.slug, each.name, each.description) for each in found]
    print_list(data, output, ("slug", "name", "description"), rows)


def _type(found: BlockType) -> dict[str, Any]:
    return {"slug": found.slug, "name": found.name, "description": found.description}


@type_app.command("inspect")
def inspect_type(
    slug: Annotated[str, typer.Argument(metavar="TYPE", help="Slug of the type, such as aws-credentials.")],
    output: Output = Format.TABLE,
) -> None:
    """Show the fields of a block type."""
    from push_pools.credentials import block_type, secret_fields
    from push_pools.domain.described import described_schema

    found = block_type(slug)
    class_ = found.load()
    schema, secret = described_schema(class_), secret_fields(class_)
    if output is not Format.TABLE:
        print_data({**_type(found), "secret_fields": secret, "schema": schema}, output)
        return
    say(f"{found.name} ({found.slug}): {found.description}")
    rows = [
        (name, "secret" if name in secret else "", name in schema.get("required", ()), field.get("description", ""))
        for name, field in schema["properties"].items()
    ]
    print_list([], output, ("field", "", "required", "description"), rows)


@app.command()
def create(
    ref: Annotated[str, typer.Argument(metavar="TYPE/NAME", help="Type and name, such as aws-credentials/prod.")],
    data: Annotated[str, typer.Option("--data", metavar="FILE|-", help="File of the fields, a JSON or YAML object.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Give a block that is there new data; it keeps its id.")
    ] = False,
) -> None:
    """Create a block; its secret fields are encrypted at once. Delete the file afterwards."""
    from push_pools.credentials import is_long_lived
    from push_pools.domain.errors import NotFound
    from push_pools.services.blocks import create_block, replace_block

    slug, slash, name = ref.partition("/")
    if not (slug and slash and name):
        raise typer.BadParameter(f"{ref!r} is not TYPE/NAME; write it like aws-credentials/prod")
    fields = read_object(data, "a block")
    with opened() as home:
        try:
            block = replace_block(home, ref, fields) if replace else create_block(home, slug, name, fields)
        except NotFound as error:
            if error.kind != "block":
                raise
            block = create_block(home, slug, name, fields)
    say(f"{'Saved' if replace else 'Created'} block {block.key!r} ({block.id}).")
    if is_long_lived(slug, fields):
        note(f"block {block.key!r} holds a key that does not expire; a role or federation needs none")


@app.command()
def ls(
    type_: Annotated[str | None, typer.Option("--type", "-t", metavar="TYPE", help="Only blocks of this type.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """List the blocks; secrets are never shown."""
    from push_pools.credentials import block_type
    from push_pools.services.blocks import list_blocks, redact

    slug = block_type(type_).slug if type_ is not None else None
    with opened() as home:
        blocks = [block for block in list_blocks(home) if slug in (None, block.type_slug)]
    data = [redact(block.model_dump(mode="json")) for block in blocks]
    rows = [(block.type_slug, block.name, str(block.id), block.updated_at) for block in blocks]
    print_records(data, output, ("type", "name", "id", "updated"), rows, blocks)


@app.command()
def inspect(ref: Ref, output: Output = Format.TABLE) -> None:
    """Show a block; secrets are never shown."""
    from push_pools.services.blocks import inspect_block

    with opened() as home:
        found = inspect_block(home, ref)
    print_record(found, output)


@app.command()
def delete(ref: Ref, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete a block; refused while pools, deployments or active runs use it."""
    from push_pools.services.blocks import delete_block, find_block

    with opened() as home:
        block = find_block(home, ref)
        confirm(f"Delete block {block.key!r}?", yes)
        delete_block(home, block.key)
    say(f"Deleted block {block.key!r}.")
