"""Tasks that were started: found, observed, stopped, and their output read."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from push_pools.domain.errors import PlatformUnavailable
from push_pools.domain.failure_rows import MISSING
from push_pools.domain.states import JobStatus, Observation
from push_pools.platforms.ecs_errors import TYPE, asking_error, error_text, ours_from
from push_pools.platforms.ecs_observe import event_handle, gone, moment, observation, stop_reason
from push_pools.platforms.ecs_request import started_by, started_by_key
from push_pools.ports import LogPage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mypy_boto3_ecs import ECSClient

    from push_pools.domain.runs import JobHandle
    from push_pools.ports import Clock

BATCH: Final = 100
"""Most tasks of one DescribeTasks (API reference)."""
MAX_PAGES: Final = 50
"""Most pages of ListTasks that are read; with more, nothing can be concluded."""
LOG_LINES: Final = 1000
LOGS_SETTLE: Final = timedelta(seconds=15)
"""How long after a task's end its last output may still arrive in CloudWatch."""


class OpenClient(Protocol):
    """Opens the client of a service with a credentials block, in a region."""

    def __call__(self, block_id: str | None, region: str | None, service: Any, *, retries: bool) -> Any: ...


class EcsJobs:
    """Asks ECS and CloudWatch about tasks by their handles."""

    def __init__(self, client: OpenClient, clock: Clock) -> None:
        self._client, self._clock = client, clock

    def _ecs(self, handle: JobHandle) -> ECSClient:
        ecs: ECSClient = self._client(handle.credential_block_id, handle.place.get("region"), "ecs", retries=True)
        return ecs

    # -- find

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle with the pid of the attempt's task, running or stopped; the earliest if there are more.

        Raises:
            PlatformUnavailable: ECS could not be asked, or there are too many tasks to tell.
        """
        cluster, mark = _cluster(handle), _mark(handle)
        with ours_from(asking_error):
            ecs = self._ecs(handle)
            # Without desiredStatus ECS lists tasks that are to run. STOPPED is asked second: a task that stops
            # between the two questions is in the second answer.
            arns = list(_list(ecs, cluster=cluster, startedBy=mark))
            arns += self._stopped(ecs, cluster, mark)
            if not arns:
                return None
            arn = arns[0] if len(arns) == 1 else self._earliest(ecs, cluster, arns)
        return handle.model_copy(update={"pid": f"{cluster}::{arn}"})

    def _stopped(self, ecs: ECSClient, cluster: str, mark: str) -> list[str]:
        try:
            return list(_list(ecs, cluster=cluster, startedBy=mark, desiredStatus="STOPPED"))
        except ecs.exceptions.InvalidParameterException as error:
            if "filter" not in error_text(error):
                raise
        # "startedBy must be the only filter" (API reference, ListTasks): then all stopped tasks are looked through.
        arns = list(_list(ecs, cluster=cluster, desiredStatus="STOPPED"))
        return [str(task["taskArn"]) for task in self.described(ecs, cluster, arns) if task.get("startedBy") == mark]

    def _earliest(self, ecs: ECSClient, cluster: str, arns: Sequence[str]) -> str:
        tasks = self.described(ecs, cluster, list(dict.fromkeys(arns)))
        ordered = sorted(tasks, key=lambda task: (str(moment(task.get("createdAt")) or ""), str(task["taskArn"])))
        return str(ordered[0]["taskArn"]) if ordered else arns[0]

    def described(self, ecs: ECSClient, cluster: str, arns: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the tasks that ECS knows of these, in no order."""
        found: list[Mapping[str, Any]] = []
        for start in range(0, len(arns), BATCH):
            found += ecs.describe_tasks(cluster=cluster, tasks=list(arns[start : start + BATCH]))["tasks"]
        return found

    # -- observe

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what ECS says of these tasks, in their order, with one call per hundred.

        Raises:
            PlatformUnavailable: ECS could not be asked.
        """
        now = self._clock.now()
        tasks: dict[str, Mapping[str, Any]] = {}
        missing: dict[str, str] = {}
        groups: dict[tuple[str | None, str | None, str], list[JobHandle]] = defaultdict(list)
        for handle in handles:
            if handle.pid:
                groups[handle.credential_block_id, handle.place.get("region"), _cluster(handle)].append(handle)
        with ours_from(asking_error):
            for (_, _, cluster), group in groups.items():
                ecs = self._ecs(group[0])
                arns = list(dict.fromkeys(map(_arn, group)))
                for start in range(0, len(arns), BATCH):
                    answer = ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + BATCH])
                    tasks |= {str(task.get("taskArn")): dict(task) for task in answer["tasks"]}
                    missing |= {str(each.get("arn")): str(each.get("reason")) for each in answer["failures"]}
        return [_observed(handle, tasks, missing, now) for handle in handles]

    def read_event(self, detail: Mapping[str, Any], handle: JobHandle) -> tuple[JobHandle, Observation] | None:
        """Return the task's handle and what an event says of it; `None` for a task in another place.

        Raises:
            PlatformUnavailable: ECS could not be asked.
        """
        found = event_handle(detail, handle)
        if found is None:
            return None
        try:
            seen = observation(detail, found, self._clock.now()).model_copy(update={"told": True})
        except (TypeError, ValueError, AttributeError):
            return None  # Not what ECS sends; the sweep looks by itself.
        if seen.is_over and seen.exit_code is None:
            (seen,) = self.observe([found])
            if not seen.is_over or seen.status is JobStatus.GONE:
                return None  # ECS does not show the end yet; the sweep will see it with its exit code.
        return found, seen

    # -- stop

    def stop(self, handle: JobHandle) -> None:
        """Ask for the task to be stopped; one that is over or unknown is success.

        Raises:
            PlatformUnavailable: ECS could not be asked.
        """
        known = handle if handle.pid else self.find(handle)
        if known is None:
            return
        with ours_from(asking_error):
            ecs = self._ecs(known)
            try:
                ecs.stop_task(cluster=_cluster(known), task=_arn(known), reason=stop_reason(known))
            except ecs.exceptions.InvalidParameterException as error:
                # So ECS speaks of tasks an hour after their end ("The referenced task was not found").
                if "not found" not in error_text(error):
                    raise

    # -- logs

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of the main container's output, oldest first.

        Raises:
            PlatformUnavailable: CloudWatch could not be asked.
        """
        where = handle.details
        if not handle.pid or "log_group" not in where:
            return LogPage(lines=(), cursor=cursor, is_last=True)
        stream = f"{where['log_prefix']}/{where.get('container', '')}/{_arn(handle).rpartition('/')[2]}"
        asked: dict[str, Any] = {"nextToken": cursor} if cursor else {}
        with ours_from(asking_error):
            region = where.get("log_region") or handle.place.get("region")
            client = self._client(handle.credential_block_id, region, "logs", retries=True)
            try:
                answer = client.get_log_events(
                    logGroupName=where["log_group"],
                    logStreamName=stream,
                    startFromHead=True,
                    limit=LOG_LINES,
                    **asked,
                )
            except client.exceptions.ResourceNotFoundException:
                # The driver makes the stream at the container's start.
                return LogPage(lines=(), cursor=cursor, is_last=self._is_over(handle))
        lines = tuple(str(event.get("message", "")) for event in answer["events"])
        after = str(answer.get("nextForwardToken") or "") or cursor
        # A page may be empty before the end; the end is where the token stays the same (GetLogEvents, API reference).
        return LogPage(lines=lines, cursor=after, is_last=not lines and after == cursor and self._is_over(handle))

    def _is_over(self, handle: JobHandle) -> bool:
        seen = self.observe([handle])[0]
        return seen.is_over and (seen.ended_at is None or self._clock.now() - seen.ended_at > LOGS_SETTLE)


