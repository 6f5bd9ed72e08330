"""The unmodified Google clients of a Cloud Run double."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports.grpc import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs.transports.grpc import JobsGrpcTransport
from google.cloud.run_v2.services.tasks.transports.grpc import TasksGrpcTransport

if TYPE_CHECKING:
    from types import TracebackType

PLACE = "projects/acme/locations/europe-west1"


class Clients:
    """The clients over one channel."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self.jobs = run_v2.JobsClient(transport=JobsGrpcTransport(channel=self._channel))
        self.executions = run_v2.ExecutionsClient(transport=ExecutionsGrpcTransport(channel=self._channel))
        self.tasks = run_v2.TasksClient(transport=TasksGrpcTransport(channel=self._channel))

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def create(self, job_id: str = "job", token: str = "a", timeout: float = 20.0, **template: Any) -> Any:
        """Create a job whose execution starts at once; `template` is of its tasks."""
        return self.jobs.create_job(
            request={"parent": PLACE, "job_id": job_id, "job": spec(token, **template)}, retry=None, timeout=timeout
        )

    def execution(self, job_id: str = "job", token: str = "a") -> Any:
        """Return an execution as it is now."""
        name = f"{PLACE}/jobs/{job_id}/executions/{job_id}-{token}"
        return self.executions.get_execution(name=name, retry=None, timeout=20)


def spec(token: str = "a", *, image: str = "acme/report:7", args: list[str] | None = None, **template: Any) -> Any:
    """Return a job as it is sent."""
    container = {"image": image, "args": args or []}
    own = {"containers": [container], "max_retries": 0, **template}
    return {"template": {"template": own}, "start_execution_token": token, "labels": {"ours": "yes"}}
