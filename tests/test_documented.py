"""What can be set, and what can go wrong, is in the documentation; the README's commands run."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from push_pools.domain import errors
from push_pools.domain.errors import InvalidInput, PushPoolsError
from push_pools.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PushPoolsError)]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_is_documented(cls: type[PushPoolsError]) -> None:
    """In docs/errors.md, and in the tree at the top of its module; and it has a docstring."""
    assert f"`{cls.__name__}`" in (ROOT / "docs" / "errors.md").read_text()
    assert cls.__name__ in str(errors.__doc__)
    assert cls.__doc__


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Settings)])
def test_every_setting_is_documented(field: str) -> None:
    """With its full name, and its default where it is a number."""
    rows = (ROOT / "docs" / "settings.md").read_text().splitlines()
    row = next(row for row in rows if row.startswith(f"| `{PREFIX}{field.upper()}` |"))
    default = getattr(Settings(), field)
    if isinstance(default, int | float):
        assert f"| {default:g} |" in row


def test_settings_are_read_from_the_environment() -> None:
    """Each from its variable; what a job sees is no setting."""
    settings = Settings.from_environ(
        {
            "PUSH_POOLS_HOME": "/x",
            "PUSH_POOLS_TEMPLATE_ENVIRON": "A, B,",
            "PUSH_POOLS_WORKERS": "3",
            "PUSH_POOLS_SWEEP_SECONDS": "0.5",
            "PUSH_POOLS_RUN_ID": "1",
            "PATH": "/bin",
        }
    )
    assert (settings.home, settings.template_environ) == (Path("/x"), ("A", "B"))
    assert (settings.workers, settings.sweep_seconds) == (3, 0.5)


@pytest.mark.parametrize(
    ("name", "value", "say"),
    [
        ("PUSH_POOLS_HOMME", "/x", "PUSH_POOLS_HOMME is not a setting; known are PUSH_POOLS_ACI_"),
        ("PUSH_POOLS_WORKERS", "many", "PUSH_POOLS_WORKERS='many' is not understood"),
        ("PUSH_POOLS_WORKERS", "0", "at least 1"),
        ("PUSH_POOLS_TICK_SECONDS", "-1", "at least 0.01"),
        ("PUSH_POOLS_AZURE_ENDPOINT", "http://example.com", "http:// is taken for this machine"),
        ("PUSH_POOLS_AZURE_ENDPOINT", "management.azure.com", "write a URL such as https://HOST"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: str, say: str) -> None:
    """With the name and the fix."""
    with pytest.raises(InvalidInput, match=say):
        Settings.from_environ({name: value})
