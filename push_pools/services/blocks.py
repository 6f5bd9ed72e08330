"""Blocks: named credentials and secrets.

Their secret fields are encrypted when they come in, and opened where they are used.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID, uuid4

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import to_jsonable_python

from push_pools.domain.deployments import Deployment
from push_pools.domain.errors import InUse, InvalidInput, NotFound
from push_pools.domain.pools import BlockDocument, WorkPool
from push_pools.domain.problems import did_you_mean, nearest, problems_of
from push_pools.domain.secrets import SecretRef
from push_pools.domain.templates import (
    BLOCK_ID_KEY,
    PlaceholderType,
    block_ref,
    find_placeholders,
    parse_block_name,
)
from push_pools.services.records import add_record, change_record, remove_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from push_pools.domain.templates import LoadBlock
    from push_pools.ports import App, Vault

ENCRYPTED: Final = "$encrypted"
REDACTED: Final = "********"
CACHED_FOR: Final = timedelta(minutes=5)
"""How long a decrypted block may be kept in memory."""
MAX_CACHED: Final = 128

_BLOCK_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")  # As in Prefect: lower-case letters, digits and dashes.


# -- writing -------------------------------------------------------------------


def create_block(
    app: App, type_slug: str, name: str, data: Mapping[str, Any], *, managed_by: str | None = None
) -> BlockDocument:
    """Add a block and return it as stored: its secret fields are encrypted.

    Raises:
        NotFound: There is no such block type; those there are, are named.
        AlreadyExists: There is a block of that type and name.
        InvalidInput: The name or the data is wrong. No value is shown.
        NotAllowed: The vault's key cannot be used.
    """
    if not _BLOCK_NAME.fullmatch(name):
        raise InvalidInput(f"{name[:40]!r} cannot name a block; write lower-case letters, digits and dashes")
    class_ = app.block_types(type_slug)
    id_, now = uuid4(), app.clock.now()
    block = BlockDocument(
        id=id_,
        type_slug=type_slug,
        name=name,
        data=_sealed(app.vault, id_, _validated(class_, type_slug, data)),
        managed_by=managed_by,
        created_at=now,
        updated_at=now,
    )
    return add_record(app, "block", block, fix="pick another name, or replace it")


def replace_block(app: App, ref: str, data: Mapping[str, Any], *, managed_by: str | None = None) -> BlockDocument:
    """Give a block new data, all of it, and return it as stored. It keeps its id, so nothing that names it changes.

    Raises:
        NotFound: There is no such block.
        NotAllowed: Somebody else manages it, or the vault's key cannot be used.
        InvalidInput: The data is wrong. No value is shown.
    """

    def change(block: BlockDocument) -> BlockDocument:
        fields = _validated(app.block_types(block.type_slug), block.type_slug, data)
        return block.model_copy(update={"data": _sealed(app.vault, block.id, fields)})

    return change_record(app, "block", lambda: find_block(app, ref), change, managed_by=managed_by)


def delete_block(app: App, ref: str, *, managed_by: str | None = None) -> None:
    """Delete a block.

    Raises:
        NotFound: There is no such block.
        NotAllowed: Somebody else manages it.
        InUse: Pools or deployments name it, or active runs need it to be watched and stopped.
    """

    def check(block: BlockDocument) -> None:
        if users := list(block_users(app, block)):
            raise InUse("block", block.key, users)

    remove_record(app, "block", lambda: find_block(app, ref), check, managed_by=managed_by)


def _validated(class_: type[BaseModel], type_slug: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were given, as the type reads them."""
    known = [field.alias or name for name, field in class_.model_fields.items()]
    if unknown := [name for name in data if name not in known]:
        raise InvalidInput(f"{type_slug}: there is no field {unknown[0][:40]!r}; {did_you_mean(unknown[0], known)}")
    try:
        block = class_.model_validate(dict(data))
    except ValidationError as error:
        problems = problems_of(class_, error, show_values=False)
        raise InvalidInput("; ".join(str(each.below(type_slug)) for each in problems)) from None
    return block.model_dump(by_alias=True, exclude_unset=True)


