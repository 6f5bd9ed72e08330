"""What the Cloud Run double answers over HTTP: Cloud Logging, the tokens of credentials, and its control API.

Tokens: STS exchanges a signed AWS request for a federated token ("Workload identity federation", IAM), which the
IAM Credentials API exchanges for one of a service account; a service account's key is exchanged by an assertion.

Control: each call is `POST /_control/<verb>` with a JSON object, and answers one; an unknown verb or argument
answers 400 with `{"error": …}`.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote

from push_pools.testing.cloud_run_account import CloudRunError
from push_pools.testing.cloud_run_faults import FAULTS
from push_pools.testing.doubles_http import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.testing.cloud_run_double import CloudRunDouble

Document = dict[str, Any]
MAX_PAGE: Final = 1000
STATUS: Final = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "INVALID_ARGUMENT": 400}
FEDERATED: Final = "federated-token"
IMPERSONATE: Final = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken")
_TERM: Final = re.compile(r'([\w."/]+)\s*(>=|=)\s*"([^"]*)"')


def answer_http(cloud: CloudRunDouble, request: Request) -> Reply | None:
    """Answer one request; None cuts the connection."""
    path = request.path.partition("?")[0]
    if path == "/v2/entries:list":
        return _entries(cloud, request)
    if path == "/v1/token":
        return _exchange(cloud, request)
    if path == "/token":
        return _grant(cloud, request)
    if match := IMPERSONATE.fullmatch(unquote(path)):
        return _impersonate(cloud, request, match[1])
    if cloud.control and path.startswith("/_control/"):
        return _control(cloud, request, path.removeprefix("/_control/"))
    return _json(404, {"error": {"code": 404, "status": "NOT_FOUND", "message": f"no {path} here"}})


# -- Cloud Logging ---------------------------------------------------------------------


def _entries(cloud: CloudRunDouble, request: Request) -> Reply | None:
    """Answer `entries.list`: the lines of one execution, from a time on, a page at a time."""
    body = json.loads(request.body or b"{}")
    token = request.headers.get("authorization", "").removeprefix("Bearer ") or None
    with cloud.model.lock:
        cloud.calls["entries.list"] += 1
    fault = cloud.faults.take("entries.list", body)
    try:
        if fault.drop or fault.cut:
            return None
        if fault.error is not None:
            raise CloudRunError(fault.error.code, fault.error.message)
        cloud.model.rules.check_token(token)
        project = body["resourceNames"][0].removeprefix("projects/")
        cloud.model.rules.check_permission("logging.logEntries.list", f"projects/{project}")
    except CloudRunError as error:
        code = STATUS.get(error.code, 500)
        return _json(code, {"error": {"code": code, "status": error.code, "message": error.message}})
    if fault.body is not None:
        return Reply(200, fault.body)
    asked = {name.strip('"'): value for name, _, value in _TERM.findall(body.get("filter", ""))}
    job = asked.get("resource.labels.job_name", "")
    execution = asked.get('labels."run.googleapis.com/execution_name', "")
    lines = cloud.model.lines(project, job, execution)
    if since := asked.get("timestamp"):
        lines = [line for line in lines if _time(line.at) >= since]
    start, size = int(body.get("pageToken") or 0), min(int(body.get("pageSize", 50)), MAX_PAGE)
    page = lines[start : start + size]
    entries = [
        {
            "textPayload": line.text,
            "timestamp": _time(line.at),
            "insertId": line.insert_id,
            "logName": f"projects/{project}/logs/run.googleapis.com%2Fstdout",
            "resource": {"type": "cloud_run_job", "labels": {"job_name": job, "project_id": project}},
        }
        for line in page
    ]
    more = {"nextPageToken": str(start + size)} if start + size < len(lines) else {}
    return _json(200, {"entries": entries, **more} if entries else more)


def _time(at: Any) -> str:
    return str(at.isoformat(timespec="microseconds")).replace("+00:00", "Z")


# -- tokens ------------------------------------------------------------------------------


def _exchange(cloud: CloudRunDouble, request: Request) -> Reply:
    """Exchange a signed GetCallerIdentity request of AWS for a federated token."""
    cloud.calls["token exchange"] += 1
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    try:
        signed = json.loads(unquote(form["subject_token"]))
        headers = {each["key"].lower(): each["value"] for each in signed["headers"]}
    except (KeyError, ValueError):
        return _refused("invalid_request", "The subject token is not a signed request of AWS.")
    if "AWS4-HMAC-SHA256 Credential=" not in headers.get("authorization", ""):
        return _refused("invalid_grant", "The request of AWS is not signed.")
    if headers.get("x-goog-cloud-target-resource") != form.get("audience"):
        return _refused("invalid_grant", "The audience of the subject token is another.")
    if cloud.model.rules.denied & {"sts.exchange"}:
        return _refused("unauthorized_client", "The given credential is rejected by the attribute condition.")
    kind = "urn:ietf:params:oauth:token-type:access_token"
    granted = {"access_token": FEDERATED, "issued_token_type": kind, "token_type": "Bearer", "expires_in": 3600}
    return _json(200, granted)


def _impersonate(cloud: CloudRunDouble, request: Request, email: str) -> Reply:
    """Exchange a federated token for one of a service account."""
    cloud.calls["impersonation"] += 1
    rules = cloud.model.rules
    denied = "iam.serviceAccounts.getAccessToken" in rules.denied
    if denied or request.headers.get("authorization") != f"Bearer {FEDERATED}":
        message = f"Permission 'iam.serviceAccounts.getAccessToken' denied on resource {email} (or it may not exist)."
        return _json(403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": message}})
    return _json(200, {"accessToken": f"token-of-{email}", "expireTime": _time(_in_an_hour())[:19] + "Z"})


def _grant(cloud: CloudRunDouble, request: Request) -> Reply:
    """Exchange the assertion of a service account's key for a token."""
    cloud.calls["assertion"] += 1
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    try:
        claims = form["assertion"].split(".")[1]
        email = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iss"]
    except (KeyError, ValueError, IndexError):
        return _refused("invalid_request", "There is no assertion.")
    accounts = cloud.model.rules.service_accounts
    if accounts is not None and email not in accounts:
        return _refused("invalid_grant", "Invalid grant: account not found")
    return _json(200, {"access_token": f"token-of-{email}", "token_type": "Bearer", "expires_in": 3600})


