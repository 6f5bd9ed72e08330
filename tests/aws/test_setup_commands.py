"""The commands with which docs/aws.md makes an installation, run with the real AWS command line.

The ledger, the queues, the bus and the key are made at a stand-in. It has no Lambda and no EventBridge Scheduler: what
the command line sends to these is only written down, after it has checked it against its model of the service.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.bootstrap import open_aws
from push_pools.services.catalogue import create_work_pool
from push_pools.settings import Settings
from tests.aws.ministack import REGION, Ministack, environment_path

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS: dict[str, Any] = json.loads((ROOT / "infra" / "functions.json").read_text())
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "aws.md").read_text(), re.DOTALL)
PARTS, FUNCTION = BLOCKS[0].partition("# The bundle")[0], BLOCKS[1]
AWS = """#!/bin/sh
# Old commands, such as those of SQS, take an endpoint by this option only.
case "$1" in
  lambda|scheduler) exec {aws} --endpoint-url {listener} "$@" ;;
  *) exec {aws} --endpoint-url "$AWS_ENDPOINT_URL" "$@" ;;
esac
"""


@pytest.fixture(scope="module")
def fresh() -> Iterator[Ministack]:
    """A stand-in of its own: the names in the page are the same each time."""
    with Ministack() as ministack:
        yield ministack


class Listener(ThreadingHTTPServer):
    """Writes down the requests that it gets and answers each with nothing in particular."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.got: list[dict[str, Any]] = []
        self.endpoint = f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Listener)
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: pytest shows what failed."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(script: str, ministack: Ministack, path: Path, listener: str = "http://127.0.0.1:1") -> str:
    """Run a script in bash and return what it prints; it ends at the first command that fails."""
    aws = path / "bin" / "aws"
    aws.parent.mkdir(exist_ok=True)
    aws.write_text(AWS.format(aws=environment_path() / "bin" / "aws", listener=listener))
    aws.chmod(0o755)
    (path / "config").write_text(f"[default]\nregion = {REGION}\n")
    environ = {
        **os.environ,
        **ministack.environ,
        "AWS_CONFIG_FILE": str(path / "config"),
        "PATH": os.pathsep.join([str(aws.parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_make_an_installation_that_works(
    fresh: Ministack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = run(f'{PARTS}\necho "$KEY"', fresh, tmp_path).splitlines()[-1]

    sqs = fresh.client("sqs")
    for name in ("submit-ecs", "poll-ecs"):
        url = sqs.get_queue_url(QueueName=f"push-pools-{name}")["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        wanted = FUNCTIONS["queues"][name]
        assert int(found["VisibilityTimeout"]) == wanted["visibility_timeout_seconds"]
        assert int(found["MessageRetentionPeriod"]) == wanted["retention_seconds"]
        redrive = json.loads(found["RedrivePolicy"])
        assert redrive["maxReceiveCount"] == wanted["max_receives"]
        assert redrive["deadLetterTargetArn"].endswith(":push-pools-dead-letters")
    sqs.close()

    environ = {
        **fresh.environ,
        "PUSH_POOLS_AWS_TABLE": "push-pools",
        "PUSH_POOLS_AWS_QUEUE_PREFIX": "push-pools-",
        "PUSH_POOLS_AWS_BUS": "push-pools",
        "PUSH_POOLS_AWS_KMS_KEY": key,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app = open_aws(Settings.from_environ(environ))
    create_work_pool(app, "jobs", "ecs:push")
    sealed = app.vault.encrypt(b"secret", {"for": "a test"})
    assert app.vault.decrypt(sealed, {"for": "a test"}) == b"secret"


def test_the_commands_of_a_function_ask_for_what_the_list_says(
    fresh: Ministack, listener: Listener, tmp_path: Path
) -> None:
    """What reaches Lambda and EventBridge Scheduler has the values of infra/functions.json."""
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        bundle.writestr("push_pools/__init__.py", "")
    names = "P=push-pools; REGION=eu-west-1; ACCOUNT=123456789012; KEY=k; ROLE=arn:aws:iam::123456789012:role/submit\n"
    names += "SCHEDULER_ROLE=arn:aws:iam::123456789012:role/scheduler\n"

    run(names + FUNCTION, fresh, tmp_path, listener.endpoint)

    function, mapping, schedule = listener.got
    wanted = FUNCTIONS["functions"]["submit_ecs"]
    assert (function["Handler"], function["MemorySize"]) == (wanted["handler"], wanted["memory_mb"])
    assert (function["Timeout"], function["Runtime"]) == (wanted["timeout_seconds"], FUNCTIONS["runtime"])
    assert function["Architectures"] == [FUNCTIONS["architecture"]]
    settings = Settings.from_environ(function["Environment"]["Variables"])
    assert (settings.aws_table, settings.aws_queue_prefix, settings.aws_bus) == (
        "push-pools",
        "push-pools-",
        "push-pools",
    )
    assert (mapping["FunctionName"], mapping["BatchSize"]) == (
        function["FunctionName"],
        wanted["trigger"]["batch_size"],
    )
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == wanted["trigger"]["maximum_concurrency"]
    assert schedule["ScheduleExpression"] == FUNCTIONS["functions"]["schedule"]["trigger"]["expression"]


def test_a_command_with_an_option_that_there_is_not_is_noticed(fresh: Ministack, tmp_path: Path) -> None:
    """So that the test above is seen to test."""
    with pytest.raises(AssertionError, match="--memory-sizes"):
        run("aws lambda create-function --function-name x --memory-sizes 512", fresh, tmp_path)
