"""What the modules of triggers send is an event, and one firing is one run however often it comes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from jsonschema import Draft202012Validator

from push_pools.domain.config import DeploymentSpec
from push_pools.domain.events import ScheduledRun, parse_event
from push_pools.functions import webhook
from push_pools.functions.oidc import Keys
from push_pools.ports import RunFilter
from push_pools.services.catalogue import create_work_pool
from push_pools.services.deploy import put_deployment
from push_pools.services.schedule import put_run, run_of_event
from tests.functions.hosts import use
from tests.functions.test_oidc import AUDIENCE, ISSUER, Web, token
from tests.functions.test_webhook import post
from tests.services.catalogue_app import make_app
from tests.terraform.bundles import ROOT
from tests.terraform.pools import applied

if TYPE_CHECKING:
    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

TIME: Final = "<aws.scheduler.scheduled-time>"
SCHEMA: Final = json.loads((ROOT / "infra" / "schemas" / "scheduled-run.json").read_text(encoding="utf-8"))
AT_AWS: Final = [(run, event) for run in applied("modules/trigger") for event in run.events]
AT_GOOGLE: Final = [(run, event) for run in applied("modules/google_trigger") for event in run.events]
ACCOUNT: Final = "100000000000000000001"
"""The numeric id of a service account, which is the subject of its tokens."""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    app = make_app()
    create_work_pool(app, "nightly", "fake")
    spec = {"name": "hourly", "flow_name": "etl", "work_pool": {"name": "nightly"}}
    put_deployment(app, DeploymentSpec.model_validate(spec))
    settings = {"ISSUER": ISSUER, "AUDIENCE": AUDIENCE, "SUBJECTS": ACCOUNT}
    use(monkeypatch, webhook, app, **{f"PUSH_POOLS_WEBHOOK_{name}": value for name, value in settings.items()})
    monkeypatch.setattr(webhook, "keys", Keys(Web()))
    return app


def fired(event: str, time: str) -> str:
    """Return a message as EventBridge Scheduler sends it: it puts values in place of its words, wherever they are."""
    body = event.replace(TIME, time)
    assert "<aws." not in body, "Scheduler knows no such word"
    return body


def put(body: str, app: App) -> FlowRun:
    """Put the run of a message, as the function of the submit queue does."""
    event = parse_event(body, envelope_id=f"message-{app.clock.now()}").event
    assert isinstance(event, ScheduledRun)
    return put_run(run_of_event(event, app, envelope_id="x"), event, app).run


def runs(app: App) -> list[FlowRun]:
    return list(app.store.runs(RunFilter()).runs)


@pytest.mark.parametrize(("run", "event"), AT_AWS + AT_GOOGLE, ids=lambda each: str(each)[:60])
def test_what_is_sent_is_an_event_by_its_schema(run: Any, event: str) -> None:
    body = fired(event, "2027-01-01T07:00:00Z")
    Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(body))
    assert isinstance(parse_event(body).event, ScheduledRun)


@pytest.mark.parametrize(("run", "event"), AT_AWS, ids=lambda each: str(each)[:60])
def test_a_firing_that_comes_twice_is_one_run(run: Any, event: str, app: App) -> None:
    """Scheduler delivers at least once, each time as another message."""
    first = put(fired(event, "2027-01-01T07:00:00Z"), app)
    cast("Any", app.clock).advance(61)
    assert put(fired(event, "2027-01-01T07:00:00Z"), app).id == first.id
    assert first.scheduled_time.isoformat() == "2027-01-01T07:00:00+00:00"
    assert put(fired(event, "2027-01-01T08:00:00Z"), app).id != first.id
    assert len(runs(app)) == 2


def test_two_triggers_that_fire_together_are_two_runs(app: App) -> None:
    event = AT_AWS[0][1]
    put(fired(event, "2027-01-01T07:00:00Z"), app)
    put(fired(event.replace("trigger-morning", "trigger-other"), "2027-01-01T07:00:00Z"), app)
    assert len(runs(app)) == 2


def test_the_trigger_s_words_are_not_escaped() -> None:
    """`jsonencode` writes < as an escape, in which Scheduler would not find them."""
    for _, event in AT_AWS:
        assert event.count(TIME) == 2


@pytest.mark.parametrize(("run", "event"), AT_GOOGLE, ids=lambda each: str(each)[:60])
def test_a_firing_of_cloud_scheduler_is_one_run(run: Any, event: str, app: App) -> None:
    """By a token of the service account that the module names, and the headers that Cloud Scheduler adds."""
    now = app.real_clock.now().timestamp()
    headers = {
        "Authorization": f"Bearer {token({'sub': ACCOUNT, 'iat': now, 'exp': now + 3600})}",
        "Content-Type": "application/json",
        "User-Agent": "Google-Cloud-Scheduler",
        "X-CloudScheduler": "true",
        "X-CloudScheduler-JobName": "morning",
        "X-CloudScheduler-ScheduleTime": "2027-01-01T07:00:00Z",
    }
    answers = []
    for _ in range(2):
        status, answer = post(event, headers)
        assert status == 202, answer
        answers.append(answer["run_id"])
        cast("Any", app.clock).advance(61)
    (run,) = runs(app)
    assert answers == [str(run.id)] * 2
    assert run.scheduled_time.isoformat() == "2027-01-01T07:00:00+00:00"
