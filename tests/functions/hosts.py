"""Puts an App of the tests in place of an opened installation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from push_pools.settings import Settings

if TYPE_CHECKING:
    import pytest

    from push_pools.ports import App


def use(monkeypatch: pytest.MonkeyPatch, module: Any, app: App, **environ: str) -> None:
    """Make the host of a function's module open this App, and read these settings."""
    monkeypatch.setattr(module.host, "_app", app)
    monkeypatch.setattr(module.host, "_settings", Settings.from_environ(environ))
