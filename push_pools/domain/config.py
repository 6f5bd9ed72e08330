"""The config file's models: what `push-pools.yaml` may say, and where in the file each part of it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from push_pools.domain.durations import Duration
from push_pools.domain.errors import InvalidConfig
from push_pools.domain.pools import DEFAULT_QUEUE, full_pool_type
from push_pools.domain.problems import Path, Problem, problems_of
from push_pools.domain.records import UserInput
from push_pools.domain.runs import RetryPolicy
from push_pools.domain.schedules import ScheduleSpec
from push_pools.domain.states import FailureClass
from push_pools.domain.values import MOST_LIMIT, MOST_PRIORITY, JsonObject, Name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


# -- the values of keys --------------------------------------------------------


def check_command(value: object) -> object:
    """Return a command that is text, or a list of words.

    Raises:
        ValueError: It is neither, or empty.
    """
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
        return list(value)
    if value is None:
        return None
    raise ValueError(
        'it is text, or a list of words that are all text, such as "python -m report" or ["sleep", "60"]; '
        "leave it out for the image's own command"
    )


def _check_template(value: object) -> object:
    if value is None or isinstance(value, str | Mapping):
        return value
    raise ValueError("it is the name of a JSON or YAML file, or the template itself; write one of these")


def _check_names(value: object) -> object:
    if isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value):
        return tuple(dict.fromkeys(value))
    raise ValueError('it is a list of names, such as ["image"]')


def _check_tags(value: object) -> object:
    if isinstance(value, list | tuple) and all(isinstance(tag, str) and 0 < len(tag) <= 128 for tag in value):
        return tuple(dict.fromkeys(value))
    raise ValueError('it is a list of texts of at most 128 characters, such as ["finance"]')


Command = Annotated[str | list[str] | None, BeforeValidator(check_command)]
"""A command: text that is split as a shell would, or a list of words."""
Limit = Annotated[int, Field(strict=True, ge=0, le=MOST_LIMIT)]
"""A number of slots; 0 holds every run."""
Priority = Annotated[int, Field(strict=True, ge=1, le=MOST_PRIORITY)]
Flag = Annotated[bool, Field(strict=True)]
Tags = Annotated[tuple[str, ...], BeforeValidator(_check_tags)]
Names = Annotated[tuple[str, ...], BeforeValidator(_check_names)]
BaseJobTemplate = Annotated[str | dict[str, Any] | None, BeforeValidator(_check_template)]


# -- the models ----------------------------------------------------------------


class Spec(UserInput):
    """What a user writes: a key whose value is null counts as left out."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: object) -> object:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value


class WorkQueueSpec(Spec):
    """A lane of a work pool, as a user writes it."""

    name: Name
    description: str = ""
    priority: Priority | None = None
    """Order within the pool, 1 first; by default the queue's place in the list."""
    concurrency_limit: Limit | None = None
    """Most runs active at once; left out, there is no limit."""
    is_paused: Flag | None = None
    """Whether its runs are held; left out, it stays as it is."""


class WorkPoolSpec(Spec):
    """A work pool as a user writes it."""

    name: Name
    type: str = Field(min_length=1)
    """Pool type, such as `ecs:push` or `process`; `push-pools work-pool types` lists them."""
    description: str = ""
    concurrency_limit: Limit | None = None
    """Most runs active at once; left out, there is no limit."""
    is_paused: Flag | None = None
    """Whether its runs are held; left out, it stays as it is."""
    work_queues: tuple[WorkQueueSpec, ...] = ()
    """Queues beside `default`, or with it."""
    variables: JsonObject = Field(default_factory=dict)
    """New defaults for variables of the template; those not named have the template's."""
    base_job_template: BaseJobTemplate = None
    """The template, or a file that holds it; by default the pool type's own."""

    @field_validator("type")
    @classmethod
    def _full_type(cls, value: str) -> str:
        return full_pool_type(value)

    def priorities(self) -> dict[str, int]:
        """Return the priority of each queue: as given, else its place in the list; `default` comes last if left out."""
        found = {queue.name: queue.priority or place for place, queue in enumerate(self.work_queues, start=1)}
        return found if DEFAULT_QUEUE in found else {**found, DEFAULT_QUEUE: max(found.values(), default=0) + 1}


