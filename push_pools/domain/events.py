"""The events: what a user sends in, the messages that the parts send each other, and what is published.

All are versioned JSON. `docs/events.md` shows them; `infra/schemas/` holds their schemas, generated from here.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self, cast
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from push_pools.domain.errors import InvalidEvent
from push_pools.domain.records import UserInput
from push_pools.domain.values import JsonObject

MAX_EVENT_BYTES: Final = 256 * 1024
"""The largest event; EventBridge and the queues of all clouds carry this much."""

_EXAMPLE_TIME = '"2026-01-31T08:00:00Z" or "2026-01-31T09:00:00+01:00"'
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")


# -- times ---------------------------------------------------------------------


def _check_time(value: object) -> datetime:
    if isinstance(value, datetime):
        moment = value
    elif not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError(f"it is not a time by RFC 3339; write it like {_EXAMPLE_TIME}")
    else:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"there is no such time ({error}); write it like {_EXAMPLE_TIME}") from None
    if moment.tzinfo is None:
        raise ValueError(f"the time has no offset; write it like {_EXAMPLE_TIME}")
    # Years at the ends of the calendar have no UTC equivalent.
    if not 1970 <= moment.year <= 9000:
        raise ValueError(f"the year {moment.year} is out of range; write a time like {_EXAMPLE_TIME}")
    return moment.astimezone(UTC)


Instant = Annotated[datetime, BeforeValidator(_check_time)]
"""A moment with an offset, by RFC 3339; kept in UTC."""


def instant_text(moment: datetime) -> str:
    """Return a moment as ids are made from it: in UTC, the same text however its offset was written."""
    return moment.astimezone(UTC).isoformat()


# -- what users send -----------------------------------------------------------


class ScheduledRun(UserInput, defer_build=True):  # `_ANY_EVENT` builds it with the others.
    """Asks for one run of a deployment, or of a work pool without a deployment. Sent twice, it still is one run."""

    version: Literal[1] = 1
    type: Literal["scheduled-run"] = "scheduled-run"
    deployment: str | None = Field(default=None, min_length=1, max_length=300)
    """`flow/name`, a deployment name that is unique, or an id. Either this or `work_pool`."""
    work_pool: str | None = Field(default=None, min_length=1, max_length=128)
    """Name of a work pool, for a run without a deployment."""
    scheduled_time: Instant | None = None
    """When the run is due, by RFC 3339 with an offset; by default at once. It also names the run."""
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=256)
    """Names the run: events of one deployment with the same key are the same run."""
    parameters: JsonObject = Field(default_factory=dict)
    """Parameters over those of the deployment."""
    job_variables: JsonObject = Field(default_factory=dict)
    """Job variables over those of the deployment."""
    work_queue: str | None = Field(default=None, min_length=1, max_length=128)
    """Queue of the pool, in place of the deployment's."""
    name: str | None = Field(default=None, min_length=1, max_length=200)
    """Display name of the run."""
    tags: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = Field(default=(), max_length=50)
    """Tags beside those of the deployment."""

    @model_validator(mode="after")
    def _names_one_target(self) -> Self:
        if (self.deployment is None) == (self.work_pool is None):
            both = "it names a deployment and a work_pool" if self.deployment else "it names nothing to run"
            raise ValueError(f'{both}; write exactly one, such as "deployment": "report/hourly"')
        return self

    def to_json(self) -> str:
        """Return the event as compact JSON; fields that are not set are left out."""
        empty = {name for name in ("parameters", "job_variables", "tags") if not getattr(self, name)}
        return self.model_dump_json(exclude_none=True, exclude=empty)


# -- what the parts send each other --------------------------------------------


