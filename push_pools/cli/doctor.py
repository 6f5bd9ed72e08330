"""`push-pools doctor`: what is wrong with this home, or installation on AWS, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from push_pools.cli.base import settings, silence, verb
from push_pools.cli.output import Format, Output, Styled, print_list

if TYPE_CHECKING:
    from push_pools.bootstrap import Embedded
    from push_pools.domain.findings import Finding
    from push_pools.ports import DeadLetters
    from push_pools.settings import Settings

app = verb()

STYLES = {"ok": "green", "warn": "yellow", "red": "bold red"}


@app.command()
def doctor(output: Output = Format.TABLE) -> None:
    """Look for what is wrong with the home, and say what to do; exit 1 if anything is red.

    Works with and without a running server, and writes nothing.
    """
    from push_pools.services.doctor import is_red

    silence()
    found = findings(settings())
    rows = [(Styled(each.level, STYLES[each.level]), each.check, each.found, each.fix) for each in found]
    print_list([each.as_listed() for each in found], output, ("level", "check", "found", "fix"), rows)
    if is_red(found):
        raise typer.Exit(1)


def findings(given: Settings) -> list[Finding]:
    """Return everything that is found in a home; where there is no ledger, or none that opens, that is said."""
    from push_pools.bootstrap import embedded
    from push_pools.domain.errors import PushPoolsError
    from push_pools.domain.findings import ok
    from push_pools.server.home_checks import check_home, unusable

    if given.aws_table is not None:
        return _installation_findings(given)
    found = list(check_home(given.home))
    if len(found) == 1:
        return found  # There is no home, or none that can be looked into.
    if not (given.home / "ledger.db").exists():
        return [*found, ok("ledger", "there is none yet; the first command that writes makes it")]
    try:
        with embedded(given) as home:
            return [*found, *_ledger_findings(home, given)]
    except PushPoolsError as error:
        return [*found, unusable(error)]


def _installation_findings(given: Settings) -> list[Finding]:
    """Look at an installation on AWS, with the caller's own identity."""
    from typing import cast

    from push_pools.bootstrap import open_aws
    from push_pools.clocks import SystemClock
    from push_pools.credentials import is_long_lived
    from push_pools.domain.errors import PushPoolsError
    from push_pools.domain.findings import red
    from push_pools.services.doctor import Patient, examine

    try:
        app = open_aws(given)
        letters = cast("DeadLetters", app.queue).dead_letters
        now = SystemClock().now()
        patient = Patient(app, now, dead_letters=letters, is_long_lived=is_long_lived, on_functions=True)
        return list(examine(patient))
    except PushPoolsError as error:
        return [red("installation", str(error), "correct PUSH_POOLS_AWS_… and the rights of your identity")]


def _ledger_findings(home: Embedded, given: Settings) -> list[Finding]:
    from push_pools.clocks import SystemClock
    from push_pools.credentials import is_long_lived
    from push_pools.server.home import served_since
    from push_pools.server.home_checks import check_file
    from push_pools.services.doctor import Patient, examine

    patient = Patient(
        home.app,
        SystemClock().now(),
        served_since=served_since(given.home),
        dead_letters=home.queue.dead_letters,
        is_long_lived=is_long_lived,
    )
    return [*check_file(home), *examine(patient)]