class DeploymentPoolSpec(Spec):
    """Where a deployment's runs go."""

    name: Name
    work_queue_name: Name = DEFAULT_QUEUE
    job_variables: JsonObject = Field(default_factory=dict)
    """Job variables over the pool's defaults."""
    open_job_variables: Names = ()
    """Job variables that are left to others, such as CI; what they set stays, and `job_variables` only begins it."""


class RetriesSpec(Spec):
    """How often an attempt is made, and after which failures."""

    attempts: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    """All tries, the first included."""
    on: tuple[FailureClass, ...] | None = None
    """Failure classes that are tried again; by default those of infrastructure."""
    backoff: Annotated[Duration, Field(gt=0)] = 10.0
    """The first wait; it doubles up to ten minutes."""

    def policy(self) -> RetryPolicy:
        """Return what is stored."""
        return RetryPolicy(attempts=self.attempts, on=self.on, backoff_seconds=self.backoff)


def _old_name_too(value: object) -> object:
    """Take `backoff_seconds` for `backoff`: the name under which it is stored and shown."""
    if isinstance(value, Mapping) and "backoff_seconds" in value and "backoff" not in value:
        return {("backoff" if key == "backoff_seconds" else key): item for key, item in value.items()}
    return value


class DeploymentSpec(Spec):
    """A deployment as a user writes it."""

    name: Name
    flow_name: Name | None = None
    """By default the deployment's name; it is addressed as `flow/name`."""
    description: str = ""
    command: Command = None
    """Replaces the image's own command; text is split as a shell would, though no shell is run."""
    parameters: JsonObject = Field(default_factory=dict)
    """What the job finds in `PUSH_POOLS_PARAMETERS`, and templates under `ctx.parameters`."""
    work_pool: DeploymentPoolSpec
    schedules: tuple[ScheduleSpec, ...] = ()
    retries: Annotated[RetriesSpec, BeforeValidator(_old_name_too)] = Field(default_factory=RetriesSpec)
    concurrency_limit: Limit | None = None
    """Most runs active at once; left out, there is no limit."""
    start_timeout_seconds: Annotated[Duration, Field(gt=0)] | None = None
    """How long a job may take to begin to run; by default the pool's and the platform's."""
    timeout_seconds: Duration | None = None
    """How long a job may run; 0 sets no limit; by default a day, unless the pool says otherwise."""
    max_wait_seconds: Annotated[Duration, Field(gt=0)] | None = None
    """How long a run may wait for a slot before it is skipped."""
    tags: Tags = ()
    is_paused: Flag | None = None
    """Whether new runs are refused; left out, it stays as it is."""

    @property
    def key(self) -> str:
        """`flow/name`."""
        return f"{self.flow_name or self.name}/{self.name}"


class ConfigFile(Spec):
    """What a config file may hold."""

    project: Name | None = None
    """Names what the file owns, for `--prune`; by default the file's path does."""
    work_pools: tuple[WorkPoolSpec, ...] = ()
    deployments: tuple[DeploymentSpec, ...] = ()


# -- places --------------------------------------------------------------------


