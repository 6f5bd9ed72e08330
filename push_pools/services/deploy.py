"""Making the ledger what a config file says: first the whole plan, checked; then its writes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from uuid import uuid4

from push_pools.domain.config import Config, DeploymentSpec, WorkPoolSpec, WorkQueueSpec
from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import (
    InUse,
    InvalidInput,
    InvalidJobVariables,
    InvalidTemplate,
    NotAllowed,
    NotFound,
    PlatformMissing,
    StoreUnavailable,
    VersionConflict,
)
from push_pools.domain.job_variables import is_marked_secret, unknown_job_variables, validate_job_variables
from push_pools.domain.lanes import with_epoch
from push_pools.domain.pools import WorkPool, WorkQueue
from push_pools.domain.problems import Path, Problem, format_path, nearest
from push_pools.domain.schedules import match_schedules, past_of
from push_pools.services.blocks import REDACTED
from push_pools.services.catalogue import (
    ask_to_plan,
    pool_template,
    pool_users,
    queue_users,
    remove_pool_parts,
    resumed_at,
    serve_again,
)
from push_pools.services.limits import ask_to_admit, sync_limit
from push_pools.services.records import MAX_TRIES, check_owner

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from push_pools.ports import App

Target = WorkPool | WorkQueue | Deployment
TargetT = TypeVar("TargetT", WorkPool, WorkQueue, Deployment)


class Action(StrEnum):
    """What becomes of a record."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"


