"""A local stand-in for DynamoDB, SQS, EventBridge and KMS: started on loopback, stopped by its process id.

It is exact when eight processes write at once, which not every stand-in is.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PROCESS: Final = Path(__file__).with_name("ministack_process.py")
REGION: Final = "eu-west-1"
START_SECONDS: Final = 60.0
STARTS: Final = 5
"""How often another port is tried: a free one may be taken by somebody else before it is used."""


class Ministack:
    """A context in which the server runs; `endpoint` takes requests of every service.

    Raises:
        AssertionError: Its environment is missing, or it did not start; the text says why.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None
        self.endpoint = ""

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to use this server and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, **config: Any) -> Any:
        """Return a new boto3 client; `config` are options of botocore's Config. The caller closes it."""
        options = {"retries": {"total_max_attempts": 1}, "max_pool_connections": 64, **config}
        make: Callable[..., Any] = boto3.session.Session().client
        return make(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(**options),
        )

    def __enter__(self) -> Ministack:
        python = environment_path() / "bin" / "python"
        assert python.exists(), f"{python} is missing: run `python scripts/make_env.py ministack`"
        self._files = tempfile.TemporaryDirectory(prefix="ministack-")
        try:
            for _ in range(STARTS):
                if self._start(python, Path(self._files.name), _free_port()):
                    return self
            raise AssertionError(f"ministack found no port in {STARTS} tries")
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self, python: Path, files: Path, port: int) -> bool:
        log = files / f"{port}.log"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
        environ |= {
            "BIND_HOST": "127.0.0.1",  # The default is every interface.
            "GATEWAY_PORT": str(port),
            "SERVICES": "dynamodb,sqs,events,kms,sts",
            "IOT_MTLS_ENABLED": "0",  # These two listen on ports of their own.
            "SFTP_ENABLED": "0",
            "MINISTACK_REGION": REGION,
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(files),
            "DOCKER_HOST": f"unix://{files}/no-docker.sock",
        }
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [str(python), "-I", str(PROCESS)],
                cwd=files,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.endpoint = f"http://127.0.0.1:{port}"
        if self._wait():
            return True
        self._end()
        text = log.read_text(errors="replace")
        assert "already in use" in text, f"ministack did not start:\n{text[-4000:]}"
        return False

    def _wait(self) -> bool:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=5) as answer:
                    return "services" in json.load(answer) and self._process.poll() is None
            except (urllib.error.URLError, OSError, ValueError):
                time.sleep(0.02)
        return False

    def _stop(self) -> None:
        self._end()
        if self._files is not None:
            self._files.cleanup()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def environment_path() -> Path:
    """Return where the stand-in and the AWS command line are installed."""
    return Path(os.environ.get("PUSH_POOLS_MINISTACK_VENV") or ROOT / ".venvs" / "ministack")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