def _sealed(vault: Vault, block_id: UUID, fields: dict[str, Any]) -> dict[str, Any]:
    sealed: dict[str, Any] = _map_secrets(
        fields, lambda field, clear: {ENCRYPTED: vault.encrypt(json.dumps(clear).encode(), _context(block_id, field))}
    )
    return sealed


def _map_secrets(value: Any, seal: Callable[[str, str], Any], path: str = "") -> Any:
    match value:
        case SecretStr():
            return seal(path, value.get_secret_value())
        case SecretBytes():
            return seal(path, value.get_secret_value().decode())
        case dict():
            return {str(key): _map_secrets(item, seal, _join(path, key)) for key, item in value.items()}
        case list() | tuple():
            return [_map_secrets(item, seal, _join(path, number)) for number, item in enumerate(value)]
    return to_jsonable_python(value)


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)


def _context(block_id: UUID, field: str) -> dict[str, str]:
    return {"block_id": str(block_id), "field": field}


# -- reading -------------------------------------------------------------------


def find_block(app: App, ref: str) -> BlockDocument:
    """Return a block by `type/name`, by its id or by a unique beginning of its id.

    Raises:
        NotFound: There is none.
        InvalidInput: More than one id begins like that.
    """
    if (found := app.store.get(BlockDocument, ref)) is not None:
        return found
    blocks = app.store.list(BlockDocument)
    prefix = ref.lower()
    candidates = [block for block in blocks if prefix and str(block.id).startswith(prefix)]
    if len(candidates) > 1:
        listed = ", ".join(f"{block.key} ({block.id})" for block in candidates[:10])
        raise InvalidInput(f"block {ref!r} may be {listed}; write more of the id")
    if not candidates:
        raise NotFound("block", ref[:300], nearest(ref, (block.key for block in blocks)))
    return candidates[0]


def list_blocks(app: App) -> Sequence[BlockDocument]:
    """Return all blocks in the order of `type/name`, as stored."""
    return app.store.list(BlockDocument)


def inspect_block(app: App, ref: str) -> dict[str, Any]:
    """Return what may be shown of a block; secret fields are redacted.

    Raises:
        NotFound: There is no such block.
        InvalidInput: More than one id begins like that.
    """
    block = find_block(app, ref)
    shown: dict[str, Any] = redact(block.model_dump(mode="json"))
    return shown


def redact(value: Any) -> Any:
    """Return a copy of a value in which encrypted fields and secret values are stars."""
    if isinstance(value, SecretStr | SecretBytes) or _is_encrypted(value):
        return REDACTED
    if isinstance(value, dict):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def load_block(app: App) -> LoadBlock:
    """Return the function that templates read blocks with: secrets are references, never values.

    `load(type_slug, name)`, or `load(None, id)`, returns the block's data with its id under `$block_document_id`,
    and raises `NotFound`.
    """

    def load(type_slug: str | None, name: str) -> dict[str, Any]:
        block = _by_id(app, name) if type_slug is None else _by_name(app, type_slug, name)
        data: dict[str, Any] = _map_encrypted(block.data, lambda field, _: SecretRef(str(block.id), field))
        return {**data, BLOCK_ID_KEY: str(block.id)}

    return load


def open_block(app: App, block_id: str | None) -> Any:
    """Return a block as an instance of its type, with its secrets decrypted; `None` for no block.

    A decrypted block is kept in memory for five minutes at most, and not beyond a change of the block.

    Raises:
        NotFound: There is no such block.
        NotAllowed: Its secrets were encrypted with another key, or were changed.
        InvalidInput: Its data does not fit its type any more.
    """
    if block_id is None:
        return None
    block = _by_id(app, block_id)
    key = (app.store.ledger_id, block.id, block.version)
    now = app.real_clock.now()
    if (kept := _opened.get(key, now)) is not None:
        return kept
    opened = _open(app, block)
    _opened.put(key, opened, now)
    return opened