class FieldChange(NamedTuple):
    """One value that changes; what may be secret is stars."""

    path: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Change:
    """What becomes of one record."""

    kind: str
    """`work pool`, `work queue` or `deployment`."""
    key: str
    action: Action
    diff: tuple[FieldChange, ...] = ()
    before: Target | None = field(default=None, repr=False, compare=False)
    after: Target | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class DeployPlan:
    """Every change that makes the ledger what a config file says, in the order of writing."""

    changes: tuple[Change, ...]
    config: Config = field(repr=False)
    names: tuple[str, ...] | None = None
    prune: bool = False
    managed_by: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to change."""
        return all(change.action is Action.UNCHANGED for change in self.changes)


# -- planning ------------------------------------------------------------------


def plan_deploy(
    app: App,
    config: Config,
    *,
    names: Collection[str] | None = None,
    prune: bool = False,
    managed_by: str | None = None,
) -> DeployPlan:
    """Return what has to change for the ledger to be what a config file says. Nothing is written.

    `names` picks deployments, by name or `flow/name`, with the pools of the file that they use. `prune` also deletes
    what an earlier deploy of the same file made and the file does not name any more.

    Raises:
        InvalidConfigFile: The file asks for something that cannot be; every problem has its place.
        InvalidInput: `names` and `prune` are given together.
        NotFound: The file has no deployment of that name.
        InUse: What would be pruned is in use.
    """
    if names is not None and prune:
        raise InvalidInput("--prune goes with the whole file; leave out the names, or --prune")
    return DeployPlan(
        changes=_Planner(app, config, managed_by).plan(names, prune=prune),
        config=config,
        names=None if names is None else tuple(names),
        prune=prune,
        managed_by=managed_by,
    )


class _Planner:
    """Collects changes and problems of one file."""

    def __init__(self, app: App, config: Config, managed_by: str | None) -> None:
        self.app, self.config, self.managed_by = app, config, managed_by
        self.now = app.clock.now()
        self.problems: list[Problem] = []
        self.changes: list[Change] = []
        self.pools: dict[str, WorkPool | None] = {pool.name: pool for pool in app.store.list(WorkPool)}
        """Pools as they will be; None for one that is wrong."""
        self.queues = {queue.key for queue in app.store.list(WorkQueue)}
        """Keys of the queues that there will be."""

    def plan(self, names: Collection[str] | None, *, prune: bool) -> tuple[Change, ...]:
        deployments = self._picked(names)
        wanted = {spec.work_pool.name for _, spec in deployments}
        for number, pool in enumerate(self.config.work_pools):
            if names is None or pool.name in wanted:
                self._plan_pool(pool, ("work_pools", number))
        for number, deployment in deployments:
            self._plan_deployment(deployment, ("deployments", number))
        if self.problems:
            raise self.config.invalid(self.problems)
        if prune:
            self._prune()
        return tuple(self.changes)

    def _picked(self, names: Collection[str] | None) -> list[tuple[int, DeploymentSpec]]:
        specs = list(enumerate(self.config.deployments))
        if names is None:
            return specs
        for name in names:
            if not any(name in (spec.name, spec.key) for _, spec in specs):
                raise NotFound("deployment", name, nearest(name, (spec.key for _, spec in specs)))
        return [(number, spec) for number, spec in specs if spec.name in names or spec.key in names]

    # -- pools and queues

    def _plan_pool(self, spec: WorkPoolSpec, path: Path) -> None:
        before = self.app.store.get(WorkPool, spec.name)
        self.pools[spec.name] = None
        if before is not None and before.type != spec.type:
            return self._refuse(
                (*path, "type"),
                f"the work pool {spec.name!r} has the type {before.type}, which never changes; take another name, or "
                f"delete the pool first",
            )
        if before is not None and not self._may_write("work pool", before, path):
            return None
        template = self._template(spec, path)
        if template is None:
            return None
        fields = {
            "description": spec.description,
            "base_job_template": template,
            "concurrency_limit": spec.concurrency_limit,
            **_paused(spec, before, self.now),
        }
        # Queues come first: a pool that is there always has one, wherever the writing is cut short.
        self._plan_queues(spec, path)
        fresh = {"id": uuid4(), "name": spec.name, "type": spec.type}
        self.pools[spec.name] = self._put("work pool", WorkPool, before, fresh, fields)
        return None

    def _template(self, spec: WorkPoolSpec, path: Path) -> dict[str, Any] | None:
        given = spec.base_job_template
        assert not isinstance(given, str), "the file's reader has read the template"
        try:
            return pool_template(self.app, spec.type, given, spec.variables)
        except InvalidJobVariables as error:
            self.problems += _located(error, spec.variables, (*path, "variables"))
        except InvalidTemplate as error:
            self._refuse((*path, "base_job_template"), str(error))
        except (NotFound, PlatformMissing) as error:
            self._refuse((*path, "type"), str(error))
        return None

    def _plan_queues(self, spec: WorkPoolSpec, path: Path) -> None:
        specs = {queue.name: queue for queue in spec.work_queues}
        for name, priority in spec.priorities().items():
            before = self.app.store.get(WorkQueue, f"{spec.name}/{name}")
            if before is not None and not self._may_write("work queue", before, (*path, "work_queues")):
                continue
            queue = specs.get(name)
            fields: dict[str, Any] = {"priority": priority}
            fields["description"] = queue.description if queue else ""
            fields["concurrency_limit"] = queue.concurrency_limit if queue else None
            fields |= _paused(queue, before, self.now)
            fresh = {"id": uuid4(), "work_pool": spec.name, "name": name}
            self.queues.add(self._put("work queue", WorkQueue, before, fresh, fields).key)

    # -- deployments

    def _plan_deployment(self, spec: DeploymentSpec, path: Path) -> None:
        before = self.app.store.get(Deployment, spec.key)
        if before is not None and not self._may_write("deployment", before, path):
            return
        if not self._check_place(spec, path):
            return
        set_by_others = _set_by_others(spec, before)
        self._check_job_variables(spec, set_by_others, path)
        schedules = match_schedules(spec.schedules, before.schedules if before else (), lambda: uuid4().hex, self.now)
        for number, schedule in enumerate(schedules):
            past = past_of(schedule, self.now)
            if past is not None and not (before and schedule in before.schedules):  # One that is stored may be over.
                self._refuse((*path, "schedules", number, past[0]), past[1])
        fields = {
            "description": spec.description,
            "command": spec.command,
            "parameters": spec.parameters,
            "work_pool": spec.work_pool.name,
            "work_queue": spec.work_pool.work_queue_name,
            "job_variables": {**spec.work_pool.job_variables, **set_by_others},
            "open_job_variables": spec.work_pool.open_job_variables,
            "schedules": schedules,
            "retries": spec.retries.policy(),
            "concurrency_limit": spec.concurrency_limit,
            "start_timeout_seconds": spec.start_timeout_seconds,
            "timeout_seconds": spec.timeout_seconds,
            "max_wait_seconds": spec.max_wait_seconds,
            "tags": spec.tags,
            **_paused(spec, before, self.now),
        }
        fresh = {"id": uuid4(), "name": spec.name, "flow_name": spec.flow_name or spec.name}
        self._put("deployment", Deployment, before, fresh, fields)

    def _check_place(self, spec: DeploymentSpec, path: Path) -> bool:
        """Check the pool and the queue; return whether job variables can be checked against the pool."""
        name, queue = spec.work_pool.name, spec.work_pool.work_queue_name
        if name not in self.pools:
            error = NotFound("work pool", name, nearest(name, self.pools))
            self._refuse((*path, "work_pool", "name"), f"{error}; name one of these, or add it under work_pools")
        elif f"{name}/{queue}" not in self.queues and self.pools[name] is not None:
            known = (key.partition("/")[2] for key in self.queues if key.startswith(f"{name}/"))
            error = NotFound("work queue", f"{name}/{queue}", nearest(queue, known))
            self._refuse((*path, "work_pool", "work_queue_name"), f"{error}; name one of these, or add it to the pool")
        return self.pools.get(name) is not None

    def _check_job_variables(self, spec: DeploymentSpec, set_by_others: Mapping[str, Any], path: Path) -> None:
        pool = self.pools[spec.work_pool.name]
        assert pool is not None
        opened = (*path, "work_pool", "open_job_variables")
        for number, name in enumerate(spec.work_pool.open_job_variables):
            for problem in unknown_job_variables(pool.base_job_template, [name]):
                self._refuse((*opened, number), problem)
        places: list[tuple[Mapping[str, Any], Path]] = [
            (spec.work_pool.job_variables, (*path, "work_pool", "job_variables")),
            (set_by_others, (*path, "work_pool", "job_variables")),
            ({} if spec.command is None else {"command": spec.command}, path),
        ]
        for number, schedule in enumerate(spec.schedules):
            places.append((schedule.job_variables, (*path, "schedules", number, "job_variables")))
        for values, where in places:
            try:
                validate_job_variables(pool.base_job_template, values, require=False)
            except InvalidJobVariables as error:
                self.problems += _located(error, values, where)
            except InvalidTemplate as error:
                self._refuse(where, str(error))

    # -- what the file does not name any more

    def _prune(self) -> None:
        named = {spec.key for spec in self.config.deployments}
        deployments = [each for each in self._owned(Deployment) if each.key not in named]
        left = self._left({each.key for each in deployments})
        for deployment in deployments:
            self._delete("deployment", deployment)
        kept = {pool.name: pool.priorities() for pool in self.config.work_pools}
        for queue in self._owned(WorkQueue):
            if queue.work_pool in kept and queue.name not in kept[queue.work_pool]:
                self._refuse_in_use("work queue", queue.key, queue_users(self.app, queue, left))
                self._delete("work queue", queue)
        for pool in self._owned(WorkPool):
            if pool.name not in kept:
                self._refuse_in_use("work pool", pool.key, pool_users(self.app, pool.name, left))
                self._delete("work pool", pool)

    def _left(self, pruned: set[str]) -> list[Deployment]:
        """Return the deployments as they will be."""
        left = {each.key: each for each in self.app.store.list(Deployment) if each.key not in pruned}
        left |= {change.key: change.after for change in self.changes if isinstance(change.after, Deployment)}
        return list(left.values())

    def _owned(self, kind: type[TargetT]) -> Iterator[TargetT]:
        for record in self.app.store.list(kind):
            if owner_of(record) == self.config.owner is not None and record.managed_by == self.managed_by:
                yield record

    def _refuse_in_use(self, kind: str, key: str, users: Iterable[str]) -> None:
        if listed := list(users):
            raise InUse(kind, key, listed)

    # -- changes

    def _may_write(self, kind: str, record: Target, path: Path) -> bool:
        try:
            check_owner(kind, record, self.managed_by)
        except NotAllowed as error:
            self._refuse((*path, "name"), str(error))
            return False
        return True

    def _put(
        self,
        kind: str,
        class_: type[TargetT],
        before: TargetT | None,
        fresh: Mapping[str, Any],
        fields: Mapping[str, Any],
    ) -> TargetT:
        owner = {"managed_by": self.managed_by}
        if self.config.owner is not None:
            owner["deployed_from"] = self.config.owner
        if before is None:
            times = {"created_at": self.now, "updated_at": self.now}
            after = class_.model_validate({**fresh, **fields, **owner, **times})
            self.changes.append(Change(kind, after.key, Action.CREATE, after=after))
            return after
        # Validated, so that it is equal to what was stored wherever it says the same.
        after = class_.model_validate({**_fields(before), **fields, **owner})
        if after == before:
            self.changes.append(Change(kind, before.key, Action.UNCHANGED, before=before, after=before))
            return before
        after = with_epoch(before, after.model_copy(update={"updated_at": self.now}))
        self.changes.append(Change(kind, after.key, Action.UPDATE, _diff(before, after), before, after))
        return after

    def _delete(self, kind: str, record: Target) -> None:
        self.changes.append(Change(kind, record.key, Action.DELETE, before=record))

    def _refuse(self, path: Path, text: str) -> None:
        self.problems.append(Problem(path, text))


def owner_of(record: Target) -> str | None:
    """Return the config file that a record was deployed from, by its `project` or path; None for other records."""
    return record.deployed_from


def _set_by_others(spec: DeploymentSpec, before: Deployment | None) -> dict[str, Any]:
    """Return the values of the variables that a deployment leaves to others, as they were set."""
    stored = before.job_variables if before else {}
    return {name: stored[name] for name in spec.work_pool.open_job_variables if name in stored}


def _paused(
    spec: WorkPoolSpec | WorkQueueSpec | DeploymentSpec | None, before: Target | None, now: datetime
) -> dict[str, Any]:
    if spec is None or spec.is_paused is None:
        return {}
    note = before.pause_note if before and spec.is_paused else ""
    resumed = resumed_at(before, now, is_paused=spec.is_paused) if isinstance(before, Deployment) else {}
    return {"is_paused": spec.is_paused, "pause_note": note, **resumed}


def _fields(record: Target) -> dict[str, Any]:
    return {**{name: getattr(record, name) for name in type(record).model_fields}, **(record.model_extra or {})}


def _located(error: InvalidJobVariables, values: Mapping[str, Any], path: Path) -> list[Problem]:
    return [_problem(sentence, values, path) for sentence in error.problems]


def _problem(sentence: str, values: Mapping[str, Any], path: Path) -> Problem:
    """Return a sentence such as `volumes[0].name: …` as a problem at that place below the job variables."""
    where, _, text = sentence.partition(": ")
    names = [name for name in values if where == name or where.startswith((f"{name}.", f"{name}["))]
    if not names:
        return Problem(path, sentence)
    name = max(names, key=len)
    inside = [int(number) if number else part for part, number in _PART.findall(where[len(name) :])]
    return Problem((*path, name, *inside), text, at_key=text.startswith("there is no such variable"))


_PART = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


# -- showing what changes ------------------------------------------------------

_NOT_SHOWN: Final = frozenset({"id", "version", "limit_epoch", "created_at", "updated_at", "planned_from"})
_SECRET_NAME = re.compile(r"passw|secret|token|api_?key|private_?key", re.IGNORECASE)
_MISSING: Final = object()


def _diff(before: Target, after: Target) -> tuple[FieldChange, ...]:
    old, new = _dumped(before), _dumped(after)
    return tuple(
        change
        for name in dict.fromkeys((*old, *new))
        if name not in _NOT_SHOWN
        for change in _differences((name,), old.get(name, _MISSING), new.get(name, _MISSING), _secret_variables(after))
    )


def _dumped(record: Target) -> dict[str, Any]:
    dumped = record.model_dump(mode="json")
    if isinstance(record, Deployment):
        hidden = {"id", "version", "planned_from"}
        dumped["schedules"] = [
            each.model_dump(mode="json", exclude_defaults=True, exclude=hidden) for each in record.schedules
        ]
    return dumped


def _secret_variables(record: Target) -> frozenset[str]:
    """Return the variables that a pool's template marks as secret."""
    if not isinstance(record, WorkPool):
        return frozenset()
    properties = record.base_job_template["variables"].get("properties", {})
    return frozenset(name for name, schema in properties.items() if is_marked_secret(schema))


