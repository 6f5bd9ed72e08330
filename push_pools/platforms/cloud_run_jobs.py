"""Jobs that were started: found, observed, stopped and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from push_pools.domain.errors import PlatformUnavailable
from push_pools.platforms.cloud_run_errors import asking_error, is_status, ours_from, prepare_error
from push_pools.platforms.cloud_run_observe import ending, is_over, missing, not_ready, running, succeeded
from push_pools.platforms.cloud_run_request import KEY_LABEL, TOKEN, TYPE, parent
from push_pools.platforms.one_by_one import look_at_each

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from push_pools.domain.runs import JobHandle
    from push_pools.domain.states import Observation
    from push_pools.platforms.cloud_run_clients import Clients, Connection
    from push_pools.ports import Clock

LIST_FROM: Final = 4
"""From so many jobs of one place on, the newest executions are listed in place of asking for each."""
PAGE: Final = 100
MAX_PAGES: Final = 5
"""Most pages of executions, others' among them, that are read; what is not on them is asked for by name."""
MAX_TASKS: Final = 100
"""Most tasks of one page."""


def job_name(handle: JobHandle) -> str:
    """Return the full name of a job."""
    return f"{parent(handle.place.get('project', '-'), handle.place.get('region', '-'))}/jobs/{handle.key}"


def execution_name(handle: JobHandle) -> str:
    """Return the full name of a job's only execution, which follows from its key and token."""
    return f"{job_name(handle)}/executions/{handle.key}-{TOKEN}"


def is_ours(job: Any, key: str) -> bool:
    """Whether a job of that name was made by us, under this key."""
    return bool(dict(job.labels).get(KEY_LABEL) == key)


class CloudRunJobs:
    """Asks Cloud Run about jobs by their handles."""

    def __init__(self, clients: Clients, clock: Clock) -> None:
        self._clients, self._clock = clients, clock

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle with the name of its execution if the job is there, whatever has become of it.

        A job that is there was created with its token: Cloud Run makes the execution, or says why it cannot.

        Raises:
            PlatformUnavailable: Cloud Run could not be asked.
        """
        with ours_from(asking_error):
            job = self._clients(handle.credential_block_id).found("jobs", "get_job", job_name(handle))
            if job is None or not is_ours(job, handle.key):
                return None
        return handle.model_copy(update={"pid": execution_name(handle)})

    # -- observe

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what Cloud Run says of these jobs, in their order; of one that it fails for, that it is unknown.

        Raises:
            PlatformUnavailable: Cloud Run could not be asked about any of them.
        """
        if not handles:
            return []
        with ours_from(asking_error):
            connection = self._clients(handles[0].credential_block_id)
            listed = self._listed(connection, handles) if len(handles) >= LIST_FROM else {}

        def look(handle: JobHandle) -> Observation:
            with ours_from(asking_error):
                return self._seen(connection, handle, listed.get(execution_name(handle)))

        return look_at_each(handles, look, self._clock)

    def _listed(self, connection: Connection, handles: Sequence[JobHandle]) -> dict[str, Any]:
        """Return the executions of a place by name, newest first, until all of these are among them."""
        place = job_name(handles[0]).rpartition("/")[0]
        wanted, found = {execution_name(handle) for handle in handles}, {}
        pages = connection.read("executions", "list_executions", {"parent": f"{place}/-", "page_size": PAGE}).pages
        for number, page in enumerate(pages, start=1):
            found.update({each.name: each for each in page.executions if each.name in wanted})
            if number >= MAX_PAGES or len(found) == len(wanted):
                break
        return found

    def _seen(self, connection: Connection, handle: JobHandle, execution: Any) -> Observation:
        now = self._clock.now()
        if execution is None:
            execution = connection.found("executions", "get_execution", execution_name(handle))
        if execution is None:
            job = connection.found("jobs", "get_job", job_name(handle))
            if job is None or not is_ours(job, handle.key):
                return missing(handle, now)
            return not_ready(job, handle, now)
        if not is_over(execution):
            return running(execution, handle, now)
        tasks = () if succeeded(execution) else self._tasks(connection, execution.name)
        return ending(execution, tasks, handle, now)

    def _tasks(self, connection: Connection, execution: str) -> Iterator[Any]:
        """Yield the tasks of an execution; more pages are only asked for while nobody has found what is looked for."""
        for page in connection.read("tasks", "list_tasks", {"parent": execution, "page_size": MAX_TASKS}).pages:
            yield from page.tasks

    # -- stop, and what is left

    def stop(self, handle: JobHandle) -> None:
        """Ask for the execution to be cancelled; one that is over or unknown is success.

        The job stays: with it the execution would go, and how it ended.

        Raises:
            PlatformUnavailable: Cloud Run could not be asked, or has not made the execution yet.
        """
        with ours_from(asking_error):
            connection = self._clients(handle.credential_block_id)
            try:
                connection.write("executions", "cancel_execution", {"name": execution_name(handle)})
            except Exception as error:
                if not is_status(error, "NOT_FOUND", "FAILED_PRECONDITION", "INVALID_ARGUMENT"):
                    raise
                if self._may_still_run(connection, handle):
                    raise PlatformUnavailable(
                        TYPE, f"the execution cannot be cancelled yet: {error}", codes=["NotCancelled"]
                    ) from None

    def _may_still_run(self, connection: Connection, handle: JobHandle) -> bool:
        execution = connection.found("executions", "get_execution", execution_name(handle))
        if execution is not None:
            return not is_over(execution)
        job = connection.found("jobs", "get_job", job_name(handle))
        return (
            job is not None and is_ours(job, handle.key) and not_ready(job, handle, self._clock.now()).is_over is False
        )

    def delete(self, handle: JobHandle) -> None:
        """Delete the job, and with it its execution; one that is gone, or is not ours, is success.

        Raises:
            PlatformUnavailable: Cloud Run could not be asked.
        """
        with ours_from(asking_error):
            connection = self._clients(handle.credential_block_id)
            # What was never known to be ours may be somebody else's; and what is not there costs no write.
            if handle.pid is None and not self._is_there(connection, handle):
                return
            try:
                connection.write("jobs", "delete_job", {"name": job_name(handle)})
            except Exception as error:
                if not is_status(error, "NOT_FOUND"):
                    raise

    def _is_there(self, connection: Connection, handle: JobHandle) -> bool:
        try:
            job = connection.found("jobs", "get_job", job_name(handle))
        except Exception as error:
            if "RegionUnknown" in prepare_error(error).codes:
                return False  # The attempt ended with that; nothing can be in a region that there is not.
            raise
        return job is not None and is_ours(job, handle.key)
