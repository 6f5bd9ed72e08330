"""Write one record of the catalogue for a program: what the command line does, by the same services."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from push_pools.domain.admin import NAMES, AdminRequest, Kind
from push_pools.domain.config import DeploymentSpec, WorkPoolSpec, WorkQueueSpec
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import AlreadyExists, InvalidInput, NotFound
from push_pools.domain.pools import BlockDocument, CatalogueRecord, Variable, WorkPool, WorkQueue
from push_pools.domain.problems import problems_of
from push_pools.services.blocks import create_block, delete_block, replace_block
from push_pools.services.catalogue import (
    create_work_queue,
    delete_deployment,
    delete_work_pool,
    delete_work_queue,
    set_variable,
    unset_variable,
    update_work_queue,
)
from push_pools.services.deploy import put_deployment, put_work_pool
from push_pools.services.records import change_record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from push_pools.ports import App

SpecT = TypeVar("SpecT", bound=BaseModel)


@dataclass(frozen=True)
class Written:
    """The id and version of the record that was written; no id where the kind has none, or nothing is left."""

    id: str | None
    version: int


def administer(request: AdminRequest, app: App) -> Written:
    """Put or delete one record. Sent again, it changes nothing more; a record that is gone is deleted.

    Raises:
        InvalidInput: The name or spec is wrong. No value of a block is shown.
        NotFound: It names something that does not exist.
        NotAllowed: Somebody else manages the record.
        InUse: Something depends on what is to be deleted.
        StoreUnavailable: The ledger cannot be written now.
    """
    if request.is_delete:
        return _delete(request, app)
    if request.former_owner is not None:
        _hand_over(request, request.former_owner, app)
    written = _put(request, app)
    if (old := request.replaced) is not None:
        _delete(old, app)
    return written


# -- put


def _put(request: AdminRequest, app: App) -> Written:
    record = _PUT[request.kind](request, app)
    if record.managed_by != request.managed_by and request.managed_by is not None:
        record = _owned(record, request.managed_by, app)
    found = getattr(record, "id", None)
    return Written(str(found) if isinstance(found, UUID) else None, record.version)


def _hand_over(request: AdminRequest, owner: str, app: App) -> None:
    """Give a record, and the queues of a pool, to the owner that its owner names: a module that was renamed."""
    name = "/".join(_two_names(request)) if request.kind is Kind.DEPLOYMENT else request.name
    records: list[CatalogueRecord | None] = [app.store.get(_RECORDS[request.kind], name)]
    if request.kind is Kind.WORK_POOL:
        records += [queue for queue in app.store.list(WorkQueue) if queue.work_pool == name]
    for record in records:
        if record is not None and record.managed_by == owner:
            _owned(record, request.managed_by, app, former=owner)


def _owned(record: CatalogueRecord, managed_by: str | None, app: App, *, former: str | None = None) -> CatalogueRecord:
    """Write down who owns a record that nobody did, or somebody else before."""
    kind = type(record)

    def read() -> CatalogueRecord:
        stored = app.store.get(kind, record.key)
        if stored is None:
            raise NotFound(kind.__name__, record.key, fix="it was deleted as it was written; send it again")
        return stored

    def change(before: CatalogueRecord) -> CatalogueRecord:
        return before.model_copy(update={"managed_by": managed_by})

    return change_record(app, "record", read, change, managed_by=former or managed_by)


def _put_pool(request: AdminRequest, app: App) -> WorkPool:
    spec = _spec(WorkPoolSpec, request, {"name": request.name})
    if isinstance(spec.base_job_template, str):
        raise InvalidInput("spec: base_job_template: here it is the template itself, not the name of a file")
    # What an owner declares is all there is of its queues; nobody's queues stay.
    return put_work_pool(app, spec, managed_by=request.managed_by, prune=request.managed_by is not None)


def _put_queue(request: AdminRequest, app: App) -> WorkQueue:
    pool, name = _two_names(request)
    spec = _spec(WorkQueueSpec, request, {"name": name})
    fields: dict[str, Any] = {
        "concurrency_limit": spec.concurrency_limit,
        "description": spec.description,
        "priority": spec.priority,
        "managed_by": request.managed_by,
    }
    if app.store.get(WorkQueue, request.name) is None:
        try:
            return create_work_queue(app, pool, name, **fields)
        except AlreadyExists:
            pass  # Somebody was faster, perhaps an earlier try of this request.
    return update_work_queue(app, pool, name, **fields)


def _put_block(request: AdminRequest, app: App) -> BlockDocument:
    type_slug, name = _two_names(request)
    if app.store.get(BlockDocument, request.name) is None:
        try:
            return create_block(app, type_slug, name, request.spec, managed_by=request.managed_by)
        except AlreadyExists:
            pass
    return replace_block(app, request.name, request.spec, managed_by=request.managed_by)


def _put_deployment(request: AdminRequest, app: App) -> Deployment:
    flow, name = _two_names(request)
    spec = _spec(DeploymentSpec, request, {"name": name, "flow_name": flow})
    old = request.replaced
    if old is not None and old.kind is Kind.DEPLOYMENT and app.store.get(Deployment, spec.key) is None:
        spec = _with_values_of(app.store.get(Deployment, "/".join(_two_names(old))), spec)
    return put_deployment(app, spec, managed_by=request.managed_by)


def _with_values_of(old: Deployment | None, spec: DeploymentSpec) -> DeploymentSpec:
    """Return the spec of a deployment under its new name, with the values that others have set under the old one."""
    place = spec.work_pool
    kept = {name: old.job_variables[name] for name in place.open_job_variables if old and name in old.job_variables}
    values = {**place.job_variables, **kept}
    return spec.model_copy(update={"work_pool": place.model_copy(update={"job_variables": values})})


def _put_variable(request: AdminRequest, app: App) -> Variable:
    unknown = request.spec.keys() - {"value", "tags"}
    if unknown or "value" not in request.spec:
        what = f"there is no {sorted(unknown)[0][:40]!r}" if unknown else "value is missing"
        raise InvalidInput(f'spec: {what}; write "value", and "tags" if you like')
    tags = request.spec.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidInput('spec: tags: it is a list of texts, such as ["finance"]')
    texts = [str(tag) for tag in tags]
    return set_variable(app, request.name, request.spec["value"], tags=texts, managed_by=request.managed_by)


_RECORDS: dict[Kind, type[CatalogueRecord]] = {
    Kind.WORK_POOL: WorkPool,
    Kind.WORK_QUEUE: WorkQueue,
    Kind.BLOCK: BlockDocument,
    Kind.DEPLOYMENT: Deployment,
    Kind.VARIABLE: Variable,
}
_PUT: dict[Kind, Callable[[AdminRequest, App], CatalogueRecord]] = {
    Kind.WORK_POOL: _put_pool,
    Kind.WORK_QUEUE: _put_queue,
    Kind.BLOCK: _put_block,
    Kind.DEPLOYMENT: _put_deployment,
    Kind.VARIABLE: _put_variable,
}


def _spec(class_: type[SpecT], request: AdminRequest, named: Mapping[str, str]) -> SpecT:
    """Return the spec as its model; the name is the request's."""
    for field, value in named.items():
        if request.spec.get(field, value) != value:
            raise InvalidInput(f"spec: {field}: the request names {value!r}; leave it out here")
    try:
        return class_.model_validate({**request.spec, **named})
    except ValidationError as error:
        raise InvalidInput("; ".join(str(each.below("spec")) for each in problems_of(class_, error))) from None