class Place(NamedTuple):
    """Where something stands in a file, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Places:
    """Where the keys and values of a file stand, by their paths."""

    values: Mapping[Path, Place] = field(default_factory=dict)
    keys: Mapping[Path, Place] = field(default_factory=dict)

    def find(self, path: Path, *, at_key: bool = False) -> Place | None:
        """Return where the value at a path stands, or its key, or else the nearest thing around it."""
        if at_key and path in self.keys:
            return self.keys[path]
        return next((self.values[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.values), None)


class InvalidConfigFile(InvalidConfig):
    """A file with problems, one on each line of the message; its own place is that of the first."""

    def __init__(self, problems: Sequence[InvalidConfig]) -> None:
        first = problems[0]
        super().__init__(first.path, first.problem, line=first.line, column=first.column)
        self.problems = tuple(problems)
        """Every problem, in the order of the file."""
        self.args = ("\n".join(map(str, self.problems)),)


@dataclass(frozen=True)
class Config:
    """A config file that was read: what it asks for, and where it says so."""

    path: str
    work_pools: tuple[WorkPoolSpec, ...] = ()
    deployments: tuple[DeploymentSpec, ...] = ()
    owner: str | None = None
    """What `--prune` knows the file by: its `project`, else its path. None if it owns nothing."""
    notes: tuple[str, ...] = ()
    """What the file says and nobody heeds, for the user to know."""
    places: Places = field(default_factory=Places, repr=False, compare=False)

    def invalid(self, problems: Iterable[Problem]) -> InvalidConfigFile:
        """Return the error for problems found in what the file asks for."""
        return invalid_file(self.path, problems, self.places)


def invalid_file(path: str, problems: Iterable[Problem], places: Places) -> InvalidConfigFile:
    """Return the error for problems in a file, sorted by their places."""
    found = [_located(path, problem, places) for problem in problems]
    return InvalidConfigFile(sorted(found, key=lambda each: (each.line or 0, each.column or 0)))


def _located(path: str, problem: Problem, places: Places) -> InvalidConfig:
    place = places.find(problem.path, at_key=problem.at_key)
    return InvalidConfig(path, str(problem), line=place.line if place else None, column=place.column if place else None)


# -- reading -------------------------------------------------------------------


def read_config(tree: object, places: Places, path: str) -> Config:
    """Return what a parsed file asks for; templates that are files are still named, not read.

    Raises:
        InvalidConfigFile: With every problem and its place.
    """
    notes: list[str] = []
    problems: list[Problem] = []
    if tree is None:
        raise invalid_file(path, [Problem((), "the file is empty; write work_pools: and deployments:")], places)
    if _is_prefect(tree, path):
        from push_pools.domain.prefect_file import from_prefect

        tree, problems, notes = from_prefect(tree, lambda at: places.find(at, at_key=True))
    problems += _duplicates(tree, places)
    try:
        file = ConfigFile.model_validate(tree)
    except ValidationError as error:
        problems += problems_of(ConfigFile, error)
    if problems:
        raise invalid_file(path, problems, places)
    return Config(
        path=path,
        work_pools=file.work_pools,
        deployments=file.deployments,
        owner=file.project or path,
        notes=tuple(f"{path}:{note}" for note in notes),
        places=places,
    )


_PREFECT_KEYS: Final = frozenset({"prefect-version", "build", "push", "pull"})


def _is_prefect(tree: object, path: str) -> bool:
    return isinstance(tree, Mapping) and (
        PurePath(path).name in ("prefect.yaml", "prefect.yml") or not _PREFECT_KEYS.isdisjoint(tree)
    )


def _duplicates(tree: object, places: Places) -> list[Problem]:
    pools = list(_items(tree, "work_pools"))
    found = _repeated("work pool", [(("work_pools", n, "name"), _name(pool)) for n, pool in pools], places)
    for number, pool in pools:
        queues = _items(pool, "work_queues")
        named = [(("work_pools", number, "work_queues", n, "name"), _name(queue)) for n, queue in queues]
        found += _repeated("work queue", named, places)
    for number, deployment in _items(tree, "deployments"):
        slugs = [
            (("deployments", number, "schedules", n, "slug"), _name(schedule, "slug"))
            for n, schedule in _items(deployment, "schedules")
        ]
        found += _repeated("slug", slugs, places)
    keys = [(("deployments", n, "name"), _full_name(item)) for n, item in _items(tree, "deployments")]
    return found + _repeated("deployment", keys, places)


def _repeated(kind: str, named: Iterable[tuple[Path, str | None]], places: Places) -> list[Problem]:
    first: dict[str, Path] = {}
    found = []
    for path, name in named:
        if name is None:
            continue
        if name in first:
            place = places.find(first[name])
            where = f" at line {place.line}" if place else ""
            found.append(Problem(path, f"the {kind} {name!r} is there already{where}; rename or remove one"))
        first.setdefault(name, path)
    return found


def _items(tree: object, key: str) -> Iterator[tuple[int, object]]:
    items = tree.get(key) if isinstance(tree, Mapping) else None
    return iter(enumerate(items)) if isinstance(items, list | tuple) else iter(())


def _name(item: object, key: str = "name") -> str | None:
    name = item.get(key) if isinstance(item, Mapping) else None
    return name if isinstance(name, str) else None


def _full_name(item: object) -> str | None:
    name = _name(item)
    return f"{_name(item, 'flow_name') or name}/{name}" if name else None
