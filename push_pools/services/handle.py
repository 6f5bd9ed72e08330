"""One message, whatever it asks for: what every host of the service calls for each delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from push_pools.domain.errors import NotFound
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
from push_pools.services.tick import tick

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from push_pools.ports import App, Invocation


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
        sweep(event.platform, app, shard=event.shard)
    elif isinstance(event, Admit):
        admit(event.work_pool, app)
    elif isinstance(event, JobChanged):
        job_changed(event, app)
    else:
        tick(app)


def _for_run(run_id: UUID, act: Callable[[], None]) -> None:
    try:
        act()
    except NotFound as error:
        if error.name != str(run_id):
            raise
        log.warning("run_unknown", extra={"flow_run_id": str(run_id)})  # Its history is over: nothing is owed.
