"""The platform that `docs/platforms.md` shows is complete, short, and keeps the promises of a platform."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from push_pools.testing.contracts.platforms import PlatformContract

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Path(__file__).resolve().parents[2] / "docs" / "platforms.md"
MOST_LINES = 150
BLOCKS: Mapping[str, str] = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
ACME = """
class AcmeError(Exception):
    def __init__(self, code):
        self.code = code
        super().__init__(code)

class Client: ...
"""


def module(name: str, text: str) -> ModuleType:
    """Return a module with this text, importable by the next."""
    made = ModuleType(name)
    sys.modules[name] = made
    exec(compile(text, f"{PAGE.name}:{name}", "exec"), made.__dict__)
    return made


module("acme", ACME)
example = module("acme_push_pools", BLOCKS["acme_push_pools"])
TestAcmePlatform = module("test_acme", BLOCKS["test_acme"]).TestAcmePlatform


def test_the_example_is_short_and_runs_the_whole_suite() -> None:
    """What the page promises."""
    assert BLOCKS["acme_push_pools"].count("\n") < MOST_LINES
    assert issubclass(TestAcmePlatform, PlatformContract)
