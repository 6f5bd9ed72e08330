"""The failures of Cloud Run jobs: what CreateJob refuses with, and what an execution shows that is over.

From the v2 API reference (Condition, TaskAttemptResult), the codes of google.rpc, and the page "Troubleshoot Cloud
Run issues"; `docs/design.md` says which of them are tried again. An execution that was cancelled without an error
is no row: its state is Cancelled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from push_pools.domain.failure_rows import Row
from push_pools.domain.states import FailureClass

_CLASS = FailureClass
_RAISE = "it is tried again; raise the quota (docs/google-cloud.md), or give the pool a concurrency limit"

END_ROWS: Final = (
    Row(
        "deleted",
        _CLASS.KILLED,
        "somebody deleted the execution at Cloud Run: {reason}",
        "the audit log tells who; cancel runs with `flow-run cancel` in place of that",
        codes={"DELETED"},
    ),
    Row(
        "out-of-memory",
        _CLASS.OOM,
        "the container ran out of memory: {reason}",
        "give the job more memory (`memory`), or make it need less",
        reason=r"memory limit of .* exceeded|\bout ?of ?memory",
    ),
    Row(
        "task-timeout",
        _CLASS.TIMEOUT,
        "Cloud Run ended the task at its own time-out: {reason}",
        "make the job shorter, or raise `timeout`",
        reason=r"configured timeout|timeout was reached|maximum (allowed )?(task )?(duration|timeout)",
    ),
    Row(
        "task-deadline",
        _CLASS.TIMEOUT,
        "Cloud Run ended the task at its own time-out: {reason}",
        "make the job shorter, or raise `timeout`",
        codes={"task:DEADLINE_EXCEEDED"},
    ),
)

IMAGE_ROWS: Final = (
    Row(
        "image-not-found",
        _CLASS.IMAGE,
        "the image was not found: {reason}",
        "correct `image`, or push it; a digest or tag that was removed has to be pushed again",
        codes={"CONTAINER_MISSING"},
    ),
    Row(
        "image-denied",
        _CLASS.IMAGE,
        "Cloud Run may not pull the image: {reason}",
        "let the Cloud Run Service Agent of the project read the repository (roles/artifactregistry.reader)",
        codes={"CONTAINER_PERMISSION_DENIED"},
    ),
    Row(
        "image-policy",
        _CLASS.IMAGE,
        "a policy of the project forbids the image: {reason}",
        "look at the project's Binary Authorization policy, or sign the image",
        codes={"CONTAINER_IMAGE_UNAUTHORIZED"},
    ),
    Row(
        "image-policy-unknown",
        _CLASS.IMAGE,
        "whether a policy allows the image could not be found out: {reason}",
        "it is tried again; look at the project's Binary Authorization policy if it happens often",
        codes={"CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED"},
        retry=True,
    ),
    Row(
        "image-argument",
        _CLASS.IMAGE,
        "Cloud Run does not take the image: {reason}",
        "correct `image`: a registry that Cloud Run can pull from, with a tag or digest that is there",
        codes={"INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"},
        reason=r"\bimage\b.*(not found|does not exist|must be|invalid|unsupported)",
    ),
)

START_ROWS: Final = (
    Row(
        "encryption-key",
        _CLASS.PERMISSION,
        "Cloud Run may not use the encryption key: {reason}",
        "let the Cloud Run Service Agent of the project encrypt and decrypt with it, or correct `encryption_key`",
        codes={"ENCRYPTION_KEY_PERMISSION_DENIED"},
    ),
    Row(
        "encryption-key-check",
        _CLASS.CONFIGURATION,
        "the encryption key could not be checked: {reason}",
        "correct `encryption_key`; it has to be enabled, and in the job's region",
        codes={"ENCRYPTION_KEY_CHECK_FAILED"},
    ),
    Row(
        "secrets",
        _CLASS.PERMISSION,
        "the job may not read one of its secrets, or it is not there: {reason}",
        "let the job's service account read it (roles/secretmanager.secretAccessor), or correct `env_from_secrets`",
        codes={"SECRETS_ACCESS_CHECK_FAILED"},
    ),
    Row(
        "vpc-network",
        _CLASS.CONFIGURATION,
        "the job's network was not found: {reason}",
        "correct `vpc_connector_name` or `network_interfaces`; it has to be in the job's region",
        codes={"VPC_NETWORK_NOT_FOUND"},
    ),
    Row(
        "progress-deadline",
        _CLASS.START_TIMEOUT,
        "Cloud Run did not get the job started in time: {reason}",
        "it is tried again; look at the image's size and at the region's capacity if it happens often",
        codes={"PROGRESS_DEADLINE_EXCEEDED"},
    ),
    Row(
        "internal",
        _CLASS.PLATFORM,
        "Cloud Run failed: {reason}",
        "it is tried again",
        codes={"INTERNAL", "task:INTERNAL", "JOB_STATUS_SERVICE_POLLING_ERROR"},
    ),
    Row(
        "waiting",
        _CLASS.PLATFORM,
        "Cloud Run gave up what it was about to try again: {reason}",
        "it is tried again",
        codes={"IMMEDIATE_RETRY", "POSTPONED_RETRY", "WAITING_FOR_OPERATION", "DELAYED_START_PENDING"},
    ),
    Row(
        "revision",
        _CLASS.PLATFORM,
        "Cloud Run could not make the job ready: {reason}",
        "it is tried again; look at the job in the Cloud Run console",
        codes={"REVISION_FAILED", "JobNotReady"},
    ),
)

REFUSED_ROWS: Final = (
    Row(
        "writes",
        _CLASS.QUOTA,
        "Google limits how often jobs are created and deleted: {reason}",
        "it is tried again; raise the quota of write requests, and PUSH_POOLS_CLOUD_RUN_WRITES_PER_MINUTE with it",
        codes={"WriteQuota"},
    ),
    Row(
        "jobs",
        _CLASS.QUOTA,
        "the region has as many jobs as it may have: {reason}",
        "it is tried again; delete jobs that are not needed (`keep_job` keeps them), or use another region",
        codes={"JobsQuota"},
    ),
    Row(
        "capacity",
        _CLASS.CAPACITY,
        "the region has no capacity for the job now: {reason}",
        "it is tried again; another region helps",
        codes={"CapacityUnavailable"},
    ),
    Row("quota", _CLASS.QUOTA, "a quota of the project is used up: {reason}", _RAISE, codes={"RESOURCE_EXHAUSTED"}),
    Row(
        "quota-small",
        _CLASS.QUOTA,
        "the job asks for more than a quota of the project gives: {reason}",
        "raise the quota, or ask for less (`cpu`, `memory`)",
        codes={"QuotaTooSmall"},
        retry=False,
    ),
    Row(
        "task-quota",
        _CLASS.QUOTA,
        "a quota of the project is used up: {reason}",
        _RAISE,
        codes={"task:RESOURCE_EXHAUSTED"},
    ),
    Row(
        "api-disabled",
        _CLASS.CONFIGURATION,
        "the Cloud Run API is not enabled in the project: {reason}",
        "enable it (`gcloud services enable run.googleapis.com`), or correct the `project` of the credentials",
        codes={"ApiDisabled"},
    ),
    Row(
        "billing",
        _CLASS.CONFIGURATION,
        "the project has no billing account: {reason}",
        "connect one to the project",
        codes={"BillingDisabled"},
    ),
    Row(
        "region",
        _CLASS.CONFIGURATION,
        "there is no such region, or the project may not use it: {reason}",
        "correct `region`; `gcloud run regions list` has them",
        codes={"RegionUnknown"},
    ),
    Row(
        "service-account",
        _CLASS.PERMISSION,
        "the service may not give the job its service account, or it does not exist: {reason}",
        "correct `service_account_name`, and allow iam.serviceAccounts.actAs on it (roles/iam.serviceAccountUser)",
        codes={"ServiceAccountDenied"},
    ),
    Row(
        "impersonation",
        _CLASS.PERMISSION,
        "the federated identity may not act as its service account: {reason}",
        "give it roles/iam.workloadIdentityUser on the service account (docs/google-cloud.md)",
        codes={"ImpersonationDenied"},
    ),
    Row(
        "credentials-refused",
        _CLASS.PERMISSION,
        "Google does not take the credentials: {reason}",
        "look at the provider's attribute condition and the AWS role, or write a key that is active into the block",
        codes={"CredentialsRefused"},
    ),
    Row(
        "credentials-malformed",
        _CLASS.CONFIGURATION,
        "the credentials cannot be read: {reason}",
        "give the pool a gcp-credentials block with the file as Google made it",
        codes={"CredentialsMalformed"},
    ),
    Row(
        "permission",
        _CLASS.PERMISSION,
        "Google does not allow it: {reason}",
        "give the identity of the credentials block the permissions of docs/google-cloud.md",
        codes={"PERMISSION_DENIED"},
    ),
    Row(
        "name-taken",
        _CLASS.CONFIGURATION,
        "somebody else has a job of that name: {reason}",
        "delete that job; names that begin with pp- are those of push_pools",
        codes={"NameTaken"},
    ),
    Row(
        "configuration",
        _CLASS.CONFIGURATION,
        "Cloud Run refused the job: {reason}",
        "correct the job variable or the pool's template that the reason is about",
        codes={
            "INVALID_ARGUMENT",
            "FAILED_PRECONDITION",
            "NOT_FOUND",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "NoProject",
            "NotPrepared",
        },
    ),
    Row(
        "conflict",
        _CLASS.PLATFORM,
        "Cloud Run was busy with the same job: {reason}",
        "what became of the call is looked up",
        codes={"ABORTED", "ALREADY_EXISTS"},
    ),
    Row(
        "server",
        _CLASS.PLATFORM,
        "Cloud Run failed: {reason}",
        "it is tried again; what became of the call is looked up",
        codes={"UNAVAILABLE", "DATA_LOSS"},
    ),
)

LAST_ROWS: Final = (
    Row(
        "no-result",
        _CLASS.PLATFORM,
        "the container ended without an exit code: {reason}",
        "it is tried again; look at the execution in the Cloud Run console",
        codes={"ExecutionFailed", "UNKNOWN", "NON_ZERO_EXIT_CODE", "task:*"},
        has_exit_code=False,
    ),
)

_NAME: Final = "cloud-run-v2:push"


def _of_cloud_run(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(replace(row, name=f"cloud-run/{row.name}", platform=_NAME) for row in rows)


CLOUD_RUN_ROWS: Final[tuple[Row, ...]] = _of_cloud_run((*END_ROWS, *IMAGE_ROWS, *START_ROWS, *REFUSED_ROWS))
CLOUD_RUN_LAST_ROWS: Final[tuple[Row, ...]] = _of_cloud_run(LAST_ROWS)
"""What is said when no exit code or signal says more; these come after the rows that all platforms share."""
