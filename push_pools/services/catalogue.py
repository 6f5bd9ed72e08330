"""Pools, queues, deployments and variables: reading, changing and deleting them, with every check in one place."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import AlreadyExists, InUse, InvalidInput, NotAllowed, NotFound, VersionConflict
from push_pools.domain.events import Tick
from push_pools.domain.job_variables import (
    expand_dotted,
    template_defaults,
    validate_base_job_template,
    validate_job_variables,
)
from push_pools.domain.jobs import default_base_job_template
from push_pools.domain.lanes import with_epoch
from push_pools.domain.pools import DEFAULT_QUEUE, Variable, WorkPool, WorkQueue, full_pool_type
from push_pools.domain.problems import nearest
from push_pools.domain.templates import copy_json
from push_pools.domain.values import MOST_LIMIT, MOST_PRIORITY
from push_pools.ports import RunFilter
from push_pools.services.limits import ask_to_admit, sync_limit
from push_pools.services.records import KEEP, Keep, add_record, change_record, check_owner, checked_name, remove_record
from push_pools.services.status import forget_beats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from push_pools.domain.runs import FlowRun
    from push_pools.ports import App

UNFINISHED: Final = frozenset({"SCHEDULED", "PENDING", "RUNNING", "CANCELLING"})
MAX_PAGES: Final = 500
"""Most pages of runs read to see whether a queue is in use."""
MAX_VARIABLE_CHARACTERS: Final = 5000  # As in Prefect.

_VARIABLE_NAME = re.compile(r"[a-z0-9_-]{1,255}")  # As in Prefect.


# -- limits -------------------------------------------------------------------


def _checked_limit(limit: int | None) -> int | None:
    if limit is not None and not 0 <= limit <= MOST_LIMIT:
        raise InvalidInput(f"a concurrency limit of {limit} is out of range; write 0 to {MOST_LIMIT}, or none")
    return limit


# -- work pools ----------------------------------------------------------------


def pool_template(
    app: App,
    type_: str,
    base_job_template: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the template of a pool: the given one or its platform's, with `variables` as new defaults.

    Raises:
        NotFound: There is no such pool type.
        PlatformMissing: It cannot be loaded.
        InvalidTemplate: The template cannot be used.
        InvalidJobVariables: A variable is unknown, or a default breaks its schema.
    """
    platform = app.platforms(type_)
    given = base_job_template
    if given is None:
        given = default_base_job_template(platform.job_configuration, platform.job_configuration_variables)
    validate_base_job_template(given)
    template: dict[str, Any] = copy_json(dict(given))
    if variables:
        validate_job_variables(template, variables, require=False)
        for name, value in expand_dotted(variables).items():
            template["variables"]["properties"][name]["default"] = copy_json(value)
    validate_job_variables(template, template_defaults(template), require=False)
    return template


def create_work_pool(
    app: App,
    name: str,
    type_: str,
    *,
    base_job_template: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    description: str = "",
    concurrency_limit: int | None = None,
    managed_by: str | None = None,
) -> WorkPool:
    """Add a work pool with its queue `default` and return it.

    Raises:
        AlreadyExists: There is a pool of that name.
        NotFound: There is no such pool type.
        PlatformMissing: It cannot be loaded.
        InvalidInput: The name, template, a default or the limit is wrong.
    """
    now = app.clock.now()
    pool = WorkPool(
        id=uuid4(),
        name=checked_name("work pool", name),
        type=full_pool_type(type_),
        description=description,
        base_job_template=pool_template(app, type_, base_job_template, variables),
        concurrency_limit=_checked_limit(concurrency_limit),
        managed_by=managed_by,
        created_at=now,
        updated_at=now,
    )
    fix = "pick another name, or update it"
    if app.store.get(WorkPool, name) is not None:
        raise AlreadyExists("work pool", name, fix=fix)
    # The queue comes first: a pool that is there always has one, wherever this is cut short.
    ensure_default_queue(app, name, managed_by=managed_by)
    pool = add_record(app, "work pool", pool, fix=fix)
    sync_limit(app, pool)
    return pool