def _in_an_hour() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC) + timedelta(hours=1)  # Tokens end by the clock of whoever holds them.


def _refused(code: str, message: str) -> Reply:
    return _json(400, {"error": code, "error_description": message})


# -- control -----------------------------------------------------------------------------


def _control(cloud: CloudRunDouble, request: Request, verb: str) -> Reply:
    try:
        body = json.loads(request.body or b"{}")
        if verb not in VERBS:
            raise LookupError(f"no verb {verb!r}; one of {', '.join(sorted(VERBS))}")
        answer = VERBS[verb](cloud, body)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return _json(400, {"error": f"{type(error).__name__}: {error}"})
    return _json(200, answer)


def _fault(cloud: CloudRunDouble, body: Document) -> Document:
    cloud.faults.told(FAULTS, body)
    return {}


def _release(cloud: CloudRunDouble, body: Document) -> Document:
    cloud.release()
    return {}


def _clear_faults(cloud: CloudRunDouble, body: Document) -> Document:
    cloud.faults.clear()
    return {}


def _advance(cloud: CloudRunDouble, body: Document) -> Document:
    advance: Callable[[float], Any] = getattr(cloud.clock, "advance")  # noqa: B009 - only movable clocks have it.
    advance(float(body["seconds"]))
    return {"now": cloud.model.now().isoformat()}


def _ends(name: str) -> Callable[[CloudRunDouble, Document], Document]:
    def end(cloud: CloudRunDouble, body: Document) -> Document:
        return {"ended": getattr(cloud, name)(body["execution"])}

    return end


def _finish(cloud: CloudRunDouble, body: Document) -> Document:
    return {"ended": cloud.finish(body["execution"], body.get("exit_code", 0))}


def _started(cloud: CloudRunDouble, body: Document) -> Document:
    return {"started": [each.__dict__ | {"created_at": each.created_at.isoformat()} for each in cloud.started]}


def _calls(cloud: CloudRunDouble, body: Document) -> Document:
    with cloud.model.lock:
        calls, jobs = dict(cloud.calls), len(cloud.model.jobs)
    return {"calls": calls, "started": len(cloud.started), "running": len(cloud.running()), "jobs": jobs}


VERBS: Final[dict[str, Callable[[CloudRunDouble, Document], Document]]] = {
    "fault": _fault,
    "clear_faults": _clear_faults,
    "release": _release,
    "advance": _advance,
    "kill": _ends("kill"),
    "oom": _ends("oom"),
    "cancel": _ends("cancel"),
    "finish": _finish,
    "started": _started,
    "calls": _calls,
}


def _json(status: int, body: Document) -> Reply:
    return Reply(status, json.dumps(body).encode())
