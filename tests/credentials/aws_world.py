"""STS on a loopback socket, as far as roles are assumed."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from push_pools.testing.doubles_http import LoopbackServer, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class StsDouble:
    """Answers AssumeRole, as many requests as come."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.lasts = timedelta(hours=1)
        self.error: tuple[int, str] | None = None
        self.server = LoopbackServer(self._answer)

    def _answer(self, request: Request) -> Reply:
        asked = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        self.asked.append(asked)
        if self.error is not None:
            status, code = self.error
            body = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error>"
            return Reply(status, f"<ErrorResponse>{body}</ErrorResponse>".encode(), "text/xml")
        end = (datetime.now(UTC) + self.lasts).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>ASIA{len(self.asked)}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t</SessionToken><Expiration>{end}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )
        return Reply(200, body.encode(), "text/xml")


@contextlib.contextmanager
def sts_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[StsDouble]:
    """Let clients of this process ask a double of STS meanwhile."""
    double = StsDouble()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", double.server.endpoint)
    with contextlib.closing(double.server):
        yield double
