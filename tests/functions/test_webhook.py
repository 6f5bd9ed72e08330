"""Triggers by HTTP: who may send them, what they may be, and what is answered."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.domain.config import DeploymentSpec
from push_pools.domain.errors import StoreUnavailable
from push_pools.functions import webhook
from push_pools.functions.oidc import Keys
from push_pools.ports import RunFilter
from push_pools.services.blocks import create_block
from push_pools.services.catalogue import create_work_pool, pause_deployment
from push_pools.services.deploy import put_deployment
from tests.functions.context import Context
from tests.functions.hosts import use
from tests.functions.test_oidc import AUDIENCE, ISSUER, SUBJECT, Web, token
from tests.services.catalogue_app import make_app, sent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from push_pools.ports import App

SECRET = "canary-a-shared-secret"
EVENT = '{"version":1,"type":"scheduled-run","deployment":"report"}'
BEARER = {"Authorization": f"Bearer {SECRET}"}
SETTINGS = {
    "PUSH_POOLS_WEBHOOK_SECRET": "webhook",
    "PUSH_POOLS_WEBHOOK_ISSUER": ISSUER,
    "PUSH_POOLS_WEBHOOK_AUDIENCE": AUDIENCE,
    "PUSH_POOLS_WEBHOOK_SUBJECTS": f"{SUBJECT}, repo:acme/other",
}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    app = make_app()
    create_work_pool(app, "local", "fake")
    put_deployment(app, DeploymentSpec.model_validate({"name": "report", "work_pool": {"name": "local"}}))
    create_block(app, "secret", "webhook", {"value": SECRET})
    use(monkeypatch, webhook, app, **SETTINGS)
    monkeypatch.setattr(webhook, "keys", Keys(Web()))
    return app


def post(body: str = EVENT, headers: Mapping[str, str] = BEARER, **event: Any) -> tuple[int, Any]:
    """Send a request and return status and body."""
    request = {
        "version": "2.0",
        "requestContext": {"http": {"method": "POST", "path": "/"}},
        "headers": dict(headers),
        "body": body,
        "isBase64Encoded": False,
        **event,
    }
    answer = webhook.handler(request, cast("Any", Context(function_name="webhook")))
    problem = answer["statusCode"] >= 400
    assert answer["headers"]["content-type"] == ("application/problem+json" if problem else "application/json")
    value = json.loads(answer["body"])
    if problem:
        assert (value["status"], set(value)) == (answer["statusCode"], {"title", "status", "detail"})
    return answer["statusCode"], value


def refused(status: int, say: str, *args: Any, **options: Any) -> None:
    got, problem = post(*args, **options)
    assert (got, say in problem["detail"]) == (status, True), problem


def count(app: App) -> int:
    return len(app.store.runs(RunFilter()).runs)


def test_an_event_becomes_its_run(app: App) -> None:
    status, answer = post()
    assert status == 202
    (run,) = app.store.runs(RunFilter()).runs
    assert answer == {"run_id": str(run.id), "name": run.name, "is_new": True}
    assert json.loads(sent(app)[0])["run_id"] == str(run.id)


def test_a_body_in_base64_is_read(app: App) -> None:
    assert post(base64.b64encode(EVENT.encode()).decode(), isBase64Encoded=True)[0] == 202


def test_a_request_with_an_id_is_one_run_however_often_it_comes(app: App) -> None:
    headers = {**BEARER, "X-Push-Pools-Id": "delivery-1"}
    first = post(headers=headers)[1]
    cast("Any", app.clock).advance(1)
    second = post(headers=headers)[1]
    assert (first["is_new"], second["is_new"]) == (True, False)
    assert first["run_id"] == second["run_id"]
    post(headers={**BEARER, "X-Push-Pools-Id": "delivery-2"})
    assert count(app) == 2


def test_without_an_id_each_request_is_a_run(app: App) -> None:
    post()
    post()
    assert count(app) == 2


FIRING = {**BEARER, "X-CloudScheduler-JobName": "nightly", "X-CloudScheduler-ScheduleTime": "2027-01-01T03:00:00Z"}


def test_a_firing_of_cloud_scheduler_is_one_run_however_often_it_comes(app: App) -> None:
    """Its body is the same each time; the headers say which firing it is, and for when."""
    first = post(headers=FIRING)[1]
    cast("Any", app.clock).advance(61)
    second = post(headers=FIRING)[1]
    assert (first["is_new"], second["is_new"], second["run_id"]) == (True, False, first["run_id"])
    (run,) = app.store.runs(RunFilter()).runs
    assert run.scheduled_time.isoformat() == "2027-01-01T03:00:00+00:00"
    assert post(headers={**FIRING, "X-CloudScheduler-ScheduleTime": "2027-01-01T04:00:00Z"})[1]["is_new"]
    assert post(headers={**FIRING, "X-CloudScheduler-JobName": "other"})[1]["is_new"]
    assert count(app) == 3


def test_what_the_event_or_the_sender_says_wins_over_the_headers_of_cloud_scheduler(app: App) -> None:
    event = EVENT.replace("}", ',"scheduled_time":"2026-12-31T00:00:00Z","idempotency_key":"mine"}')
    assert post(event, FIRING)[1]["is_new"]
    cast("Any", app.clock).advance(1)
    assert not post(event)[1]["is_new"]
    named = {**FIRING, "X-Push-Pools-Id": "delivery-1"}
    assert post(headers=named)[1]["is_new"]
    assert post(headers=FIRING)[1]["is_new"]


@pytest.mark.parametrize(
    ("headers", "say"),
    [
        ({"X-CloudScheduler-ScheduleTime": "2027-13-02T03:00:00Z"}, "RFC 3339 in UTC"),
        ({"X-CloudScheduler-ScheduleTime": "2027-01-01T03:00:00"}, "ending with Z"),
        ({"X-CloudScheduler-JobName": "n" * 129}, "x-cloudscheduler-jobname"),
    ],
)
def test_wrong_headers_of_cloud_scheduler_are_refused(app: App, headers: dict[str, str], say: str) -> None:
    refused(400, say, headers={**FIRING, **headers})
    assert count(app) == 0


# -- who sends it


def now(app: App) -> int:
    return int(app.real_clock.now().timestamp())


def signed(app: App, body: str = EVENT, *, at: int = 0, secret: str = SECRET, id_: str = "d1") -> dict[str, str]:
    stamp = str(now(app) + at)
    digest = hmac.new(secret.encode(), f"{stamp}.{id_}.{body}".encode(), hashlib.sha256).hexdigest()
    return {
        "x-push-pools-timestamp": stamp,
        "x-push-pools-id": id_,
        "x-push-pools-signature": f"v1={digest}",
    }


def test_a_signed_request_is_taken_and_its_replay_is_the_same_run(app: App) -> None:
    headers = signed(app)
    assert post(headers=headers)[1]["is_new"]
    cast("Any", app.clock).advance(1)
    assert not post(headers=headers)[1]["is_new"]
    assert count(app) == 1


def test_a_signed_request_that_was_changed_is_refused(app: App) -> None:
    headers = signed(app)
    for changed in (
        {**headers, "x-push-pools-id": "d2"},
        {**headers, "x-push-pools-timestamp": str(now(app) - 1)},
        {**headers, "x-push-pools-signature": "v1=" + "0" * 64},
        {**headers, "x-push-pools-signature": headers["x-push-pools-signature"].upper()},
        {**headers, "x-push-pools-signature": "v1=ä"},
        signed(app, secret="another-shared-secret"),
    ):
        refused(401, "the signature is wrong", headers=changed)
    refused(401, "the signature is wrong", EVENT.replace("report", "repork"), headers=headers)
    for missing in ("x-push-pools-id", "x-push-pools-timestamp"):
        refused(401, "needs x-push-pools", headers={k: v for k, v in headers.items() if k != missing})
    assert count(app) == 0


@pytest.mark.parametrize("at", [-301, 301])
def test_a_request_outside_the_window_is_refused(app: App, at: int) -> None:
    refused(401, "not within 300 s", headers=signed(app, at=at))
    refused(401, "not within 300 s", headers={**BEARER, "x-push-pools-timestamp": str(now(app) + at)})


@pytest.mark.parametrize("stamp", ["", "x", "-1", "1e9", "9" * 40, "\u0661"])
def test_a_timestamp_that_is_none_is_refused(app: App, stamp: str) -> None:
    refused(401, "not within 300 s", headers={**BEARER, "x-push-pools-timestamp": stamp})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer "},
        {"authorization": SECRET},
        {"authorization": f"Basic {SECRET}"},
    ],
)
def test_without_a_proof_nobody_is_let_in(app: App, headers: dict[str, str]) -> None:
    refused(401, "send the shared secret", headers=headers)


@pytest.mark.parametrize("secret", [SECRET[:-1], SECRET + "x", "x", "ä"])
def test_a_wrong_secret_is_refused(app: App, secret: str) -> None:
    refused(401, "the secret is wrong", headers={"authorization": f"Bearer {secret}"})


def test_a_token_of_the_issuer_is_taken(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = float(now(app))
    claims = {"exp": seconds + 300, "iat": seconds}
    assert post(headers={"authorization": f"Bearer {token(claims)}"})[0] == 202
    refused(401, "the token is refused: it has expired", headers={"authorization": f"Bearer {token({'exp': 1})}"})
    use(monkeypatch, webhook, app, PUSH_POOLS_WEBHOOK_SECRET="webhook")
    refused(401, "the secret is wrong", headers={"authorization": f"Bearer {token(claims)}"})


def test_a_secret_that_cannot_be_read_is_not_the_sender_s_fault(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, webhook, app, PUSH_POOLS_WEBHOOK_SECRET="nope")
    refused(503, "cannot be read")
    use(monkeypatch, webhook, app)
    refused(401, "no shared secret is set up here")
    create_block(app, "secret", "short", {"value": "1234"})
    use(monkeypatch, webhook, app, PUSH_POOLS_WEBHOOK_SECRET="short")
    refused(503, "fewer than 16 characters", headers={"authorization": "Bearer 1234"})


# -- what it is


@pytest.mark.parametrize(
    ("body", "status", "say"),
    [
        ("", 422, "not JSON"),
        ("{", 422, "not JSON"),
        (EVENT.replace("report", "nope"), 404, "deployment 'nope' does not exist"),
        (EVENT.replace("scheduled-run", "tick"), 422, "type tick does not come from outside"),
        ('{"version":1,"type":"stop","run_id":"00000000-0000-0000-0000-000000000001"}', 422, "send a scheduled-run"),
        (EVENT[:-1] + ',"extra":1}', 422, "extra"),
        (EVENT[:-1] + ',"parameters":{"x":"' + "y" * 262_144 + '"}}', 413, "at most 262144 bytes"),
        ("x" * 600_000, 413, "at most 262144 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_taken_is_told(app: App, body: str, status: int, say: str) -> None:
    refused(status, say, body)
    assert count(app) == 0


def test_a_paused_deployment_is_a_conflict(app: App) -> None:
    pause_deployment(app, "report", note="inventory")
    refused(409, "is paused (inventory)")


def test_other_methods_and_encodings_are_refused(app: App) -> None:
    refused(405, "send a POST", requestContext={"http": {"method": "GET"}})
    refused(400, "cannot be decoded", "!", isBase64Encoded=True)
    refused(400, "visible ASCII", headers={**BEARER, "x-push-pools-id": "a b"})
    refused(400, "visible ASCII", headers={**BEARER, "x-push-pools-id": "x" * 129})


def test_a_ledger_that_is_away_is_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(app.store, "put_run", away)
    refused(503, "send it again")


def test_no_secret_is_printed_or_answered(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    answers = [
        post(),
        post(headers={"authorization": f"Bearer {SECRET}x"}),
        post("{", headers=signed(app, "{")),
        post(headers={**signed(app), "authorization": f"Bearer {SECRET}"}),
    ]
    assert "canary" not in "".join(capsys.readouterr()) + json.dumps(answers)
