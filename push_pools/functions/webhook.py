"""Triggers from outside, by HTTP: a scheduled-run event with proof of who sends it becomes its run.

Google's Cloud Scheduler sends the same body each time, and tells by headers which job fires and for when
(cloud.google.com/scheduler/docs/reference/rest/v1/projects.locations.jobs#HttpTarget); they name the run, so a firing
that is sent twice is one run.

Who sends is shown by a shared secret or by an OIDC token. With the secret a request may be signed instead of carrying
it: `x-push-pools-signature: v1=<hex HMAC-SHA256 of "<timestamp>.<id>.<body>">`. `x-push-pools-timestamp` (seconds since
1970) bounds how old a request may be, and `x-push-pools-id` names it: sent again, it still is the same run.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import (
    InvalidInput,
    NotAllowed,
    NotFound,
    PlatformMissing,
    PushPoolsError,
    StoreUnavailable,
)
from push_pools.domain.events import MAX_EVENT_BYTES, ScheduledRun, parse_event
from push_pools.functions.oidc import Keys, Refused, verify
from push_pools.functions.runtime import Host, count, function, logger
from push_pools.services.blocks import find_block, open_block
from push_pools.services.schedule import put_run, run_of_event, send_if_soon

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from push_pools.ports import App

host: Final = Host()
keys: Final = Keys()
WINDOW_SECONDS: Final = 300.0
"""How old, or how far ahead, the timestamp of a request may be."""
LEAST_SECRET: Final = 16
"""The fewest characters of a shared secret; a shorter one could be guessed."""
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_SIGNATURE: Final = re.compile(r"v1=([0-9a-f]{64})")


class Problem(Exception):
    """A request that is answered with an error (RFC 9457)."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status, self.detail = status, detail
        super().__init__(detail)


