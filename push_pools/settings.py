"""Settings: environment variables `PUSH_POOLS_*`, read once, all listed here and in `docs/settings.md`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from push_pools.credentials.endpoints import read_endpoint
from push_pools.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "PUSH_POOLS_"
IGNORED: Final = frozenset(
    {"PUSH_POOLS_DEBUG", "PUSH_POOLS_PREFECT_VENV", "PUSH_POOLS_MINISTACK_VENV", "PUSH_POOLS_DOUBLE"}
)
"""Names with our prefix that are not settings of the service: the command line's and the tests' own."""
JOB_NAMES: Final = frozenset(
    f"PUSH_POOLS_{name}" for name in ("RUN_ID", "ATTEMPT", "PARAMETERS", "DEPLOYMENT", "SCHEDULED_TIME")
)
"""What a job sees; the service ignores them, so that a job may call `push-pools`."""


@dataclass(frozen=True)
class Settings:
    """Everything that the environment may say."""

    home: Path = field(default_factory=lambda: Path("~/.push-pools").expanduser())
    """`PUSH_POOLS_HOME`: the directory of the ledger, the key file and the output of local jobs."""
    template_environ: tuple[str, ...] = ()
    """`PUSH_POOLS_TEMPLATE_ENVIRON`: names, separated by commas, that templates may read as `{{ $NAME }}`."""
    workers: int = 32
    """`PUSH_POOLS_WORKERS`: how many messages the embedded server handles at once."""
    sweep_seconds: float = 5.0
    """`PUSH_POOLS_SWEEP_SECONDS`: how often the embedded server looks at active jobs."""
    tick_seconds: float = 60.0
    """`PUSH_POOLS_TICK_SECONDS`: how often the embedded server plans schedules and sends what is overdue."""
    ecs_run_task_per_second: float = 20.0
    """`PUSH_POOLS_ECS_RUN_TASK_PER_SECOND`: how many tasks are started a second in one account and region of AWS."""
    ecs_register_per_second: float = 1.0
    """`PUSH_POOLS_ECS_REGISTER_PER_SECOND`: how many task definitions are registered a second, likewise."""
    cloud_run_writes_per_minute: float = 60.0
    """`PUSH_POOLS_CLOUD_RUN_WRITES_PER_MINUTE`: Cloud Run's quota of writes in a region; a run takes two of them."""
    cloud_run_endpoint: str | None = None
    """`PUSH_POOLS_CLOUD_RUN_ENDPOINT`: where Cloud Run is, if not at Google's own address."""
    aci_creates_per_hour: float = 300.0
    """`PUSH_POOLS_ACI_CREATES_PER_HOUR`: what Azure allows an hour in one subscription and region; less is used."""
    azure_endpoint: str | None = None
    """`PUSH_POOLS_AZURE_ENDPOINT`: where Azure Resource Manager is, if not at its public address."""
    aws_table: str | None = None
    """`PUSH_POOLS_AWS_TABLE`: the DynamoDB table of an installation on AWS; with it, that is what is worked on."""
    aws_queue_prefix: str = "push-pools-"
    """`PUSH_POOLS_AWS_QUEUE_PREFIX`: what the names of the installation's SQS queues begin with."""
    aws_bus: str | None = None
    """`PUSH_POOLS_AWS_BUS`: the EventBridge bus on which state changes are published."""
    aws_kms_key: str | None = None
    """`PUSH_POOLS_AWS_KMS_KEY`: the KMS key that encrypts the secrets of blocks."""
    webhook_secret: str | None = None
    """`PUSH_POOLS_WEBHOOK_SECRET`: the name of the `secret` block that holds what senders share with the webhook."""
    webhook_issuer: str | None = None
    """`PUSH_POOLS_WEBHOOK_ISSUER`: the OIDC issuer whose tokens the webhook takes."""
    webhook_audience: str | None = None
    """`PUSH_POOLS_WEBHOOK_AUDIENCE`: whom such a token has to be for."""
    webhook_subjects: tuple[str, ...] = ()
    """`PUSH_POOLS_WEBHOOK_SUBJECTS`: whose tokens are taken, separated by commas."""

    def for_platforms(self) -> dict[str, str]:
        """Return what platforms are told of the settings, wherever they are hosted."""
        return {
            "ecs_run_task_per_second": f"{self.ecs_run_task_per_second:g}",
            "ecs_register_per_second": f"{self.ecs_register_per_second:g}",
            "cloud_run_writes_per_minute": f"{self.cloud_run_writes_per_minute:g}",
            "cloud_run_endpoint": self.cloud_run_endpoint or "",
            "aci_creates_per_hour": f"{self.aci_creates_per_hour:g}",
            **({"azure_endpoint": self.azure_endpoint} if self.azure_endpoint else {}),
        }

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Return the settings of an environment.

        Raises:
            InvalidInput: A value is wrong, or a name with our prefix is unknown.
        """
        known = {PREFIX + f.name.upper(): f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name in sorted(environ):
            if not name.startswith(PREFIX) or name in IGNORED | JOB_NAMES:
                continue
            if name not in known:
                raise InvalidInput(f"{name} is not a setting; known are {', '.join(sorted(known))}")
            if (value := _parse(name, environ[name])) is not None:
                values[known[name].name] = value
        return cls(**values)


def _parse(name: str, text: str) -> object:
    try:
        match name.removeprefix(PREFIX):
            case "HOME":
                return Path(text).expanduser().absolute()
            case "TEMPLATE_ENVIRON" | "WEBHOOK_SUBJECTS":
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case "WORKERS":
                return _at_least(1, int(text))
            case other if other.endswith("_ENDPOINT"):
                return read_endpoint(text).url if text.strip() else None
            case other if other.startswith(("AWS_", "WEBHOOK_")):
                return text.strip() or None
            case _:
                return _at_least(0.01, float(text))
    except ValueError as error:
        raise InvalidInput(f"{name}={text!r} is not understood: {error}") from error


def _at_least(least: float, value: Any) -> Any:
    if value < least:
        raise ValueError(f"it has to be at least {least}")
    return value
