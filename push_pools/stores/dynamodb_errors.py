"""What DynamoDB's errors mean to a ledger. Codes decide; texts are only shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as boto

from push_pools.credentials.aws_errors import BAD_KEY, EXPIRED
from push_pools.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

CONDITION: Final = "ConditionalCheckFailed"
NONE: Final = "None"
CONFLICTS: Final = frozenset(
    {
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
        "ReplicatedWriteConflictException",
    }
)
"""Somebody else is writing one of the items at this moment. Nothing was done."""
THROTTLES: Final = frozenset(
    {
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "ThrottlingError",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "LimitExceededException",
        "TooManyRequestsException",
    }
)
"""Too much at once. Nothing was done."""
UNANSWERED: Final = frozenset({"InternalServerError", "InternalFailure", "ServiceUnavailable", "RequestTimeout"})
"""It may or may not have been done."""
_NOT_SENT: Final = (boto.ConnectTimeoutError, boto.EndpointConnectionError)
_LOST: Final = (boto.ReadTimeoutError, boto.ConnectionClosedError, boto.HTTPClientError, boto.ResponseStreamingError)
_NO_IDENTITY: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.ProfileNotFound,
    boto.SSOError,
    boto.TokenRetrievalError,
)


@dataclass(frozen=True)
class Reason:
    """Why one item of a write was refused: a code, and the item that is stored, if it was asked for."""

    code: str
    item: dict[str, Any] | None = None
    message: str = ""


class Refused(Exception):
    """A condition was not met; nothing was done. One reason for each item, in their order."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(", ".join(reason.code for reason in reasons))

    def failed(self, index: int) -> bool:
        """Whether it was the condition of this item that was not met."""
        return self.reasons[index].code == CONDITION


class TryAgain(Exception):
    """The request may be repeated as it is. `is_open` says that it may have been done already."""

    def __init__(self, code: str, *, is_open: bool) -> None:
        self.code, self.is_open = code, is_open
        super().__init__(code)


def explain(error: Exception, operation: str, table: str) -> Exception:
    """Return what a failed request means: `Refused`, `TryAgain`, or the error that ends it."""
    where = f"DynamoDB table {table!r}"
    match error:
        case boto.ClientError():
            return _of_code(error, operation, table)
        case _ if isinstance(error, _NOT_SENT):
            return TryAgain(type(error).__name__, is_open=False)
        case _ if isinstance(error, _LOST):
            return TryAgain(type(error).__name__, is_open=True)
        case boto.NoRegionError():
            return StoreUnavailable(f"{where}: no AWS region is set; set AWS_REGION")
        case _ if isinstance(error, _NO_IDENTITY):
            return StoreUnavailable(f"{where}: there are no AWS credentials: {error}")
        case boto.ParamValidationError():
            return StoreUnavailable(f"{where}: {operation} was not sent, for it is not a valid request: {error}")
        case boto.BotoCoreError():
            return StoreUnavailable(f"{where}: {operation} failed: {error}")
    return error


def _of_code(error: boto.ClientError, operation: str, table: str) -> Exception:
    answer: Any = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    text = str(answer.get("Error", {}).get("Message") or code)
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    if code == "ConditionalCheckFailedException":
        return Refused([Reason(CONDITION, answer.get("Item"))])
    if code == "TransactionCanceledException":
        return _cancelled(answer.get("CancellationReasons") or [], text, operation, table)
    if code in CONFLICTS | THROTTLES:
        return TryAgain(code, is_open=False)
    if code in UNANSWERED or status >= 500:
        return TryAgain(code or str(status), is_open=True)
    return StoreUnavailable(f"DynamoDB table {table!r}: {_sentence(code, text, operation)}")


def _cancelled(found: Sequence[dict[str, Any]], text: str, operation: str, table: str) -> Exception:
    reasons = [Reason(str(each.get("Code")), each.get("Item"), str(each.get("Message") or "")) for each in found]
    codes = {reason.code for reason in reasons} - {NONE}
    # A condition that failed beside a conflict may have met a write of our own that is not done yet: it is no answer.
    for code in sorted(codes & (CONFLICTS | THROTTLES)):
        return TryAgain(code, is_open=False)
    if codes == {CONDITION}:
        return Refused(reasons)
    said = "; ".join(f"item {n}: {r.code} {r.message}" for n, r in enumerate(reasons) if r.code != NONE)
    return StoreUnavailable(f"DynamoDB table {table!r}: {_sentence('ValidationException', said or text, operation)}")


def _sentence(code: str, text: str, operation: str) -> str:
    if code == "ResourceNotFoundException":
        return (
            "it does not exist in this account and region; make it (infra/table.json), or set PUSH_POOLS_AWS_TABLE "
            "and AWS_REGION to where it is"
        )
    if code == "AccessDeniedException":
        action = "".join(part.capitalize() for part in operation.split("_"))
        return f"{action} is denied; allow dynamodb:{action} on the table and its indexes to this identity ({text})"
    if code in EXPIRED:
        return f"the AWS credentials have expired; get new ones ({text})"
    if code in BAD_KEY or code == "InvalidSignatureException":
        return f"the AWS credentials are not accepted; check the keys and the clock of this machine ({text})"
    if code == "ValidationException":
        return f"{operation} is not accepted; compare the table's keys and indexes with infra/table.json ({text})"
    return f"{operation} failed with {code} ({text})"