def _differences(path: Path, old: Any, new: Any, secret: frozenset[str]) -> Iterator[FieldChange]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _differences((*path, name), old.get(name, _MISSING), new.get(name, _MISSING), secret)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (old_item, new_item) in enumerate(zip(old, new, strict=True)):
            yield from _differences((*path, number), old_item, new_item, secret)
    else:
        yield FieldChange(format_path(path), _shown(path, old, secret), _shown(path, new, secret))


def _shown(path: Path, value: Any, secret: frozenset[str]) -> Any:
    if value is _MISSING or value is None:
        return None
    if _is_hidden(path, secret):
        return REDACTED
    if isinstance(value, dict):
        return {name: _shown((*path, name), item, secret) for name, item in value.items()}
    if isinstance(value, list):
        return [_shown((*path, number), item, secret) for number, item in enumerate(value)]
    return value


def _is_hidden(path: Path, secret: frozenset[str]) -> bool:
    """Whether a value may be a secret: it is marked as one, called like one, or sits in an environment."""
    names = [part for part in path if isinstance(part, str)]
    in_env = any(name in ("env", "environment") for name in names[:-1]) and names[-1] not in _SCHEMA_WORDS
    return in_env or not secret.isdisjoint(names[3:4]) or any(map(_SECRET_NAME.search, names))


