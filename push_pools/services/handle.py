"""One message, whatever it asks for: what every host of the service calls for each delivery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import (
    InvalidInput,
    NotAllowed,
    NotFound,
    OutOfTime,
    PlatformMissing,
    StoreUnavailable,
)
from push_pools.domain.events import (
    Admit,
    Chores,
    JobChanged,
    ScheduledRun,
    Stop,
    Submit,
    Sweep,
    parse_event,
)
from push_pools.services.admit import admit
from push_pools.services.chores import do_chores
from push_pools.services.ledger import log
from push_pools.services.reported import job_changed
from push_pools.services.stop import stop_run
from push_pools.services.submit import submit_run, submit_scheduled_run
from push_pools.services.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from push_pools.ports import App, Invocation

    Handle = Callable[[str, str, App, Invocation], None]


MAX_TRIES: Final = 5
"""How often a message is tried that makes a handler fail in an unforeseen way."""


class Fate(StrEnum):
    """What becomes of a message that was handled."""

    DONE = "done"
    """The ledger holds its outcome: it is removed."""
    BACK = "back"
    """It could not be handled now: its queue delivers it again."""
    DEAD = "dead"
    """It can never be handled: it goes to the dead letters, with the reason."""


@dataclass(frozen=True)
class Outcome:
    """What becomes of a message, and why if it is not done with."""

    fate: Fate
    reason: str = ""


def deliver(
    body: str, envelope_id: str, receives: int, app: App, invocation: Invocation, handle: Handle | None = None
) -> Outcome:
    """Handle a message and return what its queue does with it, on every hosting the same.

    `receives` counts how often it was handed out, this time included. `handle` stands in for `handle_message`.
    """
    fields = {"message_id": envelope_id}
    try:
        (handle or handle_message)(body, envelope_id, app, invocation)
    except (OutOfTime, StoreUnavailable) as error:
        log.warning("message_back", extra={**fields, "reason": str(error)})
        return Outcome(Fate.BACK, str(error))
    except (InvalidInput, NotAllowed, NotFound, PlatformMissing) as error:
        log.warning("message_dead", extra={**fields, "reason": str(error)})
        return Outcome(Fate.DEAD, str(error))
    except Exception as error:  # Whatever it is, other messages go on.
        log.exception("message_failed", extra=fields)
        return Outcome(Fate.DEAD if receives >= MAX_TRIES else Fate.BACK, f"{type(error).__name__}: {error}")
    return Outcome(Fate.DONE)


def handle_message(body: str, envelope_id: str, app: App, invocation: Invocation) -> None:
    """Do what a message asks for. When this returns, the ledger holds the outcome and the message is done with.

    Raises:
        OutOfTime: Give the message back.
        StoreUnavailable: Give the message back; its queue delivers it again.
        InvalidInput: The message can never be read; keep it among the dead letters.
        NotFound: A scheduled-run names something that does not exist; likewise.
        NotAllowed: A scheduled-run is for something paused; likewise.
    """
    parsed = parse_event(body, envelope_id=envelope_id)
    event = parsed.event
    if isinstance(event, ScheduledRun):
        submit_scheduled_run(event, app, invocation, envelope_id=parsed.envelope_id or envelope_id)
    elif isinstance(event, Submit):
        run_id = event.run_id
        _for_run(run_id, lambda: submit_run(run_id, app, invocation))
    elif isinstance(event, Stop):
        run_id = event.run_id
        _for_run(run_id, lambda: stop_run(run_id, app))
    elif isinstance(event, Chores):
        run_id = event.run_id
        _for_run(run_id, lambda: do_chores(run_id, app))
    elif isinstance(event, Sweep):
        until = invocation.deadline - timedelta(seconds=app.timing.spare_seconds)
        sweep(event.platform, app, shard=event.shard, after=event.after, until=until)
    elif isinstance(event, Admit):
        admit(event.work_pool, app)
    elif isinstance(event, JobChanged):
        job_changed(event, app)
    else:
        from push_pools.services.tick import tick  # Only hosts that plan load what planning takes.

        tick(app)


def _for_run(run_id: UUID, act: Callable[[], None]) -> None:
    try:
        act()
    except NotFound as error:
        if error.name != str(run_id):
            raise
        log.warning("run_unknown", extra={"flow_run_id": str(run_id)})  # Its history is over: nothing is owed.
