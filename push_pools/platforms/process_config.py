"""What the variables of a pool of local processes are, and what a job of one may be made of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field

from push_pools.domain.errors import InvalidJobVariables, JobRejected
from push_pools.domain.jobs import BaseJobConfiguration, BaseVariables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from push_pools.domain.jobs import DeploymentInfo, FlowInfo, FlowRunInfo, WorkPoolInfo

TYPE: Final = "process"
LONGEST_TEXT: Final = 131_071
"""The longest argument or variable that Linux passes to a program, in bytes."""
INHERITED: Final = frozenset({"PATH", "HOME", "LANG", "TZ", "USER", "TMPDIR", "SHELL"})
"""What a job gets of the server's environment, with everything that begins with LC_; all else may be a secret."""

NEEDS_COMMAND: Final = "a process job needs a command"

_WORKING_DIR = "Directory in which the command runs; by default the one in which the server was started."
_GRACE = "Seconds between the request to stop (SIGTERM) and the end (SIGKILL)."
_STREAM = "Accepted for templates written for Prefect. Output is always kept, and shown by `flow-run logs`."
_START_TIMEOUT = "Seconds that the job may take to begin to run."
_TIMEOUT = "Seconds that the job may run; 0 sets no limit."


class ProcessJobConfiguration(BaseJobConfiguration):
    """One local process."""

    working_dir: str | None = Field(default=None, description=_WORKING_DIR)
    grace_seconds: float = Field(default=30.0, ge=0, description=_GRACE)
    stream_output: bool = Field(default=True, description=_STREAM)
    task_start_timeout_seconds: float | None = Field(default=None, gt=0, description=_START_TIMEOUT)
    timeout: float | None = Field(default=None, ge=0, description=_TIMEOUT)

    def prepare_for_flow_run(
        self,
        flow_run: FlowRunInfo,
        deployment: DeploymentInfo | None = None,
        flow: FlowInfo | None = None,
        work_pool: WorkPoolInfo | None = None,
    ) -> None:
        """Fill in what depends on the run.

        Raises:
            InvalidTemplate: A `ctx` placeholder names nothing.
            InvalidJobVariables: There is no command, or it has an unclosed quote.
        """
        # The base class leaves names without a value out; here they also hide what the server would pass on.
        unset = [name for name, value in self.env.items() if value is None]
        super().prepare_for_flow_run(flow_run, deployment, flow, work_pool)
        self.env = {**dict.fromkeys(unset), **self.env}
        if not self.command_list():
            raise InvalidJobVariables([f"command: {NEEDS_COMMAND}; give the deployment, or the pool, one"])


class ProcessVariables(BaseVariables):
    """The variables of a pool of local processes."""

    working_dir: str | None = Field(default=None, description=_WORKING_DIR)
    grace_seconds: float = Field(default=30.0, ge=0, description=_GRACE)
    stream_output: bool = Field(default=True, description=_STREAM)
    task_start_timeout_seconds: float | None = Field(default=None, gt=0, description=_START_TIMEOUT)
    timeout: float | None = Field(default=None, ge=0, description=_TIMEOUT)


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name in INHERITED or name.startswith("LC_")}


def own(job: BaseJobConfiguration) -> ProcessJobConfiguration:
    assert isinstance(job, ProcessJobConfiguration)
    return job


def working_dir(job: ProcessJobConfiguration) -> str:
    given = job.working_dir or "."
    return given if given.startswith("/") else str(Path(given).expanduser().absolute())


def checked(job: ProcessJobConfiguration) -> list[str]:
    """Return the words of the command, once nothing in the job is known to be impossible."""
    try:
        argv = job.command_list()
    except InvalidJobVariables as error:
        raise JobRejected(TYPE, str(error), variable="command") from error
    if not argv:
        raise JobRejected(TYPE, f"{NEEDS_COMMAND}; give the deployment, or the pool, one", variable="command")
    for word in argv:
        _check_text(word, "command")
    for name, value in job.env.items():
        if not name or "=" in name:
            raise JobRejected(TYPE, f"{name!r} cannot be the name of an environment variable", variable="env")
        _check_text(f"{name}={value}", f"env.{name}")
    _check_text(job.working_dir or "", "working_dir")
    return argv


def _check_text(text: str, variable: str) -> None:
    if "\0" in text:
        raise JobRejected(TYPE, "it holds a null character, which no process can be given", variable=variable)
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError as error:
        raise JobRejected(TYPE, "it holds a character that cannot be written as bytes", variable=variable) from error
    if size > LONGEST_TEXT:
        reason = f"it has {size} bytes, and a process can be given {LONGEST_TEXT} at most; pass a file instead"
        raise JobRejected(TYPE, reason, variable=variable)
