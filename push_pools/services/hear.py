"""What a platform says by itself about one of its jobs, in an event. A hint: sweeps find what is missed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from push_pools.domain.errors import NotFound, PlatformError
from push_pools.ports import ReadsEvents
from push_pools.services.handle import handle_message
from push_pools.services.log import log
from push_pools.services.poll import job_over

if TYPE_CHECKING:
    from collections.abc import Mapping

    from push_pools.ports import App, Invocation
    from push_pools.services.handle import Handle


def told(platform: str) -> Handle:
    """Return what handles a queue in which events of a platform's cloud and messages of our own come mixed.

    It raises what `handle_message` does.
    """

    def handle(body: str, envelope_id: str, app: App, invocation: Invocation) -> None:
        detail = _detail(body)
        if detail is None:
            handle_message(body, envelope_id, app, invocation)
        else:
            hear(platform, detail, app)

    return handle


def hear(platform: str, detail: Mapping[str, Any], app: App) -> None:
    """Record what an event says of a run's job; the event of a job that is nobody's, or of an old one, says nothing.

    Raises:
        StoreUnavailable: The ledger cannot be read or written.
    """
    reader = app.platforms(platform)
    if not isinstance(reader, ReadsEvents):
        return
    reported = reader.reported(detail)
    if reported is None:
        return
    try:
        run = app.store.get_run(reported.run_id)
    except NotFound:
        return
    if run.platform != platform or run.attempt != reported.attempt or run.job is None:
        return
    try:
        answer = reader.read_event(detail, run.job.handle)
    except PlatformError as error:
        log.warning("told_in_vain", extra={"flow_run_id": str(run.id), "reason": error.reason})
        return
    if answer is not None:
        handle, seen = answer
        job_over(handle.model_copy(update={"run_id": run.id, "attempt": run.attempt}), seen, app)


def _detail(body: str) -> Mapping[str, Any] | None:
    """Return what an event of a cloud service says, if the message is one; ours have a type of their own."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not str(value.get("source", "")).startswith("aws."):
        return None
    detail = value.get("detail")
    return detail if isinstance(detail, dict) else None
