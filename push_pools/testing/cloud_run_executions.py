"""One execution of a Cloud Run job: what is planned for it, what has happened to it, and how the API shows it.

An execution is a list of tries of its task, each with its moments, drawn up when it is created. Its state is read
off that list at the asker's time; nothing runs in the background. What happens to it from outside replaces what
was to come. Texts are like those of the service where they are known; code should not depend on their wording.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from google.cloud import run_v2
from google.cloud.run_v2.types import task as task_types

if TYPE_CHECKING:
    from datetime import datetime

Outcome = Literal[
    "exit", "oom", "killed", "timeout", "internal", "no_result", "deleted", "image", "image_denied", "stuck"
]
NEVER_STARTS: Final = frozenset({"image", "image_denied"})
"""Outcomes of jobs that get no execution: the job itself never becomes ready."""
PLAN_VARIABLE: Final = "PUSH_POOLS_DOUBLE"
"""Environment variable by which a container asks for its own plan, as JSON."""
DEFAULT_TIMEOUT_SECONDS: Final = 600.0
DEFAULT_MAX_RETRIES: Final = 3
"""Both as Cloud Run's own ("TaskTemplate", API reference)."""

Condition: Any = run_v2.Condition  # The library types its enumerations and times as what they are not.
_OK, _UNKNOWN, _DEADLINE, _ABORTED, _INTERNAL = 0, 2, 4, 10, 13
"""Codes of google.rpc.Code."""


@dataclass(frozen=True)
class LifecycleTimes:
    """How long an execution stays in each state on its way; 0 makes a step immediate."""

    pending_seconds: float = 0.0
    """From its creation until its task runs."""
    stopping_seconds: float = 0.0
    """From CancelExecution until the task has ended."""


@dataclass(frozen=True)
class Ending:
    """How a try of a task ends: the evidence that the API shows afterwards."""

    exit_code: int | None = 0
    signal: int = 0
    status: int = _OK
    message: str = ""
    reason: str = ""
    """Name of the execution's `execution_reason` or `reason`, whichever knows it."""
    is_cancelled: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the task succeeded."""
        return self.status == _OK and self.exit_code == 0 and not self.is_cancelled


CANCELLED: Final = Ending(None, 0, 1, "The task was cancelled.", "CANCELLED", is_cancelled=True)
ENDINGS: Final[dict[str, Ending]] = {
    "exit": Ending(),
    "oom": Ending(None, 9, _ABORTED, "Memory limit of 512 MiB exceeded with 530 MiB used. Consider increasing it."),
    "killed": Ending(None, 9, _ABORTED, "Container terminated on signal 9."),
    "timeout": Ending(None, 9, _DEADLINE, "The configured timeout was reached."),
    "internal": Ending(None, 0, _INTERNAL, "Internal system error, please try again.", "INTERNAL"),
    "no_result": Ending(None, 0, _UNKNOWN, ""),
    "deleted": Ending(None, 0, 1, "The execution was deleted.", "DELETED"),
    "cancelled": CANCELLED,
}


@dataclass(frozen=True)
class JobPlan:
    """What a job will do."""

    outcome: Outcome = "exit"
    exit_code: int = 0
    seconds: float | None = None
    """How long the container runs; for a job that never starts, how long Cloud Run takes to say so."""
    output: tuple[str, ...] = ()
    times: LifecycleTimes | None = None
    good_tasks: int = 0
    """How many tasks succeed, the first ones, although the others end otherwise."""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"unknown outcome {self.outcome!r}; one of {', '.join(get_args(Outcome))}")

    @property
    def ending(self) -> Ending:
        """The evidence this plan ends with."""
        if self.outcome == "exit" and self.exit_code:
            return exited(self.exit_code)
        return ENDINGS.get(self.outcome, ENDINGS["exit"])


def exited(code: int) -> Ending:
    """Return the ending of a container that ends by itself with this code."""
    return Ending(code, 0, _UNKNOWN, "The container exited with an error.", "NON_ZERO_EXIT_CODE") if code else Ending()


def plan_of(template: run_v2.TaskTemplate) -> JobPlan:
    """Return the plan a container asks for by `PUSH_POOLS_DOUBLE`, else by a simple command.

    `true`, `false`, `echo WORDS`, `sleep N` and `exit N`, also after `sh -c`, do what they say; anything else exits 0.
    """
    container = template.containers[0]
    for variable in container.env:
        if variable.name == PLAN_VARIABLE:
            return plan_from_json(variable.value or "{}")
    return _plan_from_command([*container.command, *container.args])


def plan_from_json(text: str) -> JobPlan:
    """Read a plan written as a JSON object with the fields of `JobPlan`."""
    asked = json.loads(text)
    known = {each.name for each in fields(JobPlan)}
    if not isinstance(asked, dict) or not asked.keys() <= known:
        raise ValueError(f"{PLAN_VARIABLE} is a JSON object with any of {', '.join(sorted(known))}")
    if isinstance(asked.get("times"), dict):
        asked["times"] = LifecycleTimes(**asked["times"])
    return JobPlan(**{**asked, "output": tuple(asked.get("output", ()))})


def _plan_from_command(command: list[str]) -> JobPlan:
    words = " ".join(command[2:] if command[:2] in (["sh", "-c"], ["/bin/sh", "-c"]) else command)
    exit_code, seconds, output = 0, 0.0, []
    for step in re.split(r"\s*(?:;|&&)\s*", words.strip()):
        if match := re.fullmatch(r"exit (\d{1,3})", step):
            exit_code = int(match[1])
            break
        if match := re.fullmatch(r"sleep (\d+(?:\.\d+)?)", step):
            seconds += float(match[1])
        if match := re.fullmatch(r"echo '?(.*?)'?", step):
            output.append(match[1])
        exit_code = 1 if step in ("false", "/bin/false") else 0
    return JobPlan(exit_code=exit_code, seconds=seconds or None, output=tuple(output))


class Try(NamedTuple):
    """One run of the user's container."""

    starts_at: datetime
    ends_at: datetime
    ending: Ending