class Message(BaseModel):
    """An internal message. Releases mix during an upgrade, so unknown fields are ignored."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    def to_json(self) -> str:
        """Return the message as compact JSON; fields that are not set are left out."""
        return self.model_dump_json(exclude_none=True)


class Submit(Message):
    """Look at a run that waits for its job: claim it and start the job."""

    version: Literal[1] = 1
    type: Literal["submit"] = "submit"
    run_id: UUID
    attempt: int | None = None
    """The attempt that was meant; the ledger has the last word."""
    platform: str | None = None
    """The pool type of the run: whose handlers the message is for. Where one queue serves all, nobody asks."""
    reason: str | None = None
    """Why the message was sent, for the log."""


class Stop(Message):
    """Look at a run whose job may have to be stopped."""

    version: Literal[1] = 1
    type: Literal["stop"] = "stop"
    run_id: UUID
    attempt: int | None = None
    """The attempt that was meant; the ledger has the last word."""
    platform: str | None = None
    """The pool type of the run: whose handlers the message is for. Where one queue serves all, nobody asks."""
    reason: str | None = None
    """Why the message was sent, for the log."""


class Chores(Message):
    """Do what a run still owes: clean up, publish, wake the next."""

    version: Literal[1] = 1
    type: Literal["chores"] = "chores"
    run_id: UUID
    attempt: int | None = None
    """The attempt that was meant; the ledger has the last word."""
    platform: str | None = None
    """The pool type of the run: whose handlers the message is for. Where one queue serves all, nobody asks."""
    reason: str | None = None
    """Why the message was sent, for the log."""


class Sweep(Message):
    """Ask a platform for the state of its active jobs."""

    version: Literal[1] = 1
    type: Literal["sweep"] = "sweep"
    platform: str
    shard: int | None = None
    """Part of the active index; by default all of it."""
    after: str | None = None
    """The place behind which an earlier invocation, whose time was over, left the rest."""


class JobChanged(Message):
    """A platform tells that a job has changed. A hint: sweeps find what is lost, and late or doubled ones do nothing.

    EventBridge's "ECS Task State Change" is read as one of these.
    """

    version: Literal[1] = 1
    type: Literal["job-changed"] = "job-changed"
    platform: str
    """Type of the pools whose jobs it is about, such as `ecs:push`."""
    detail: JsonObject
    """What the platform says, in its own words."""


class Admit(Message):
    """Give the free slots of a work pool to the runs that wait for them."""

    version: Literal[1] = 1
    type: Literal["admit"] = "admit"
    work_pool: str


class Tick(Message):
    """Plan schedules, and send again what is overdue."""

    version: Literal[1] = 1
    type: Literal["tick"] = "tick"
    reason: str = "timer"


def hint(type_: str, run_id: UUID, platform: str | None = None) -> str:
    """Return a submit, stop or chores message as JSON; it needs no escaping, so it is put together by hand."""
    where = f',"platform":"{platform}"' if platform else ""
    return f'{{"version":1,"type":"{type_}","run_id":"{run_id}"{where}}}'


# -- what is published ---------------------------------------------------------


class StateChange(Message):
    """A state, as it is published."""

    type: str
    """Such as `RUNNING`."""
    name: str
    """Such as `AwaitingRetry`."""
    message: str = ""


class RunStateChanged(Message):
    """Published when a run moves to another state.

    On EventBridge its source is `push-pools` and its detail type `RunStateChanged`.
    """

    version: Literal[1] = 1
    type: Literal["run-state-changed"] = "run-state-changed"
    run_id: UUID
    run_name: str
    deployment: str | None = None
    """`flow/name`; none for a run without a deployment."""
    work_pool: str
    work_queue: str
    from_: StateChange | None = Field(default=None, alias="from")
    """The state before; none when the run is new."""
    to: StateChange
    attempt: int
    failure_class: str | None = None
    """Why the run did not complete, such as `oom`."""
    scheduled_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    occurred_at: datetime
    sequence: int
    """Goes up with every change of the run; an event with a lower number than one seen is older."""

    model_config: ClassVar[ConfigDict] = ConfigDict(validate_by_name=True, validate_by_alias=True)

    def to_json(self) -> str:
        """Return the event as compact JSON; fields that are not set are left out."""
        return self.model_dump_json(exclude_none=True, by_alias=True)


Event = ScheduledRun | Submit | Stop | Chores | Sweep | JobChanged | Admit | Tick
"""Every event that may come in."""

_MODELS: dict[str, type[UserInput | Message]] = {
    model.model_fields["type"].default: model
    for model in (ScheduledRun, Submit, Stop, Chores, Sweep, JobChanged, Admit, Tick, RunStateChanged)
}
EVENT_TYPES: Final = tuple(name for name in _MODELS if name != "run-state-changed")
"""The types that `parse_event` takes."""

_TOLD_BY: Final = {("aws.ecs", "ECS Task State Change"): "ecs:push"}
"""Source and detail type of EventBridge events that a cloud sends of itself, and the platform they are about."""

_ANY_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


# -- reading -------------------------------------------------------------------


class ParsedEvent(NamedTuple):
    """An event, and the id of the envelope it came in."""

    event: Event
    envelope_id: str | None


def parse_event(text: str | bytes, *, envelope_id: str | None = None) -> ParsedEvent:
    """Read an event, bare or inside an EventBridge event or SQS record.

    `envelope_id` is what the queue that delivered the text calls it. An envelope inside the text has an id of its
    own, which then counts: EventBridge may put one event into a queue twice, under two message ids.

    Raises:
        InvalidEvent: It cannot be read. The sentence says what to change and shows little of the input.
    """
    _check_size(text)
    try:
        event = _ANY_EVENT.validate_json(text)
    except ValidationError:
        return _parse_slowly(text, envelope_id)
    _check_version(event.model_fields_set)
    return ParsedEvent(event, envelope_id)


def identity(event: ScheduledRun, *, envelope_id: str | None, received_at: datetime) -> str:
    """Return what names the run of an event within its deployment or work pool.

    An idempotency key, else the scheduled time, else the envelope's id. Without any of these it is the moment of
    receipt and the content, which names the same run only for one and the same receipt.
    """
    if event.idempotency_key is not None:
        return f"key:{event.idempotency_key}"
    if event.scheduled_time is not None:
        return f"at:event:{instant_text(event.scheduled_time)}"
    if envelope_id is not None:
        return f"msg:{envelope_id}"
    content = hashlib.sha256(event.to_json().encode()).hexdigest()[:16]
    return f"msg:{instant_text(received_at)}/{content}"


def event_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every event, by type."""
    return {name: _schema(name, model) for name, model in _MODELS.items()}


