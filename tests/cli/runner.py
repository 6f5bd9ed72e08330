"""Runs the real command in this process, with its streams captured."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from push_pools.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What was printed as JSON."""
        return json.loads(self.out)


def run_cli(*words: object, home: Path, stdin: str = "", **environ: str) -> Ran:
    """Run `push-pools` with these words on a home."""
    out, err = io.StringIO(), io.StringIO()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PUSH_POOLS_", "AWS_"))}
    with (
        mock.patch.dict(os.environ, {**clean, "PUSH_POOLS_HOME": str(home), **environ}, clear=True),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main([str(word) for word in words])
    return Ran(code, out.getvalue(), err.getvalue())


class Cli:
    """The command on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *words: object, stdin: str = "", **environ: str) -> Ran:
        """Run a command, however it ends."""
        return run_cli(*words, home=self.home, stdin=stdin, **environ)

    def ok(self, *words: object, stdin: str = "", **environ: str) -> Ran:
        """Run a command that has to succeed."""
        ran = self(*words, stdin=stdin, **environ)
        assert ran.code == 0, ran
        return ran

    def read(self, *words: object) -> Any:
        """Run a command that reads, and return its JSON."""
        return self.ok(*words, "-o", "json").data

    def refused(self, *words: object, code: int = 1, stdin: str = "", **environ: str) -> str:
        """Run a command that has to be refused in one line on stderr, with nothing on stdout; return the line."""
        ran = self(*words, stdin=stdin, **environ)
        assert ran.code == code, ran
        assert ran.out == "", ran
        lines = ran.err.splitlines()
        assert len(lines) == 1, ran
        assert lines[0].startswith("Error: "), ran
        return lines[0].removeprefix("Error: ")
