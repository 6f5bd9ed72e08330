"""The local platform keeps the promises of a platform: with pidfds and without, with a waiting wrapper and without."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from push_pools.clocks import SystemClock
from push_pools.platforms.process import ProcessPlatform
from push_pools.platforms.process_config import ProcessJobConfiguration
from push_pools.ports import PlatformContext
from push_pools.testing.contracts.platforms import PlatformContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from push_pools.domain.jobs import BaseJobConfiguration
    from push_pools.domain.runs import JobHandle
    from push_pools.ports import Platform

# What a job really got, written beside its output, whose directory it knows by its own standard output.
_NOTES = 'd=$(readlink /proc/$$/fd/1); d=${d%/*}; echo x >>"$d/ran"; cat /proc/$$/cmdline >"$d/argv"; '
_NOTES += 'cat /proc/$$/environ >"$d/env"; readlink /proc/$$/cwd >"$d/cwd"; '
VARIANTS: dict[str, dict[str, Any]] = {
    "usual": {},
    "polling": {"use_pidfd": False},
    "cold": {"waiting": 0},
}
BY_SHELL = {"_", "SHLVL"}
"""What some shells add to the environment of every program."""


class TestProcessPlatform(PlatformContract):
    @pytest.fixture(params=VARIANTS)
    def platform(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Platform]:
        self.home, self.variant = tmp_path / "home", VARIANTS[request.param]
        self.opened: list[ProcessPlatform] = []
        yield self.another()
        for platform in self.opened:
            platform.close()

    def another(self) -> ProcessPlatform:
        clock = SystemClock()
        context = PlatformContext(lambda _: None, {"home": str(self.home)}, clock, clock)
        self.opened.append(ProcessPlatform(context, **self.variant))
        return self.opened[-1]

    def restarted(self, platform: Platform) -> Platform:
        return self.another()

    def job(self, *, exit_code: int = 0, output: tuple[str, ...] = (), runs_on: bool = False) -> BaseJobConfiguration:
        lines = " ".join(f"'{line}'" for line in output)
        script = _NOTES + (f"printf '%s\\n' {lines}; " if output else "")
        script += "exec sleep 60" if runs_on else f"exit {exit_code}"
        env = {"PLAIN": "it's\n$HOME", "not.plain": "1", "PWD": "/x", "LANG": None}
        return ProcessJobConfiguration(command=["/bin/sh", "-c", script], env=env)

    def starts(self, platform: Platform, key: str) -> int:
        ran = self.home / "jobs" / key / "ran"
        return len(ran.read_text().splitlines()) if ran.exists() else 0

    @contextmanager
    def broken(self, platform: Platform) -> Iterator[None]:
        jobs, aside = self.home / "jobs", self.home / "aside"
        jobs.rename(aside) if jobs.exists() else aside.mkdir(parents=True)
        jobs.write_text("no directory")
        yield
        jobs.unlink()
        aside.rename(jobs)

    def request_sent(self, platform: Platform, handle: JobHandle) -> dict[str, Any]:
        place = self.home / "jobs" / handle.key
        words = (place / "argv").read_bytes().split(b"\0")[:-1]
        env = dict(os.fsdecode(pair).split("=", 1) for pair in (place / "env").read_bytes().split(b"\0")[:-1])
        return {
            "argv": [os.fsdecode(word) for word in words],
            "env": {name: value for name, value in env.items() if name not in BY_SHELL},
            "cwd": (place / "cwd").read_text().strip(),
        }
