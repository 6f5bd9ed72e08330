"""The control API of a standalone double of Azure Container Instances: what other processes can tell and ask it.

Each call is `POST /_control/<verb>` with a JSON object, and answers a JSON object; an unknown verb or argument answers
400 with `{"error": …}`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from push_pools.testing.aci_faults import FAULTS
from push_pools.testing.doubles_http import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.testing.aci_double import AciDouble
    from push_pools.testing.aci_groups import Document


def answer_control(aci: AciDouble, request: Request) -> Reply:
    """Do one control call."""
    verb = request.path.removeprefix("/_control/").partition("?")[0]
    try:
        body = json.loads(request.body or b"{}")
        if verb not in VERBS:
            raise LookupError(f"no verb {verb!r}; one of {', '.join(sorted(VERBS))}")
        answer = VERBS[verb](aci, body)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return Reply(400, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
    return Reply(200, json.dumps(answer).encode())


def _fault(aci: AciDouble, body: Document) -> Document:
    aci.faults.told(FAULTS, body)
    return {}


def _clear_faults(aci: AciDouble, body: Document) -> Document:
    aci.faults.clear()
    return {}


def _release(aci: AciDouble, body: Document) -> Document:
    aci.release()
    return {}


def _advance(aci: AciDouble, body: Document) -> Document:
    advance: Callable[[float], Any] = getattr(aci.clock, "advance")  # noqa: B009 - only movable clocks have it.
    advance(float(body["seconds"]))
    return {"now": aci.model.now().isoformat()}


def _finish(aci: AciDouble, body: Document) -> Document:
    return {"ended": aci.finish(body["group"], body.get("exit_code", 0))}


def _kill(aci: AciDouble, body: Document) -> Document:
    return {"ended": aci.kill(body["group"])}


def _oom(aci: AciDouble, body: Document) -> Document:
    return {"ended": aci.oom(body["group"])}


def _calls(aci: AciDouble, body: Document) -> Document:
    with aci.model.lock:
        calls = dict(aci.calls)
    return {"calls": calls, "started": len(aci.started), "alive": len(aci.alive())}


def _started(aci: AciDouble, body: Document) -> Document:
    return {"started": [{**each._asdict(), "at": each.at.isoformat()} for each in aci.started]}


VERBS: dict[str, Callable[[AciDouble, Document], Document]] = {
    "fault": _fault,
    "clear_faults": _clear_faults,
    "release": _release,
    "advance": _advance,
    "finish": _finish,
    "kill": _kill,
    "oom": _oom,
    "calls": _calls,
    "started": _started,
}