def ensure_default_queue(app: App, pool: str, *, priority: int = 1, managed_by: str | None = None) -> None:
    """Make the queue `default` of a pool that is about to be added, and remove what a deleted pool left behind."""
    for queue in list_work_queues(app, pool):
        _remove_queue(app, queue)
    with contextlib.suppress(VersionConflict):  # Somebody else adds the same pool now.
        app.store.put(_new_queue(app, pool, DEFAULT_QUEUE, priority=priority, managed_by=managed_by))


def get_work_pool(app: App, name: str) -> WorkPool:
    """Return a work pool.

    Raises:
        NotFound: There is none of that name.
    """
    pool = app.store.get(WorkPool, name)
    if pool is None:
        raise _not_found("work pool", name, (each.name for each in app.store.list(WorkPool)))
    return pool


def list_work_pools(app: App) -> Sequence[WorkPool]:
    """Return all work pools in the order of their names."""
    return app.store.list(WorkPool)


def update_work_pool(
    app: App,
    name: str,
    *,
    base_job_template: Mapping[str, Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    description: str | None = None,
    concurrency_limit: int | Keep | None = KEEP,
    managed_by: str | None = None,
) -> WorkPool:
    """Change what is given of a work pool and return it.

    `variables` become defaults over those of the given template, or of the one the pool has. Runs that have not
    been claimed yet use the new defaults; deployments need no redeploy.

    Raises:
        NotFound: There is no such pool.
        NotAllowed: Somebody else manages it.
        InvalidInput: The template, a default or the limit is wrong.
    """

    def change(pool: WorkPool) -> WorkPool:
        changes: dict[str, Any] = {}
        if base_job_template is not None or variables:
            base = pool.base_job_template if base_job_template is None else base_job_template
            changes["base_job_template"] = pool_template(app, pool.type, base, variables)
        if description is not None:
            changes["description"] = description
        if not isinstance(concurrency_limit, Keep):
            changes["concurrency_limit"] = _checked_limit(concurrency_limit)
        return with_epoch(pool, pool.model_copy(update=changes))

    pool = change_record(app, "work pool", lambda: get_work_pool(app, name), change, managed_by=managed_by)
    sync_limit(app, pool)
    return pool


def pause_work_pool(app: App, name: str, *, note: str = "", managed_by: str | None = None) -> WorkPool:
    """Hold the runs of a pool that are not submitted yet; the others carry on. The note says why.

    Raises:
        NotFound: There is no such pool.
        NotAllowed: Somebody else manages it.
    """
    return _pause_pool(app, name, _paused(note), managed_by)


def resume_work_pool(app: App, name: str, *, managed_by: str | None = None) -> WorkPool:
    """Serve a pool again, those first that have waited.

    Raises:
        NotFound: There is no such pool.
        NotAllowed: Somebody else manages it.
    """
    return _pause_pool(app, name, _RESUMED, managed_by)


_RESUMED: Final[dict[str, Any]] = {"is_paused": False, "pause_note": ""}


def _paused(note: str) -> dict[str, Any]:
    return {"is_paused": True, "pause_note": note[:500]}


def _pause_pool(app: App, name: str, changes: dict[str, Any], managed_by: str | None) -> WorkPool:
    pool = change_record(
        app,
        "work pool",
        lambda: get_work_pool(app, name),
        lambda before: before.model_copy(update=changes),
        managed_by=managed_by,
    )
    if not pool.is_paused:
        serve_again(app, pool)
    return pool


def delete_work_pool(app: App, name: str, *, managed_by: str | None = None) -> None:
    """Delete a work pool and its queues.

    Raises:
        NotFound: There is no such pool.
        NotAllowed: Somebody else manages it.
        InUse: Deployments or unfinished runs use it.
    """

    def check(pool: WorkPool) -> None:
        if users := list(pool_users(app, pool.name, list_deployments(app))):
            raise InUse("work pool", pool.name, users)

    pool = remove_record(app, "work pool", lambda: get_work_pool(app, name), check, managed_by=managed_by)
    remove_pool_parts(app, pool)


def remove_pool_parts(app: App, pool: WorkPool) -> None:
    """Remove the queues and limits of a pool that was deleted. Repeatable."""
    for queue in list_work_queues(app, pool.name):
        _remove_queue(app, queue)
    sync_limit(app, pool)
    forget_beats(app, pool.name)


def pool_users(app: App, name: str, deployments: Iterable[Deployment]) -> Iterator[str]:
    """Yield what keeps a pool from being deleted, of these deployments and of all runs."""
    yield from (f"deployment {each.key}" for each in deployments if each.work_pool == name)
    page = app.store.runs(RunFilter(states=UNFINISHED, work_pool=name))
    if page.runs:
        yield _count(len(page.runs), more=page.cursor is not None)


def _count(runs: int, *, more: bool) -> str:
    return f"{runs}{' or more' if more else ''} unfinished run{'s' if runs > 1 else ''}"


# -- work queues ---------------------------------------------------------------


def create_work_queue(
    app: App,
    pool: str,
    name: str,
    *,
    priority: int | None = None,
    concurrency_limit: int | None = None,
    description: str = "",
    managed_by: str | None = None,
) -> WorkQueue:
    """Add a queue to a work pool and return it. Without a priority it comes after all others.

    Raises:
        NotFound: There is no such pool.
        AlreadyExists: The pool has a queue of that name.
        InvalidInput: The name, priority or limit is wrong.
    """
    get_work_pool(app, pool)
    last = max((each.priority for each in list_work_queues(app, pool)), default=0)
    queue = _new_queue(
        app,
        pool,
        checked_name("work queue", name),
        priority=_checked_priority(last + 1 if priority is None else priority),
        concurrency_limit=_checked_limit(concurrency_limit),
        description=description,
        managed_by=managed_by,
    )
    queue = add_record(app, "work queue", queue, fix="pick another name, or update it")
    sync_limit(app, queue)
    return queue


def _new_queue(app: App, pool: str, name: str, **fields: Any) -> WorkQueue:
    now = app.clock.now()
    return WorkQueue(id=uuid4(), work_pool=pool, name=name, created_at=now, updated_at=now, **fields)


def _checked_priority(priority: int) -> int:
    if not 1 <= priority <= MOST_PRIORITY:
        raise InvalidInput(f"a priority of {priority} is out of range; write 1 (served first) to {MOST_PRIORITY}")
    return priority


def get_work_queue(app: App, pool: str, name: str) -> WorkQueue:
    """Return a queue of a work pool.

    Raises:
        NotFound: There is no such pool or queue.
    """
    queue = app.store.get(WorkQueue, f"{pool}/{name}")
    if queue is None:
        get_work_pool(app, pool)
        raise _not_found("work queue", f"{pool}/{name}", (each.key for each in list_work_queues(app, pool)))
    return queue


def list_work_queues(app: App, pool: str | None = None) -> Sequence[WorkQueue]:
    """Return the queues of a pool, or of all pools, in the order in which they are served."""
    queues = (queue for queue in app.store.list(WorkQueue) if pool in (None, queue.work_pool))
    return sorted(queues, key=lambda queue: (queue.work_pool, queue.priority, queue.name))


def update_work_queue(
    app: App,
    pool: str,
    name: str,
    *,
    priority: int | None = None,
    concurrency_limit: int | Keep | None = KEEP,
    description: str | None = None,
    managed_by: str | None = None,
) -> WorkQueue:
    """Change what is given of a queue and return it.

    Raises:
        NotFound: There is no such pool or queue.
        NotAllowed: Somebody else manages it.
        InvalidInput: The priority or limit is wrong.
    """

    def change(queue: WorkQueue) -> WorkQueue:
        changes: dict[str, Any] = {}
        if priority is not None:
            changes["priority"] = _checked_priority(priority)
        if not isinstance(concurrency_limit, Keep):
            changes["concurrency_limit"] = _checked_limit(concurrency_limit)
        if description is not None:
            changes["description"] = description
        return with_epoch(queue, queue.model_copy(update=changes))

    before = get_work_queue(app, pool, name)
    queue = change_record(app, "work queue", lambda: get_work_queue(app, pool, name), change, managed_by=managed_by)
    sync_limit(app, queue)
    if queue.priority != before.priority:
        ask_to_admit(app, pool)  # Priorities are read when slots are given, so nothing else has to follow.
    return queue


def pause_work_queue(app: App, pool: str, name: str, *, note: str = "", managed_by: str | None = None) -> WorkQueue:
    """Hold the runs of a queue that are not submitted yet; the others carry on. The note says why.

    Raises:
        NotFound: There is no such pool or queue.
        NotAllowed: Somebody else manages it.
    """
    return _pause_queue(app, pool, name, _paused(note), managed_by)


def resume_work_queue(app: App, pool: str, name: str, *, managed_by: str | None = None) -> WorkQueue:
    """Serve a queue again, those first that have waited.

    Raises:
        NotFound: There is no such pool or queue.
        NotAllowed: Somebody else manages it.
    """
    return _pause_queue(app, pool, name, _RESUMED, managed_by)


def _pause_queue(app: App, pool: str, name: str, changes: dict[str, Any], managed_by: str | None) -> WorkQueue:
    queue = change_record(
        app,
        "work queue",
        lambda: get_work_queue(app, pool, name),
        lambda before: before.model_copy(update=changes),
        managed_by=managed_by,
    )
    if not queue.is_paused:
        serve_again(app, queue)
    return queue


def serve_again(app: App, lane: WorkPool | WorkQueue) -> None:
    """Have the runs of a resumed pool or queue admitted, and what its schedules missed planned. The tick does both."""
    ask_to_admit(app, lane.name if isinstance(lane, WorkPool) else lane.work_pool)
    app.queue.send(Tick(reason=f"{lane.key} resumed").to_json())


def delete_work_queue(app: App, pool: str, name: str, *, managed_by: str | None = None) -> None:
    """Delete a queue.

    Raises:
        NotFound: There is no such pool or queue.
        NotAllowed: It is the queue `default`, or somebody else manages it.
        InUse: Deployments or unfinished runs use it.
    """
    if name == DEFAULT_QUEUE:
        raise NotAllowed(f"the queue {DEFAULT_QUEUE!r} stays as long as its pool; delete the work pool {pool!r}")

    def check(queue: WorkQueue) -> None:
        if users := list(queue_users(app, queue, list_deployments(app))):
            raise InUse("work queue", queue.key, users)

    queue = remove_record(app, "work queue", lambda: get_work_queue(app, pool, name), check, managed_by=managed_by)
    sync_limit(app, queue)


def queue_users(app: App, queue: WorkQueue, deployments: Iterable[Deployment]) -> Iterator[str]:
    """Yield what keeps a queue from being deleted, of these deployments and of all runs."""
    for deployment in deployments:
        if (deployment.work_pool, deployment.work_queue) == (queue.work_pool, queue.name):
            yield f"deployment {deployment.key}"
    if any(run.work_queue == queue.name for run in _unfinished(app, queue.work_pool)):
        yield "unfinished runs"


def _unfinished(app: App, pool: str) -> Iterator[FlowRun]:
    cursor = None
    for _ in range(MAX_PAGES):
        page = app.store.runs(RunFilter(states=UNFINISHED, work_pool=pool), cursor=cursor)
        yield from page.runs
        cursor = page.cursor
        if cursor is None:
            return


def _remove_queue(app: App, queue: WorkQueue) -> None:
    try:
        app.store.delete(queue)
    except VersionConflict:
        return  # Somebody else uses the name now.
    sync_limit(app, queue)


# -- deployments ---------------------------------------------------------------


def find_deployment(app: App, ref: str) -> Deployment:
    """Return a deployment by `flow/name`, by a name that is unique, by its id or by a unique beginning of its id.

    Raises:
        NotFound: There is none.
        InvalidInput: More than one is meant; they are listed.
    """
    if (found := app.store.get(Deployment, ref)) is not None:
        return found
    deployments = app.store.list(Deployment)
    for candidates in (
        [each for each in deployments if each.name == ref],
        [each for each in deployments if _begins_with(each.id, ref)],
    ):
        if len(candidates) > 1:
            listed = ", ".join(f"{each.key} ({each.id})" for each in candidates[:10])
            raise InvalidInput(f"deployment {ref!r} may be {listed}; write flow/name, or more of the id")
        if candidates:
            return candidates[0]
    raise _not_found("deployment", ref, (each.key for each in deployments))


def _begins_with(id_: UUID, prefix: str) -> bool:
    prefix = prefix.lower()
    return bool(prefix) and (str(id_).startswith(prefix) or id_.hex.startswith(prefix))


def list_deployments(app: App) -> Sequence[Deployment]:
    """Return all deployments in the order of `flow/name`."""
    return app.store.list(Deployment)


def pause_deployment(app: App, ref: str, *, note: str = "", managed_by: str | None = None) -> Deployment:
    """Refuse new runs of a deployment, and plan none; runs that are there carry on. The note says why.

    Raises:
        NotFound: There is no such deployment.
        NotAllowed: Somebody else manages it.
    """
    return _pause(app, ref, _paused(note), managed_by)


def resume_deployment(app: App, ref: str, *, managed_by: str | None = None) -> Deployment:
    """Take and plan runs of a deployment again, from now on: what was due while it was paused is not made good.

    Raises:
        NotFound: There is no such deployment.
        NotAllowed: Somebody else manages it.
    """
    return _pause(app, ref, _RESUMED, managed_by)


def _pause(app: App, ref: str, changes: dict[str, Any], managed_by: str | None) -> Deployment:
    deployment = change_record(
        app,
        "deployment",
        lambda: find_deployment(app, ref),
        lambda before: before.model_copy(update={**changes, **resumed_at(before, app.clock.now(), **changes)}),
        managed_by=managed_by,
    )
    ask_to_plan(app, [deployment])
    return deployment


def resumed_at(before: Deployment | None, now: datetime, *, is_paused: bool | None = None, **_: Any) -> dict[str, Any]:
    """Return from when on a deployment is planned if this resumes it."""
    return {"planned_from": now} if before is not None and before.is_paused and is_paused is False else {}


def set_job_variables(app: App, ref: str, values: Mapping[str, Any], *, managed_by: str | None = None) -> Deployment:
    """Set job variables of a deployment, beside those it has, and return it.

    A deploy from its file sets back those that are not in `open_job_variables`. Where somebody else manages the
    deployment, only those may be set.

    Raises:
        NotFound: There is no such deployment, or its pool is gone.
        NotAllowed: Somebody else manages it, and does not leave these variables to others.
        InvalidJobVariables: A variable is unknown, or a value breaks its schema.
    """

    def change(before: Deployment) -> Deployment:
        after = before.model_copy(update={"job_variables": {**before.job_variables, **copy_json(dict(values))}})
        validate_job_variables(get_work_pool(app, after.work_pool).base_job_template, after.layer(), require=False)
        return after

    def check(before: Deployment) -> None:
        if owned := before.owned_job_variables(values):
            try:
                check_owner("deployment", before, managed_by)
            except NotAllowed as error:
                raise NotAllowed(f"{error}{_what_is_open(before, owned)}") from None

    return change_record(
        app, "deployment", lambda: find_deployment(app, ref), change, managed_by=managed_by, check=check
    )


def _what_is_open(deployment: Deployment, owned: Sequence[str]) -> str:
    if deployment.open_job_variables:
        return f": it leaves only {', '.join(deployment.open_job_variables)} to others, not {', '.join(owned)}"
    return f", or name {', '.join(owned)} in its open_job_variables"


def delete_deployment(app: App, ref: str, *, managed_by: str | None = None) -> None:
    """Delete a deployment. Its runs stay, and those not started yet are still decided by the ledger.

    Raises:
        NotFound: There is no such deployment.
        NotAllowed: Somebody else manages it.
    """
    deployment = remove_record(
        app, "deployment", lambda: find_deployment(app, ref), lambda _: None, managed_by=managed_by
    )
    sync_limit(app, deployment)


def ask_to_plan(app: App, deployments: Iterable[Deployment]) -> None:
    """Plan deployments that were written just now. What fails, or is cut short here, the next tick makes good."""
    from push_pools.services.plan import plan_deployment  # It puts runs, for which it looks into the catalogue.

    for deployment in deployments:
        plan_deployment(app, deployment)


# -- variables -----------------------------------------------------------------


def set_variable(
    app: App, name: str, value: Any, *, tags: Iterable[str] = (), overwrite: bool = True, managed_by: str | None = None
) -> Variable:
    """Set a variable to any JSON value and return it.

    Raises:
        InvalidInput: The name is wrong, or the value is not JSON or too long.
        AlreadyExists: It is there, and may not be overwritten.
        NotAllowed: Somebody else manages it.
    """
    _check_variable(name, value)
    now = app.clock.now()
    fresh = Variable(name=name, value=value, tags=tuple(tags), managed_by=managed_by, created_at=now, updated_at=now)
    if app.store.get(Variable, name) is None or not overwrite:
        try:
            return add_record(app, "variable", fresh, fix="pick another name, or overwrite it")
        except AlreadyExists:
            if not overwrite:
                raise
    changes = {"value": value, "tags": fresh.tags}
    return change_record(
        app,
        "variable",
        lambda: get_variable(app, name),
        lambda before: before.model_copy(update=changes),
        managed_by=managed_by,
    )


def _check_variable(name: str, value: Any) -> None:
    if not _VARIABLE_NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:40]!r} cannot name a variable; write 1 to 255 lower-case letters, digits, dashes and underscores"
        )
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"the value of variable {name!r} is not JSON; write text, a number, true, false, null, a list or an object"
        ) from None
    if len(text) > MAX_VARIABLE_CHARACTERS:
        raise InvalidInput(
            f"the value of variable {name!r} has {len(text)} characters as JSON; at most {MAX_VARIABLE_CHARACTERS} are "
            f"kept, so put it in a store and keep a reference"
        )


def get_variable(app: App, name: str) -> Variable:
    """Return a variable.

    Raises:
        NotFound: There is none of that name.
    """
    variable = app.store.get(Variable, name)
    if variable is None:
        raise _not_found("variable", name, (each.name for each in app.store.list(Variable)))
    return variable


def list_variables(app: App) -> Sequence[Variable]:
    """Return all variables in the order of their names."""
    return app.store.list(Variable)


def unset_variable(app: App, name: str, *, managed_by: str | None = None) -> None:
    """Delete a variable; where a template names it, there is empty text from now on.

    Raises:
        NotFound: There is none of that name.
        NotAllowed: Somebody else manages it.
    """
    remove_record(app, "variable", lambda: get_variable(app, name), lambda _: None, managed_by=managed_by)


def _not_found(kind: str, name: str, known: Iterable[str]) -> NotFound:
    names = nearest(name, known)
    return NotFound(kind, name[:300], names, fix=None if names else "there is none yet")
