"""The control API of a standalone ECS double: what other processes can tell and ask it.

Each call is `POST /_control/<verb>` with a JSON object, and answers a JSON
object; an unknown verb or argument answers 400 with `{"error": …}`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from push_pools.testing.doubles_http import Reply, Request
from push_pools.testing.ecs_faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.testing.ecs_double import EcsDouble
    from push_pools.testing.ecs_tasks import Document


def answer_control(ecs: EcsDouble, request: Request) -> Reply:
    """Do one control call."""
    verb = request.path.removeprefix("/_control/").partition("?")[0]
    try:
        body = json.loads(request.body or b"{}")
        if verb not in VERBS:
            raise LookupError(f"no verb {verb!r}; one of {', '.join(sorted(VERBS))}")
        answer = VERBS[verb](ecs, body)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return Reply(400, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
    return Reply(200, json.dumps(answer).encode())


def _fault(ecs: EcsDouble, body: Document) -> Document:
    ecs.faults.told(FAULTS, body)
    return {}


def _clear_faults(ecs: EcsDouble, body: Document) -> Document:
    ecs.faults.clear()
    return {}


def _release(ecs: EcsDouble, body: Document) -> Document:
    ecs.release()
    return {}


def _advance(ecs: EcsDouble, body: Document) -> Document:
    advance: Callable[[float], Any] = getattr(ecs.clock, "advance")  # noqa: B009 - only movable clocks have it.
    advance(float(body["seconds"]))
    return {"now": ecs.model.now().isoformat()}


def _ends(name: str) -> Callable[[EcsDouble, Document], Document]:
    def end(ecs: EcsDouble, body: Document) -> Document:
        return {"ended": getattr(ecs, name)(body["task"])}

    return end


def _finish(ecs: EcsDouble, body: Document) -> Document:
    return {"ended": ecs.finish(body["task"], body.get("exit_code", 0))}


def _tasks(ecs: EcsDouble, body: Document) -> Document:
    return {"tasks": ecs.model.documents()}


def _calls(ecs: EcsDouble, body: Document) -> Document:
    with ecs.model.lock:
        calls = dict(ecs.calls)
    return {"calls": calls, "started": len(ecs.started), "running": len(ecs.running())}


def _started(ecs: EcsDouble, body: Document) -> Document:
    started = [each.__dict__ | {"created_at": each.created_at.isoformat()} for each in ecs.started]
    return {"started": started}


def _events(ecs: EcsDouble, body: Document) -> Document:
    return {"events": ecs.task_state_change_events(**body)}


VERBS: dict[str, Callable[[EcsDouble, Document], Document]] = {
    "fault": _fault,
    "clear_faults": _clear_faults,
    "release": _release,
    "advance": _advance,
    "kill": _ends("kill"),
    "oom": _ends("oom"),
    "spot": _ends("spot"),
    "host_failure": _ends("host_failure"),
    "finish": _finish,
    "tasks": _tasks,
    "calls": _calls,
    "started": _started,
    "events": _events,
}
