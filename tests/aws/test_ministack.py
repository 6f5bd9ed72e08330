"""The stand-in is the one that is pinned, on loopback only, and it ends with whoever started it."""

from __future__ import annotations

import socket

import pytest

from tests.aws.ministack import Ministack
from tests.waiting import until


def test_it_serves_what_the_tests_need(ministack: Ministack) -> None:
    """One request to each service."""
    for service, operation in (
        ("dynamodb", "list_tables"),
        ("sqs", "list_queues"),
        ("events", "list_event_buses"),
        ("kms", "list_keys"),
    ):
        client = ministack.client(service)
        assert getattr(client, operation)()["ResponseMetadata"]["HTTPStatusCode"] == 200
        client.close()


def test_it_listens_on_loopback_only_and_ends_with_its_input() -> None:
    """Nothing is left when the process of the tests is killed: its end of the pipe closes."""
    server = Ministack()
    with server:
        port = int(server.endpoint.rpartition(":")[2])
        addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in addresses - {"127.0.0.1"}:
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((str(address), port)) != 0
        process = server._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        until(lambda: process.poll() is not None)


def test_a_missing_environment_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that makes it."""
    monkeypatch.setenv("PUSH_POOLS_MINISTACK_VENV", "/nowhere")
    with pytest.raises(AssertionError, match=r"make_env\.py ministack"), Ministack():
        pass
