"""Calls of SQS, EventBridge and KMS: what their refusals mean, in a sentence that names the fix."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from push_pools.domain.errors import PushPoolsError


@contextlib.contextmanager
def failing_as(error: Callable[[str], PushPoolsError], what: str) -> Iterator[None]:
    """Raise our error, with a sentence of why, for any failure of a call to AWS inside."""
    try:
        yield
    except ClientError as refused:
        raise error(f"{what}: {refused_text(refused)}") from refused
    except BotoCoreError as unreachable:
        raise error(f"{what}: {unreachable}") from unreachable


def code_of(error: ClientError) -> str:
    """Return the code of a refusal, by the name that the service's own documentation uses."""
    answer = error.response.get("Error", {})
    return str(answer.get("QueryErrorCode") or answer.get("Code", ""))


def refused_text(error: ClientError) -> str:
    """Return code and message of a refusal; a denial says whose rights to look at."""
    text = f"{code_of(error)}: {error.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if code_of(error) in {"AccessDenied", "AccessDeniedException", "KMSAccessDeniedException"}:
        text += f"; allow {error.operation_name} to the role, or profile, that asked"
    return text