class Line(NamedTuple):
    """One line of output, as Cloud Logging keeps it."""

    at: datetime
    text: str
    insert_id: str


@dataclass
class Execution:
    """An execution that was really created. Its tasks, if there are more than one, all do the same at the same time."""

    name: str
    job: str
    created_at: datetime
    plan: JobPlan
    template: run_v2.TaskTemplate
    labels: dict[str, str]
    times: LifecycleTimes
    default_seconds: float
    task_count: int = 1
    cancel_asked_at: datetime | None = None
    tries: list[Try] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.plan.outcome == "stuck":
            return
        retries = self.template.max_retries if "max_retries" in self.template else DEFAULT_MAX_RETRIES
        limit = _seconds(self.template.timeout) or DEFAULT_TIMEOUT_SECONDS
        asked = self.plan.seconds if self.plan.seconds is not None else self.default_seconds
        ending = ENDINGS["timeout"] if asked > limit or self.plan.outcome == "timeout" else self.plan.ending
        seconds = min(asked, limit)
        at = self.created_at + timedelta(seconds=self.times.pending_seconds)
        for _ in range(1 + (0 if ending.is_good else retries)):
            self.tries.append(Try(at, at + timedelta(seconds=seconds), ending))
            at += timedelta(seconds=seconds)

    # -- what it is at a moment

    def begun(self, now: datetime) -> list[Try]:
        """Return the tries of the container that have begun: how often the user's code was run."""
        return [each for each in self.tries if each.starts_at <= now]

    def over_at(self, now: datetime) -> datetime | None:
        """Return when it completed; `None` while it has not."""
        if self.tries and self.tries[-1].ends_at <= now:
            return self.tries[-1].ends_at
        return None

    @property
    def ending(self) -> Ending:
        """How it ends, as far as is planned now."""
        return self.tries[-1].ending if self.tries else ENDINGS["exit"]

    def lines(self, now: datetime) -> list[Line]:
        """Return the output so far: each try writes all of it when it begins, a millisecond a line."""
        return [
            Line(at, text, f"{self.name.rpartition('/')[2]}-{number}-{index}")
            for number, one in enumerate(self.begun(now))
            for index, text in enumerate(self.plan.output)
            if (at := one.starts_at + timedelta(milliseconds=index)) <= now or one.ends_at <= now
        ]

    # -- what happens to it

    def cancel(self, now: datetime) -> bool:
        """Do what CancelExecution does; False when it has completed. A task that ends in time keeps its outcome."""
        if self.over_at(now) is not None:
            return False
        if self.cancel_asked_at is None:
            self.cancel_asked_at = now
            begun = self.begun(now)
            over = now + timedelta(seconds=self.times.stopping_seconds if begun else 0.0)
            if not (begun and begun[-1].ends_at <= over):
                self._end(now, over, CANCELLED)
        return True

    def end(self, now: datetime, ending: Ending) -> bool:
        """End the task now with this evidence, for good; False when it has completed."""
        if self.over_at(now) is not None:
            return False
        self._end(now, now, ending)
        return True

    def _end(self, now: datetime, at: datetime, ending: Ending) -> None:
        begun = self.begun(now)
        last = begun[-1].starts_at if begun else at
        self.tries = [*begun[:-1], Try(last, at, ending)]

    # -- how the API shows it

    def message(self, now: datetime) -> run_v2.Execution:
        """Return the resource at a moment."""
        over, begun = self.over_at(now), self.begun(now)
        was_run = [each for each in begun if not (each.ending.is_cancelled and each.starts_at == each.ends_at)]
        fields: dict[str, Any] = {
            "name": self.name,
            "job": self.job.rpartition("/")[2],
            "create_time": self.created_at,
            "labels": self.labels,
            "task_count": self.task_count,
            "parallelism": self.task_count,
            "template": self.template,
            "conditions": [self._completed(over)],
            "retried_count": max(len(was_run) - 1, 0) * self.task_count,
            "log_uri": f"https://console.cloud.google.com/logs/viewer?execution={self.name}",
            "reconciling": over is None,
        }
        if was_run:
            fields["start_time"] = was_run[0].starts_at
        if over is None:
            return run_v2.Execution(**fields, running_count=self.task_count if begun else 0)
        ending = self.ending
        if ending.is_good:
            return run_v2.Execution(**fields, completion_time=over, succeeded_count=self.task_count)
        count, good = "cancelled_count" if ending.is_cancelled else "failed_count", self.plan.good_tasks
        ends = {"succeeded_count": good, count: self.task_count - good}
        return run_v2.Execution(**fields, completion_time=over, **ends)

    def _completed(self, over: datetime | None) -> Any:
        fields: dict[str, Any] = {"type_": "Completed", "state": Condition.State.CONDITION_RECONCILING}
        if over is None:
            if self.cancel_asked_at is not None:
                fields["execution_reason"] = Condition.ExecutionReason.CANCELLING
            return Condition(**fields)
        ending = self.ending
        good = ending.is_good
        fields["state"] = Condition.State.CONDITION_SUCCEEDED if good else Condition.State.CONDITION_FAILED
        fields |= {"last_transition_time": over, "message": self._sentence(ending)}
        if ending.reason in Condition.ExecutionReason.__members__:
            fields["execution_reason"] = Condition.ExecutionReason[ending.reason]
        elif ending.reason:
            fields["reason"] = Condition.CommonReason[ending.reason]
        return Condition(**fields)

    def _sentence(self, ending: Ending) -> str:
        if ending.is_good or not ending.message or ending.is_cancelled or ending.reason == "DELETED":
            return "" if ending.is_good else ending.message
        code = f"exit code: {ending.exit_code} and " if ending.exit_code else ""
        return f"Task {self.name.rpartition('/')[2]}-task0 failed with {code}message: {ending.message}"

    def tasks(self, now: datetime) -> list[run_v2.Task]:
        """Return its tasks at a moment."""
        over, begun, good = self.over_at(now), self.begun(now), self.plan.good_tasks
        shown = []
        for index in range(self.task_count):
            fields: dict[str, Any] = {
                "name": f"{self.name}/tasks/{self.name.rpartition('/')[2]}-task{index}",
                "job": self.job.rpartition("/")[2],
                "execution": self.name.rpartition("/")[2],
                "create_time": self.created_at,
                "index": index,
                "retried": max(len(begun) - 1, 0),
            }
            if begun:
                fields["start_time"] = begun[0].starts_at
            done = [each for each in begun if each.ends_at <= now]
            if done:
                fields["last_attempt_result"] = _result(ENDINGS["exit"] if index < good else done[-1].ending)
            if over is not None:
                fields["completion_time"] = over
            shown.append(run_v2.Task(**fields))
        return shown


def _seconds(duration: Any) -> float:
    return float(duration.total_seconds()) if duration else 0.0


def _result(ending: Ending) -> task_types.TaskAttemptResult:
    status: Any = {"code": ending.status, "message": ending.message}
    return task_types.TaskAttemptResult(status=status, exit_code=ending.exit_code or 0, term_signal=ending.signal)