def _two_names(request: AdminRequest) -> tuple[str, str]:
    first, slash, second = request.name.partition("/")
    if request.kind is Kind.DEPLOYMENT and not slash:
        first = second = request.name
    if not first or not second or "/" in second:
        raise InvalidInput(
            f"name: {request.name[:80]!r} does not address a {request.kind}; write {NAMES[request.kind]}"
        )
    return first, second


# -- delete


def _delete(request: AdminRequest, app: App) -> Written:
    owner, name = request.managed_by, request.name
    match request.kind:
        case Kind.WORK_POOL:
            _gone(lambda: delete_work_pool(app, name, managed_by=owner))
        case Kind.WORK_QUEUE:
            pool, queue = _two_names(request)
            _gone(lambda: delete_work_queue(app, pool, queue, managed_by=owner))
        case Kind.BLOCK:
            _gone(lambda: delete_block(app, name, managed_by=owner))
        case Kind.DEPLOYMENT:
            key = "/".join(_two_names(request))
            if app.store.get(Deployment, key) is not None:  # Never another one, which only begins like it.
                _gone(lambda: delete_deployment(app, key, managed_by=owner))
        case Kind.VARIABLE:
            _gone(lambda: unset_variable(app, name, managed_by=owner))
    return Written(None, 0)


def _gone(delete: Callable[[], None]) -> None:
    with contextlib.suppress(NotFound):  # Deleted before, perhaps by an earlier try of this request.
        delete()