def _observed(
    handle: JobHandle, tasks: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str], now: Any
) -> Observation:
    arn = _arn(handle) if handle.pid else ""
    if arn in tasks:
        return observation(tasks[arn], handle, now)
    if missing.get(arn) == MISSING:
        return gone(handle, now, MISSING)
    reason = missing.get(arn, "" if handle.pid else "no task is recorded")
    return Observation(key=handle.key, status=JobStatus.UNKNOWN, observed_at=now, reason=reason)


def _list(ecs: ECSClient, **where: Any) -> Iterator[str]:
    token: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        page = ecs.list_tasks(**where, **token)  # type: ignore[arg-type] # Filters of any type.
        yield from page["taskArns"]
        if not page.get("nextToken"):
            return
        token = {"nextToken": page["nextToken"]}
    raise PlatformUnavailable(TYPE, f"more than {MAX_PAGES} pages of tasks: it cannot be told whether one is ours")


def _mark(handle: JobHandle) -> str:
    return started_by(handle.run_id, handle.attempt) if handle.run_id else started_by_key(handle.key)


def _cluster(handle: JobHandle) -> str:
    cluster, separator, _ = (handle.pid or "").partition("::")
    return cluster if separator and cluster else handle.place.get("cluster", "default")


def _arn(handle: JobHandle) -> str:
    """Return the task's ARN from the pid, `<cluster>::<ARN>` as in Prefect."""
    pid = handle.pid or ""
    return pid.partition("::")[2] or pid
