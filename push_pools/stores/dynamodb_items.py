"""Runs and catalogue records as items: their keys, the attributes that the indexes need, and a packed body.

The body is the record's JSON, compressed: a write costs by the kilobyte, and an item holds at most 400 KB.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import InvalidInput
from push_pools.domain.runs import Entry, FlowRun, Phase
from push_pools.stores.dynamodb_table import EXPIRES

if TYPE_CHECKING:
    from uuid import UUID

    from push_pools.domain.pools import CatalogueRecord

Item = dict[str, dict[str, Any]]
Attributes = dict[str, Any]
Values = Mapping[str, str | int | bool | bytes | None]

MAX_BODY_BYTES: Final = 400_000
"""An item has at most 409,600 bytes; the other attributes of one are far smaller than the rest."""
ZLIB_BYTES: Final = 200_000
"""A larger body is packed with lzma, which sees repetitions further apart: parameters stand in the request again."""
SHORTENED: Final = "shortened"
"""The journal entry that stands for those that were left out."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


# -- values --------------------------------------------------------------------


def to_attributes(values: Values) -> Item:
    """Return values as DynamoDB writes them; `None` is an attribute that is not there."""
    return {name: _typed(value) for name, value in values.items() if value is not None}


def _typed(value: str | int | bool | bytes) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case bytes():
            return {"B": value}
        case _:
            return {"S": value}


def from_attributes(item: Mapping[str, Mapping[str, Any]]) -> Attributes:
    """Return an item's values; numbers are whole, as all of ours are."""
    return {name: _plain(value) for name, value in item.items()}


def _plain(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return int(content)
        case "B":
            return bytes(content)
        case _:
            return content


def microseconds(moment: datetime) -> int:
    """Return the exact microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """Return the moment of a number that `microseconds` gave."""
    return _EPOCH + microseconds * _MICROSECOND


# -- keys ----------------------------------------------------------------------


def run_key(run_id: UUID | str) -> dict[str, str]:
    """Return where a run is: 256 collections, so that a prefix of an id of two digits or more is one query."""
    text = str(run_id)
    return {"PK": f"RUN#{text[:2]}", "SK": text}


def listed_key(moment: datetime, run_id: UUID | str = "") -> str:
    """Return a text that sorts as (time, id) does."""
    return f"{(moment - _BEGINNING) // _MICROSECOND:018d}#{run_id}"


def run_of(listed: str) -> str:
    """Return the run id in a `listed_key`."""
    return listed.partition("#")[2]


# -- runs ----------------------------------------------------------------------


def run_item(run: FlowRun, history: timedelta) -> tuple[FlowRun, Item]:
    """Return a run as it is stored, and its item. Of a run that is too large, the oldest journal entries are left out.

    Raises:
        InvalidInput: It does not fit without its journal either.
    """
    run, body = _fitting(run)
    shard = str(run.id)[0]
    ended = max(run.end_time or run.scheduled_time, run.scheduled_time)
    expires = ended + history if run.phase is Phase.SETTLED else None
    item = to_attributes(
        {
            **run_key(run.id),
            "version": run.version,
            "body": body,
            "shard": shard,
            "part": f"{'done' if run.is_final else 'open'}#{shard}",
            "listed_key": listed_key(run.scheduled_time, run.id),
            "wake_at": microseconds(run.wake_at) if run.wake_at else None,
            "active_key": f"{run.platform}#{run.id}" if run.phase.is_active else None,
            "deployment_id": str(run.deployment_id) if run.deployment_id else None,
            "work_pool": run.work_pool,
            "final_type": str(run.state.type) if run.is_final else None,
            "final_name": run.state.name if run.is_final else None,
            "name": run.name,  # Nobody reads these two but people, in the console.
            "phase": str(run.phase),
            EXPIRES: int(expires.timestamp()) if expires else None,
        }
    )
    return run, item


def read_run(item: Mapping[str, Mapping[str, Any]]) -> FlowRun:
    """Return the run of an item."""
    return FlowRun.model_validate_json(unpack(item["body"]["B"]))


def _fitting(run: FlowRun) -> tuple[FlowRun, bytes]:
    body = pack(run.model_dump_json())
    while len(body) > MAX_BODY_BYTES and len(run.journal) > 2:
        run = _shortened(run)
        body = pack(run.model_dump_json())
    if len(body) > MAX_BODY_BYTES:
        raise InvalidInput(
            f"flow run {run.id} is too large: it has {len(body)} bytes when it is compressed, and an item of DynamoDB "
            f"holds {MAX_BODY_BYTES}; make its parameters or job variables smaller, or let it read them from a file"
        )
    return run, body


def _shortened(run: FlowRun) -> FlowRun:
    """Return the run without the older half of its journal, and with a line that says so."""
    entries = [entry for entry in run.journal if entry.what != SHORTENED]
    kept = entries[-(len(entries) // 2) :]
    before = sum(int(str(entry.facts["entries"])) for entry in run.journal if entry.what == SHORTENED)
    note = Entry(at=kept[0].at, what=SHORTENED, facts={"entries": before + len(entries) - len(kept)})
    return run.evolve(journal=(note, *kept))


# -- catalogue -----------------------------------------------------------------


def record_item(record: CatalogueRecord) -> Item:
    """Return a catalogue record as an item.

    Raises:
        InvalidInput: It does not fit.
    """
    kind, body = type(record).__name__, pack(record.model_dump_json())
    if len(body) > MAX_BODY_BYTES:
        raise InvalidInput(
            f"{kind} {record.key!r} is too large: it has {len(body)} bytes when it is compressed, and an item of "
            f"DynamoDB holds {MAX_BODY_BYTES}; make its template, parameters or job variables smaller"
        )
    return to_attributes({**record_key(kind, record.key), "version": record.version, "body": body})


def record_key(kind: str, key: str) -> dict[str, str]:
    """Return where a catalogue record is."""
    return {"PK": f"CAT#{kind}", "SK": key}


# -- bodies --------------------------------------------------------------------


def pack(text: str) -> bytes:
    """Return a text, compressed."""
    clear = text.encode()
    packed = b"z" + zlib.compress(clear)
    return packed if len(packed) <= ZLIB_BYTES else b"x" + lzma.compress(clear, preset=1)


def unpack(body: bytes | Any) -> str:
    """Return the text of a body."""
    content = bytes(body)
    kind, packed = content[:1], content[1:]
    return (zlib.decompress(packed) if kind == b"z" else lzma.decompress(packed)).decode()
