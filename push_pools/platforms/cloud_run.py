"""Cloud Run jobs (API v2): each attempt of a run is one job with one execution.

Exactly once rests on names: a job is called by the job key, and its only execution `<job key>-a`, which CreateJob
makes by `start_execution_token`. A second CreateJob is refused as ALREADY_EXISTS. RunJob, which starts an execution
each time it is called, is never used.
"""

from __future__ import annotations

import builtins  # noqa: TC003 - `type` is also a class variable
import importlib.util
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from push_pools.domain.errors import JobRejected, PlatformUnavailable, SubmissionUncertain
from push_pools.domain.runs import JobHandle
from push_pools.platforms import cloud_run_logs
from push_pools.platforms.cloud_run_clients import Clients
from push_pools.platforms.cloud_run_config import CloudRunJobConfiguration, CloudRunVariables
from push_pools.platforms.cloud_run_errors import is_status, ours_from, prepare_error, submit_error
from push_pools.platforms.cloud_run_jobs import CloudRunJobs, execution_name, is_ours, job_name
from push_pools.platforms.cloud_run_pace import pace_of_creates
from push_pools.platforms.cloud_run_request import TYPE, complete_body, create_job_request, parsed
from push_pools.ports import LogPage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables
    from push_pools.domain.pace import Pace
    from push_pools.domain.states import Observation
    from push_pools.platforms.cloud_run_clients import Connection
    from push_pools.ports import Memo, PlatformContext

CREATE_SECONDS: Final = 14.0
BEFORE_CALL_SECONDS: Final = 5.0
"""CreateJob is sent only this long after `submit` began: with it, and a look at the job, within `call_seconds`."""

for _module in ("google", "google.cloud", "google.cloud.run_v2"):
    # Not imported yet, which takes a third of a second; but whoever asks whether the platform is there has to know.
    if importlib.util.find_spec(_module) is None:
        raise ModuleNotFoundError("the library of Cloud Run is not installed", name="google.cloud.run_v2")


def preload() -> None:
    """Import Google's libraries now: a function does so while its process starts, and not in its first invocation."""
    from google.cloud import run_v2  # noqa: F401 - to load it is all that is wanted.