def _open(app: App, block: BlockDocument) -> BaseModel:
    def decrypt(field: str, sealed: str) -> Any:
        return json.loads(app.vault.decrypt(sealed, _context(block.id, field)))

    class_ = app.block_types(block.type_slug)
    try:
        return class_.model_validate(_map_encrypted(block.data, decrypt))
    except ValidationError as error:
        problems = "; ".join(map(str, problems_of(class_, error, show_values=False)))
        raise InvalidInput(f"block {block.key!r} does not fit its type any more: {problems}; replace it") from None


def _is_encrypted(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {ENCRYPTED} and isinstance(value[ENCRYPTED], str)


def _map_encrypted(value: Any, opened: Callable[[str, str], Any], path: str = "") -> Any:
    if _is_encrypted(value):
        return opened(path, value[ENCRYPTED])
    if isinstance(value, dict):
        return {key: _map_encrypted(item, opened, _join(path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_encrypted(item, opened, _join(path, number)) for number, item in enumerate(value)]
    return value


def _by_id(app: App, block_id: str) -> BlockDocument:
    try:
        block = app.store.find(BlockDocument, UUID(block_id))
    except ValueError:
        block = None
    if block is None:
        known = (f"{each.id} ({each.key})" for each in app.store.list(BlockDocument))
        raise NotFound("block", block_id[:60], nearest(block_id[:60], known))
    return block


def _by_name(app: App, type_slug: str, name: str) -> BlockDocument:
    block = app.store.get(BlockDocument, f"{type_slug}/{name}")
    if block is None:
        app.block_types(type_slug)
        known = (each.key for each in app.store.list(BlockDocument))
        raise NotFound("block", f"{type_slug}/{name}", nearest(f"{type_slug}/{name}", known))
    return block


# -- what uses a block ---------------------------------------------------------


def block_users(app: App, block: BlockDocument) -> Iterator[str]:
    """Yield what keeps a block from being deleted."""
    for pool in app.store.list(WorkPool):
        if _names(pool.base_job_template, block):
            yield f"work pool {pool.name}"
    for deployment in app.store.list(Deployment):
        layers = [deployment.layer(), *(schedule.job_variables for schedule in deployment.schedules)]
        if _names(layers, block):
            yield f"deployment {deployment.key}"
    for platform in app.store.active_platforms():
        for run in app.store.active(platform):
            if run.job is not None and run.job.handle.credential_block_id == str(block.id):
                yield f"active flow run {run.id}"


def _names(value: Any, block: BlockDocument) -> bool:
    by_name = (
        parse_block_name(placeholder)[:2] == (block.type_slug, block.name)
        for placeholder in find_placeholders(value)
        if placeholder.type is PlaceholderType.BLOCK
    )
    return any(by_name) or any(block_ref(item) == str(block.id) for item in _objects(value))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), dict):
            yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _objects(item)


# -- the cache -----------------------------------------------------------------


class _Kept(NamedTuple):
    block: BaseModel
    until: datetime


class _Cache:
    """Decrypted blocks, the latest used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[UUID, UUID, int], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[UUID, UUID, int], now: datetime) -> BaseModel | None:
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is None or kept.until <= now:
                return None
            self._kept[key] = kept
            return kept.block

    def put(self, key: tuple[UUID, UUID, int], block: BaseModel, now: datetime) -> None:
        with self._lock:
            for old in [old for old, kept in self._kept.items() if kept.until <= now or old[:2] == key[:2]]:
                del self._kept[old]
            while len(self._kept) >= MAX_CACHED:
                self._kept.popitem(last=False)
            self._kept[key] = _Kept(block, now + CACHED_FOR)


_opened = _Cache()
