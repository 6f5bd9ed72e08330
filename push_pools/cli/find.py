"""Finds what an argument means: a name, an id, or a unique beginning of an id."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from push_pools.domain.errors import InvalidInput, NotFound
from push_pools.domain.pools import WorkPool, WorkQueue

if TYPE_CHECKING:
    from push_pools.ports import App

LEAST_PREFIX: Final = 4
"""A shorter beginning of an id is taken for a slip of the pen."""

Record = TypeVar("Record", WorkPool, WorkQueue)


def find_pool(app: App, ref: str) -> WorkPool:
    """Return a work pool by its name, its id or a unique beginning of its id.

    Raises:
        NotFound: There is none.
        InvalidInput: More than one id begins like that.
    """
    from push_pools.services.catalogue import get_work_pool, list_work_pools

    try:
        return get_work_pool(app, ref)
    except NotFound:
        found = _by_id("work pool", ref, list_work_pools(app))
        if found is None:
            raise
        return found


def find_queue(app: App, ref: str, pool: str | None) -> WorkQueue:
    """Return a work queue by its name in a pool, by `POOL/NAME`, by a name that is unique, or by its id.

    Raises:
        NotFound: There is none.
        InvalidInput: More than one is meant.
    """
    from push_pools.services.catalogue import get_work_queue, list_work_queues

    if pool is not None:
        return get_work_queue(app, find_pool(app, pool).name, ref)
    if "/" in ref:
        pool_name, _, name = ref.partition("/")
        return get_work_queue(app, pool_name, name)
    queues = list_work_queues(app)
    named = [queue for queue in queues if queue.name == ref]
    if len(named) == 1:
        return named[0]
    if named:
        raise InvalidInput(f"work queue {ref!r} may be {', '.join(queue.key for queue in named)}; give --pool")
    found = _by_id("work queue", ref, queues)
    if found is None:
        raise NotFound("work queue", ref, [queue.key for queue in queues])
    return found


def _by_id(kind: str, ref: str, records: Iterable[Record]) -> Record | None:
    found = [each for each in records if len(ref) >= LEAST_PREFIX and str(each.id).startswith(ref.lower())]
    if len(found) > 1:
        raise InvalidInput(f"{kind} {ref!r} may be {', '.join(each.key for each in found)}; write more of the id")
    return found[0] if found else None