_SCHEMA_WORDS: Final = frozenset({"title", "description", "type"})


# -- writing -------------------------------------------------------------------


def apply(app: App, plan: DeployPlan) -> DeployPlan:
    """Write what a plan says, and return the plan as it was written. Repeatable: what was cut short is made good.

    If somebody else wrote meanwhile, the plan is made anew.

    Raises:
        StoreUnavailable: Others always wrote first, or the ledger cannot be written.
        InvalidConfigFile: What somebody else wrote meanwhile makes the file impossible.
        InUse: What would be pruned is in use by now.
    """
    written: dict[tuple[str, str], Change] = {}
    for _ in range(MAX_TRIES):
        try:
            for change in plan.changes:
                _write(app, change)
                _remember(written, change)
            break
        except VersionConflict:
            plan = plan_deploy(app, plan.config, names=plan.names, prune=plan.prune, managed_by=plan.managed_by)
    else:
        raise StoreUnavailable("somebody else writes what is deployed at the same time; deploy again")
    done = DeployPlan(tuple(written.values()), plan.config, plan.names, plan.prune, plan.managed_by)
    _after(app, done.changes)
    return done


def _remember(written: dict[tuple[str, str], Change], change: Change) -> None:
    name = (change.kind, change.key)
    if name not in written or change.action is not Action.UNCHANGED:
        written[name] = change