class CloudRunPlatform:
    """Runs each attempt of a flow run as one Cloud Run job, named by its key."""

    type: ClassVar[str] = TYPE
    description: ClassVar[str] = "Run each flow run as a job on Google Cloud Run. No worker is needed."
    documentation_url: ClassVar[str] = "https://cloud.google.com/run/docs/create-jobs"
    logo_url: ClassVar[str] = ""
    job_configuration: ClassVar[builtins.type[BaseJobConfiguration]] = CloudRunJobConfiguration
    job_configuration_variables: ClassVar[builtins.type[BaseVariables] | None] = CloudRunVariables
    observe_batch: ClassVar[int] = 100
    start_timeout_seconds: ClassVar[float] = 300.0
    key_is_used_up: ClassVar[bool] = False
    forgets_keys: ClassVar[bool] = False
    closes_before_repeat: ClassVar[bool] = False
    needs_cleanup: ClassVar[bool] = True

    def __init__(self, context: PlatformContext) -> None:
        self._settings, self._clock = context.settings, context.clock
        self._clients = Clients(context.credentials, context.settings)
        self._jobs = CloudRunJobs(self._clients, context.clock)

    # -- before the call

    def handle(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Return the handle, without a pid, of the job that `submit` would start."""
        config = _ours(job)
        run = _run_of(config)
        return JobHandle(
            key=key,
            platform=TYPE,
            place={"project": str(config.project), "region": config.region},
            details={"keep_job": "true"} if config.keep_job else {},
            credential_block_id=config.credential_block_id,
            run_id=run[0] if run else None,
            attempt=run[1] if run else 1,
        )

    def prepare(self, job: BaseJobConfiguration, memo: Memo) -> CloudRunJobConfiguration:
        """Return the job with its final body and its project. Nothing is asked, and nothing has to exist before.

        Raises:
            InvalidJobVariables: Cloud Run would refuse the job.
            JobRejected: No project is named.
        """
        config = _ours(job)
        if config.is_complete:
            return config
        project = self._clients.credentials(config.credential_block_id).project_id()
        if not project:
            reason = "no project is named; give the credentials block a `project`"
            raise JobRejected(TYPE, reason, codes=["NoProject"], variable="credentials")
        return self._completed(config, project)

    def _completed(self, config: CloudRunJobConfiguration, project: str) -> CloudRunJobConfiguration:
        body = complete_body(config)
        # What went into the body is not kept twice.
        spent: dict[str, Any] = {"env": {}, "command": None, "env_from_secrets": {}}
        done = config.model_copy(update={**spent, "job_body": body, "project": project, "is_complete": True})
        parsed(create_job_request(done, "pp-check"))
        return done

    def preview(self, job: BaseJobConfiguration) -> dict[str, JsonValue]:
        """Return the request of `submit`; what only the machine's own identity knows is described in angle brackets.

        Raises:
            InvalidJobVariables: Cloud Run would refuse the job.
        """
        config = _ours(job)
        notes: list[JsonValue] = list(config.notes)
        if not config.is_complete:
            project = self._clients.credentials(config.credential_block_id).project_id()
            config = self._completed(config, project or "<the project of the machine's own identity>")
        shown: dict[str, JsonValue] = {"create_job": create_job_request(config, "<job key>")}
        return {**shown, "notes": notes} if notes else shown

    def paces(self, job: BaseJobConfiguration) -> Sequence[Pace]:
        """Return the rate of CreateJob in the job's project and region, at which its deletion is also paid for."""
        config = _ours(job)
        where = config.project or config.credential_block_id or "service"
        return [pace_of_creates(self._settings, f"{where}/{config.region}")]

    # -- the call

    def submit(self, job: BaseJobConfiguration, key: str) -> JobHandle:
        """Create the job with its execution, or find that the key has done so already, and return its handle.

        Raises:
            JobRejected: As `ports.Platform.submit`, and so the others.
        """
        config, began = _ours(job), time.monotonic()
        request = parsed(config.create_job_request(key))
        handle = self.handle(config, key)
        with ours_from(prepare_error):  # Until the call itself, nothing can have been done.
            connection = self._clients(config.credential_block_id)
            connection.metadata()
            if time.monotonic() - began > BEFORE_CALL_SECONDS:
                raise PlatformUnavailable(TYPE, "Google took too long to give a token", codes=["TooSlow"])
        with ours_from(submit_error):
            try:
                connection.write("jobs", "create_job", request, seconds=CREATE_SECONDS)
            except Exception as error:
                if not is_status(error, "ALREADY_EXISTS"):
                    raise
                self._check_ours(connection, handle)
        return handle.model_copy(update={"pid": execution_name(handle)})

    def _check_ours(self, connection: Connection, handle: JobHandle) -> None:
        """Look at the job that has the key as its name already.

        Raises:
            JobRejected: Somebody else has made it.
            SubmissionUncertain: It is not shown, or cannot be asked for, so nobody can say.
        """
        reason = "Cloud Run says that the job exists, and does not show it"
        try:
            job = connection.found("jobs", "get_job", job_name(handle))
        except Exception as error:  # Whatever keeps us from looking, the job may be ours.
            raise SubmissionUncertain(TYPE, f"{reason}: {error}", codes=["ALREADY_EXISTS"]) from None
        if job is None:
            raise SubmissionUncertain(TYPE, reason, codes=["ALREADY_EXISTS", "NOT_FOUND"])
        if not is_ours(job, handle.key):
            raise JobRejected(TYPE, f"there is a job {handle.key} that is not ours", codes=["NameTaken"])

    # -- after the call

    def find(self, handle: JobHandle) -> JobHandle | None:
        """Return the handle of the job of this key, with its pid; `None` if there is none."""
        return self._jobs.find(handle)

    def observe(self, handles: Sequence[JobHandle]) -> Sequence[Observation]:
        """Return what Cloud Run says of these jobs, in their order."""
        return self._jobs.observe(handles)

    def stop(self, handle: JobHandle, grace_seconds: float) -> None:
        """Cancel the execution. How long its task has is Cloud Run's to say: 10 seconds from SIGTERM on."""
        self._jobs.stop(handle)

    def cleanup(self, handle: JobHandle) -> None:
        """Delete the job, unless its user keeps it."""
        if handle.details.get("keep_job") != "true":
            self._jobs.delete(handle)

    def logs(self, handle: JobHandle, cursor: str | None) -> LogPage:
        """Return the next lines of the job's output from Cloud Logging."""
        (seen,) = self._jobs.observe([handle])
        if handle.pid is None and seen.status.rank == 0:
            return LogPage((), cursor, is_last=True)
        return cloud_run_logs.read(self._clients, handle, cursor, seen, self._clock.now())


def _run_of(config: CloudRunJobConfiguration) -> tuple[UUID, int] | None:
    labels: Any = config.job_body.get("labels") or {}
    try:
        return UUID(str(labels.get("push-pools-run-id"))), int(str(labels.get("push-pools-attempt")))
    except ValueError:
        return None


def _ours(job: BaseJobConfiguration) -> CloudRunJobConfiguration:
    if not isinstance(job, CloudRunJobConfiguration):
        raise JobRejected(TYPE, f"{type(job).__name__} is not a job of Cloud Run", codes=["NotPrepared"])
    return job
