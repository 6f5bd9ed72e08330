"""Writing the catalogue's records: read, change, put, and once more when somebody was faster."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from push_pools.domain.errors import AlreadyExists, InvalidInput, NotAllowed, StoreUnavailable, VersionConflict
from push_pools.domain.values import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from push_pools.domain.pools import CatalogueRecord
    from push_pools.ports import App, RecordT

MAX_TRIES: Final = 5
"""How often a change is made anew because somebody else wrote first."""


class Keep(Enum):
    """Stands for "as it is" where `None` means something else."""

    KEEP = "keep"


KEEP: Final[Literal[Keep.KEEP]] = Keep.KEEP


def checked_name(kind: str, name: str) -> str:
    """Return a name if it can be one.

    Raises:
        InvalidInput: It cannot.
    """
    try:
        return check_name(name)
    except ValueError as error:
        raise InvalidInput(f"{name[:40]!r} cannot name a {kind}: {error}") from None


def check_owner(kind: str, record: CatalogueRecord, managed_by: str | None) -> None:
    """Check that a writer may change a record.

    Raises:
        NotAllowed: Somebody else manages it.
    """
    if record.managed_by is not None and record.managed_by != managed_by:
        raise NotAllowed(f"{kind} {record.key!r} is managed by {record.managed_by}; change it there")


def add_record(app: App, kind: str, record: RecordT, *, fix: str) -> RecordT:
    """Write a new record.

    Raises:
        AlreadyExists: There is one of that name.
    """
    if app.store.get(type(record), record.key) is not None:
        raise AlreadyExists(kind, record.key, fix=fix)
    try:
        return app.store.put(record)
    except VersionConflict:
        raise AlreadyExists(kind, record.key, fix=fix) from None


def change_record(
    app: App,
    kind: str,
    read: Callable[[], RecordT],
    change: Callable[[RecordT], RecordT],
    *,
    managed_by: str | None,
    check: Callable[[RecordT], None] | None = None,
) -> RecordT:
    """Write what `change` makes of a record and return it; a change of nothing writes nothing.

    `check` says whether it may be changed, where that is not for its owner alone.

    Raises:
        NotFound: As `read`.
        NotAllowed: Somebody else manages it, or as `check`.
        StoreUnavailable: Others always wrote first.
    """
    for _ in range(MAX_TRIES):
        before = read()
        if check is None:
            check_owner(kind, before, managed_by)
        else:
            check(before)
        after = change(before)
        if after == before:
            return before
        try:
            return app.store.put(after.model_copy(update={"updated_at": app.clock.now()}))
        except VersionConflict:
            continue
    raise _too_many(kind, before.key)


def remove_record(
    app: App, kind: str, read: Callable[[], RecordT], check: Callable[[RecordT], None], *, managed_by: str | None
) -> RecordT:
    """Delete a record that `check` lets go, and return what it was.

    Raises:
        NotFound: As `read`.
        NotAllowed: Somebody else manages it.
        StoreUnavailable: Others always wrote first.
    """
    for _ in range(MAX_TRIES):
        record = read()
        check_owner(kind, record, managed_by)
        check(record)
        try:
            app.store.delete(record)
        except VersionConflict:
            continue
        return record
    raise _too_many(kind, record.key)


def _too_many(kind: str, key: str) -> StoreUnavailable:
    return StoreUnavailable(f"{kind} {key!r} is written to by too many at once; try again")
