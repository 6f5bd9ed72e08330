"""A store that reads each record of the catalogue once for a message, until something is written.

A decision looks at pool, queue and deployment several times before it writes anything, and each look is a request on
AWS. Between them the records may as well have been read a moment earlier. After a write they are read anew: a run looks
at its limits once more after its claim, and that look has to see what was written meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from push_pools.ports import RecordT, Store


class ReadOnce:
    """Implements `ports.Store` over another one, for one message and one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[tuple[type, str | UUID], Any] = {}

    def get(self, kind: type[RecordT], key: str) -> Any:
        """Return the record of that key as it was when it was first asked for since the last write."""
        return self._keep(kind, key, lambda: self._store.get(kind, key))

    def find(self, kind: type[RecordT], id_: UUID) -> Any:
        """Return the record with that id, likewise."""
        return self._keep(kind, id_, lambda: self._store.find(kind, id_))

    def _keep(self, kind: type, name: str | UUID, read: Any) -> Any:
        if (kind, name) not in self._kept:
            self._kept[kind, name] = read()
        return self._kept[kind, name]

    def recall(self, key: str) -> str | None:
        """Return what is kept under `key`."""
        return self._store.recall(key)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return attribute(*arguments, **options)
            finally:
                self._kept.clear()  # Whatever it was, it may have written, or read what others wrote.

        return call