def _schema(name: str, model: type[UserInput | Message]) -> dict[str, Any]:
    from push_pools.domain.described import described_schema

    schema = described_schema(model, by_alias=True)
    if name == "scheduled-run":
        schema["oneOf"] = [_needs("deployment"), _needs("work_pool")]
    schema["required"] = ["version", "type", *schema.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": name}


def _needs(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": "string"}}}


def _check_size(text: str | bytes) -> None:
    # No character takes more than four bytes, so short text needs no counting.
    if len(text) * 4 <= MAX_EVENT_BYTES:
        return
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="surrogatepass"))
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(
            f"the event has {size} bytes; at most {MAX_EVENT_BYTES} are taken, "
            f"so put large input in a store and pass a reference to it"
        )


def _check_version(present: set[str]) -> None:
    if "version" not in present:
        raise InvalidEvent('the event has no version; add "version": 1')


def _parse_slowly(text: str | bytes, envelope_id: str | None) -> ParsedEvent:
    """Read what is in an envelope, or say what is wrong."""
    payload, envelope_id = _unwrap(_load(text), envelope_id)
    _check_type(payload)
    model = _MODELS[payload["type"]]
    if payload.get("version", 1) != 1:
        raise InvalidEvent(
            f"the event has version {_shown(payload['version'])}, and this release reads version 1; "
            f"write 1, or upgrade push_pools"
        )
    _check_version(set(payload))
    try:
        return ParsedEvent(cast("Event", model.model_validate(payload)), envelope_id)
    except ValidationError as error:
        from push_pools.domain.problems import problems_of

        first, *others = problems_of(model, error)
        more = f" (and {len(others)} more)" if others else ""
        raise InvalidEvent(f"the {payload['type']} event is wrong: {first}{more}") from None


def _load(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidEvent(
            f"the event is not JSON: {error.msg} at line {error.lineno} column {error.colno}; "
            f"names and text go in double quotes, and no comma follows the last item"
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"the event is not UTF-8 text, at byte {error.start}; send it as UTF-8") from None
    except ValueError:
        raise InvalidEvent("the event holds a number with thousands of digits; write it as text") from None
    except RecursionError:
        raise InvalidEvent("the event is nested too deeply; make it flatter") from None


def _unwrap(value: Any, envelope_id: str | None) -> tuple[dict[str, Any], str | None]:
    """Return the event inside the envelopes, and the id of the innermost one that has an id."""
    for _ in range(4):  # The records of a batch, a record, an EventBridge event, and the event.
        match value:
            case {"type": _}:
                break
            case {"Records": [record]}:
                value = record
            case {"Records": list(records)}:
                raise InvalidEvent(f"the envelope holds {len(records)} records; send one event at a time")
            case {"messageId": str(id_), "body": str(body)}:
                value, envelope_id = _load(body), id_
            case {"detail-type": str(kind), "source": str(source), "detail": dict(detail)} if platform := _TOLD_BY.get(
                (source, kind)
            ):
                value = {"version": 1, "type": "job-changed", "platform": platform, "detail": detail}
            case {"detail-type": _, "detail": detail}:
                id_ = value.get("id")
                value, envelope_id = detail, id_ if isinstance(id_, str) and id_ else envelope_id
            case _:
                break
    if not isinstance(value, dict):
        raise InvalidEvent(
            f"the event is {_shown(value)}; it is an object, such as "
            f'{{"version": 1, "type": "scheduled-run", "deployment": "report/hourly"}}'
        )
    return value, envelope_id


def _check_type(payload: dict[str, Any]) -> None:
    name = payload.get("type")
    known = ", ".join(EVENT_TYPES)
    if name is None:
        raise InvalidEvent(f'the event has no type; add "type": "scheduled-run" (types: {known})')
    if name == "run-state-changed":
        raise InvalidEvent(f"run-state-changed is published and never taken in; send one of {known}")
    if name not in EVENT_TYPES:
        raise InvalidEvent(f"the event has the unknown type {_shown(name)}; it is one of {known}")


def _shown(value: object) -> str:
    from push_pools.domain.problems import shown

    return shown(value)