def _write(app: App, change: Change) -> None:
    match change.action:
        case Action.CREATE | Action.UPDATE if change.after is not None:
            app.store.put(change.after)
        case Action.DELETE if change.before is not None:
            app.store.delete(change.before)


def _after(app: App, changes: Iterable[Change]) -> None:
    """Bring limits in line and wake whom it concerns; unchanged records too, as a try may have been cut short."""
    for change in changes:
        if change.after is not None:
            sync_limit(app, change.after)
            _open_lane(app, change)
        elif isinstance(change.before, WorkPool):
            remove_pool_parts(app, change.before)
        elif change.before is not None:
            sync_limit(app, change.before)
    changed = [change.after for change in changes if change.action in (Action.CREATE, Action.UPDATE)]
    ask_to_plan(app, (record for record in changed if isinstance(record, Deployment)))


def _open_lane(app: App, change: Change) -> None:
    """Have those admitted whom a resumed pool or queue, or another priority, lets in."""
    match change.before, change.after:
        case (WorkPool(is_paused=True), WorkPool(is_paused=False) as lane):
            serve_again(app, lane)
        case (WorkQueue(is_paused=True), WorkQueue(is_paused=False) as lane):
            serve_again(app, lane)
        case (WorkQueue(priority=before), WorkQueue(priority=after, work_pool=pool)) if before != after:
            ask_to_admit(app, pool)


# -- one thing at a time -------------------------------------------------------


def put_deployment(app: App, spec: DeploymentSpec, *, managed_by: str | None = None) -> Deployment:
    """Make one deployment what a spec says, and return it; for callers that have no file.

    Raises:
        InvalidConfigFile: It cannot be; every problem is listed.
        StoreUnavailable: As `apply`.
    """
    config = Config(path=f"deployment {spec.key}", deployments=(spec,))
    apply(app, plan_deploy(app, config, managed_by=managed_by))
    stored = app.store.get(Deployment, spec.key)
    if stored is None:
        raise StoreUnavailable(f"deployment {spec.key!r} was deleted as it was written; try again")
    return stored


def put_work_pool(app: App, spec: WorkPoolSpec, *, managed_by: str | None = None, prune: bool = False) -> WorkPool:
    """Make one work pool, with its queues, what a spec says, and return it; for callers that have no file.

    With `prune`, queues that an earlier write with `prune` made and the spec does not name any more are deleted.

    Raises:
        InvalidConfigFile: It cannot be; every problem is listed.
        InUse: A queue that would be deleted is in use.
        StoreUnavailable: As `apply`.
    """
    path = f"work pool {spec.name}"
    config = Config(path=path, work_pools=(spec,), owner=path if prune else None)
    apply(app, plan_deploy(app, config, prune=prune, managed_by=managed_by))
    stored = app.store.get(WorkPool, spec.name)
    if stored is None:
        raise StoreUnavailable(f"work pool {spec.name!r} was deleted as it was written; try again")
    return stored
