"""`push-pools worker`: there is none, and this says so."""

from __future__ import annotations

from typing import Annotated

import typer

from push_pools.cli.base import verb

app = verb()


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def worker(words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
    """There is no worker; says what takes its place."""
    from push_pools.domain.errors import NotAllowed

    raise NotAllowed(
        "push work pools have no worker: `push-pools serve` submits the runs of every pool of this home by itself"
    )