@function
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer a request of a function URL (payload format 2.0): 202 with the run, or a problem."""
    try:
        answer = _answer(event, host.app(context))
    except Problem as problem:
        count("RequestsRefused")
        logger.warning("webhook_refused", extra={"status": int(problem.status), "reason": problem.detail})
        return _response(
            problem.status,
            {"title": problem.status.phrase, "status": int(problem.status), "detail": problem.detail},
            "application/problem+json",
        )
    count("RequestsTaken")
    return _response(HTTPStatus.ACCEPTED, answer, "application/json")


def _answer(event: Mapping[str, Any], app: App) -> dict[str, Any]:
    if str(event.get("requestContext", {}).get("http", {}).get("method", "POST")).upper() != "POST":
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "send a POST")
    body = _body(event)
    headers = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
    request_id, timestamp = headers.get("x-push-pools-id"), headers.get("x-push-pools-timestamp")
    try:
        _check_sender(headers, request_id, timestamp, body, app)
        if request_id is not None and not _ID.fullmatch(request_id):
            raise Problem(HTTPStatus.BAD_REQUEST, "x-push-pools-id has 1 to 128 visible ASCII characters")
        firing = _firing(headers) if request_id is None else None
        return _put(body, request_id, firing, app)
    except StoreUnavailable as error:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the ledger cannot be used now; send it again") from error


def _body(event: Mapping[str, Any]) -> bytes:
    text = str(event.get("body") or "")
    if len(text) > 2 * MAX_EVENT_BYTES:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_EVENT_BYTES} bytes are taken")
    try:
        body = base64.b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
    except (binascii.Error, ValueError):
        raise Problem(HTTPStatus.BAD_REQUEST, "the body cannot be decoded; send it as UTF-8") from None
    if len(body) > MAX_EVENT_BYTES:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_EVENT_BYTES} bytes are taken")
    return body


# -- who sends it


def _check_sender(
    headers: Mapping[str, str], request_id: str | None, timestamp: str | None, body: bytes, app: App
) -> None:
    """Check the proof that a request carries; the time is looked at before anything is compared.

    Raises:
        Problem: There is none, or it is wrong.
    """
    settings = host.settings
    now = app.real_clock.now().timestamp()
    if timestamp is not None and not _is_near(timestamp, now):
        raise _unauthorised("x-push-pools-timestamp is not within 300 s of now; write seconds since 1970")
    signature = headers.get("x-push-pools-signature")
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if signature is not None:
        if request_id is None or timestamp is None:
            raise _unauthorised("a signed request needs x-push-pools-timestamp and x-push-pools-id")
        given = _SIGNATURE.fullmatch(signature)
        signed = f"{timestamp}.{request_id}.".encode() + body
        expected = hmac.new(_secret(app, settings.webhook_secret), signed, hashlib.sha256).hexdigest()
        if given is None or not hmac.compare_digest(given[1], expected):
            raise _unauthorised("the signature is wrong")
        return
    if scheme.lower() != "bearer" or not token:
        raise _unauthorised("send the shared secret, or a token, as `authorization: Bearer …`, or sign the request")
    if token.count(".") == 2 and settings.webhook_issuer is not None:
        try:
            verify(token, settings.webhook_issuer, settings.webhook_audience, settings.webhook_subjects, keys, now)
        except Refused as refused:
            raise _unauthorised(f"the token is refused: {refused}") from refused
        return
    if not hmac.compare_digest(hashlib.sha256(token.encode()).digest(), _digest(_secret(app, settings.webhook_secret))):
        raise _unauthorised("the secret is wrong")


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _is_near(timestamp: str, now: float) -> bool:
    return (
        timestamp.isascii()
        and timestamp.isdigit()
        and len(timestamp) < 12
        and abs(int(timestamp) - now) <= WINDOW_SECONDS
    )


def _secret(app: App, name: str | None) -> bytes:
    """Return the shared secret, from its block."""
    if name is None:
        raise _unauthorised("no shared secret is set up here; send a token")
    try:
        value = open_block(app, str(find_block(app, f"secret/{name}").id)).value
    except StoreUnavailable:
        raise
    except PushPoolsError as error:
        logger.error("webhook_secret_missing", extra={"reason": str(error)})
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the shared secret cannot be read; see the log") from error
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    secret = str(text).encode()
    if len(secret) < LEAST_SECRET:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "the shared secret has fewer than 16 characters; set a longer one"
        )
    return secret


def _unauthorised(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail)


# -- what it asks for


def _firing(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the job of Cloud Scheduler that sends a request, and the time that it fires for."""
    job, time = headers.get("x-cloudscheduler-jobname"), headers.get("x-cloudscheduler-scheduletime")
    if not time:
        return None
    try:
        if not time.endswith("Z"):
            raise ValueError
        datetime.fromisoformat(time)
    except ValueError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "x-cloudscheduler-scheduletime is RFC 3339 in UTC, ending with Z"
        ) from None
    if not _ID.fullmatch(job or "-"):
        raise Problem(HTTPStatus.BAD_REQUEST, "x-cloudscheduler-jobname has at most 128 visible ASCII characters")
    return job or "-", time


def _fired(event: ScheduledRun, job: str, time: str) -> ScheduledRun:
    """Return an event as it is meant by one firing. Two jobs that fire at the same time ask for two runs."""
    fields = event.model_dump(exclude_unset=True)
    fields.setdefault("scheduled_time", time)
    fields.setdefault("idempotency_key", f"cloud-scheduler:{job}/{time}")
    return ScheduledRun.model_validate(fields)


def _put(body: bytes, request_id: str | None, firing: tuple[str, str] | None, app: App) -> dict[str, Any]:
    envelope_id = f"webhook:{request_id}" if request_id is not None else ""
    try:
        event = parse_event(body, envelope_id=envelope_id or None).event
        if not isinstance(event, ScheduledRun):
            raise InvalidInput(f"an event of type {event.type} does not come from outside; send a scheduled-run")
        if firing is not None:
            event = _fired(event, *firing)
        put = put_run(run_of_event(event, app, envelope_id=envelope_id or _minted()), event, app)
    except NotFound as error:
        raise Problem(HTTPStatus.NOT_FOUND, str(error)) from error
    except NotAllowed as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from error
    except (InvalidInput, PlatformMissing) as error:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    send_if_soon(put.run, app)
    return {"run_id": str(put.run.id), "name": put.run.name, "is_new": put.is_new}


def _minted() -> str:
    from uuid import uuid4

    return f"webhook:{uuid4().hex}"


def _response(status: HTTPStatus, body: Mapping[str, Any], content_type: str) -> dict[str, Any]:
    return {
        "statusCode": int(status),
        "headers": {"content-type": content_type, "cache-control": "no-store"},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }
