"""The answers of the `admin` function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from push_pools.domain.errors import StoreUnavailable
from push_pools.domain.pools import Variable
from push_pools.functions import admin
from tests.functions.context import Context
from tests.functions.hosts import use
from tests.services.catalogue_app import make_app

if TYPE_CHECKING:
    from push_pools.ports import App


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    app = make_app()
    use(monkeypatch, admin, app)
    return app


def ask(**request: Any) -> Any:
    return admin.handler({"version": 1, **request}, cast("Any", Context(function_name="admin")))


def test_a_write_is_answered_with_id_and_version(app: App) -> None:
    answer = ask(action="put", kind="work-pool", name="nightly", spec={"type": "fake"})
    assert set(answer) == {"id", "version"}
    assert answer["version"] == 1
    assert ask(action="delete", kind="work-pool", name="nightly") == {"id": None, "version": 0}


def test_a_refusal_is_answered_with_the_fix(app: App) -> None:
    assert ask(action="put", kind="work-queue", name="urgent", spec={}) == {
        "error": "name: 'urgent' does not address a work-queue",
        "fix": "write pool/queue",
    }


def test_terraform_is_told_by_an_error(app: App) -> None:
    """It takes every answer for a success, and would not try again."""
    tf = {"action": "create"}
    assert ask(kind="variable", name="a", spec={"value": 1}, managed_by="terraform:x", tf=tf)["version"] == 1
    with pytest.raises(admin.Refused, match="managed by terraform:x; change it there"):
        ask(kind="variable", name="a", spec={"value": 2}, managed_by="terraform:y", tf=tf)
    assert app.store.list(Variable)[0].value == 1


def test_the_token_of_a_write_that_was_taken_comes_back(app: App) -> None:
    """Terraform keeps the input of an update that was refused; by the token of the last answer it can see that."""
    assert ask(action="put", kind="variable", name="a", spec={"value": 1}, token="t1")["token"] == "t1"
    assert "token" not in ask(action="put", kind="variable", name="a", spec={"valu": 1}, token="t2")


def test_a_ledger_that_is_away_is_an_error_of_the_function(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(app.store, "get", away)
    with pytest.raises(StoreUnavailable):
        ask(action="put", kind="variable", name="a", spec={"value": 1})


def test_a_block_s_secret_is_in_no_log_line(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    ask(action="put", kind="block", name="secret/token", spec={"value": "canary-1"})
    ask(action="put", kind="block", name="secret/token", spec={"value": ["canary-2"]})
    ask(action="put", kind="block", name="secret/token", spec={"canary-3": "canary-4"})
    printed = "".join(capsys.readouterr())
    for number in (1, 2, 4):
        assert f"canary-{number}" not in printed
