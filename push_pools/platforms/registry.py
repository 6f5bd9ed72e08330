"""The platforms that are installed: found through entry points, imported when first asked for."""

from __future__ import annotations

import difflib
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from push_pools.domain.errors import NotFound, PlatformMissing
from push_pools.domain.pools import full_pool_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from push_pools.ports import Platform, PlatformContext

GROUP: Final = "push_pools.platforms"
EXTRAS: Final = {"cloud-run-v2:push": "gcp", "azure-container-instance:push": "azure"}
"""Which extra brings the libraries of a platform of ours."""
NEEDED: Final = ("type", "job_configuration", "submit", "find", "observe", "stop")
"""Names without which a class is surely no platform."""


LOCAL: Final = frozenset({"process"})
"""The types whose jobs run on the machine of the server."""


def hosted_platforms() -> tuple[EntryPoint, ...]:
    """Return what is installed and can be used where there is no server: jobs run elsewhere than where it is asked."""
    return tuple(entry for entry in entry_points(group=GROUP) if entry.name not in LOCAL)


class EntryPointPlatforms:
    """Implements `ports.Platforms`. Each platform is imported and built once, on first use, by whichever thread asks.

    `extra` adds platforms, or replaces installed ones, by pool type; tests and the simulated clock use it.
    """

    def __init__(
        self,
        context: PlatformContext,
        *,
        extra: Mapping[str, type[Platform]] | None = None,
        found: Iterable[EntryPoint] | None = None,
    ) -> None:
        self._context, self._extra = context, dict(extra or {})
        self._given = None if found is None else tuple(found)
        self._entries: dict[str, list[EntryPoint]] | None = None
        self._built: dict[str, Platform] = {}
        self._lock = threading.RLock()

    def __call__(self, type_: str) -> Platform:
        """Return the platform of a pool type, or of its alias.

        Raises:
            NotFound: No such type is installed.
            PlatformMissing: It is, but does not import.
        """
        name = full_pool_type(type_)
        built = self._built.get(name)
        if built is not None:
            return built
        with self._lock:
            if name not in self._built:
                self._built[name] = self._build(name)
            return self._built[name]

    def types(self) -> Sequence[str]:
        """Return the names of all installed pool types; nothing is imported for it."""
        return sorted({*self._installed(), *self._extra})

    def problems(self) -> Mapping[str, str]:
        """Return a sentence for every installed type that cannot be used; this imports all of them."""
        found = {}
        for name in self.types():
            try:
                self(name)
            except PlatformMissing as error:
                found[name] = str(error)
        return found

    def _installed(self) -> dict[str, list[EntryPoint]]:
        with self._lock:
            if self._entries is None:
                self._entries = {}
                for entry in entry_points(group=GROUP) if self._given is None else self._given:
                    same = self._entries.setdefault(entry.name, [])
                    if entry.value not in {other.value for other in same}:
                        same.append(entry)
            return self._entries

    def _build(self, name: str) -> Platform:
        class_ = self._extra.get(name) or self._load(name)
        try:
            return class_(self._context)
        except Exception as error:  # A plug-in's own fault is named, and is no reason for others to fail.
            raise _broken(name, f"its class {class_.__name__} does not build", error) from error

    def _load(self, name: str) -> type[Platform]:
        entries = self._installed().get(name)
        if not entries:
            raise self._not_found(name)
        if len(entries) > 1:
            values = " and ".join(sorted(entry.value for entry in entries))
            raise PlatformMissing(name, f"{values} both claim it", fix="uninstall one of them")
        try:
            class_ = entries[0].load()
        except ImportError as error:
            raise _not_importable(name, entries[0], error) from error
        except Exception as error:
            raise _broken(name, f"{entries[0].value} does not import", error) from error
        if lacking := [attribute for attribute in NEEDED if not hasattr(class_, attribute)]:
            raise PlatformMissing(name, f"{entries[0].value} has no {', '.join(lacking)}", fix=_fix(entries[0]))
        platform: type[Platform] = class_
        return platform

    def _not_found(self, name: str) -> NotFound:
        known = self.types()
        close = difflib.get_close_matches(name, known, n=1)
        listed = f"installed: {', '.join(known)}" if known else "no platform is installed"
        if name in EXTRAS:
            fix = f"pip install 'push-pools[{EXTRAS[name]}]', in the newest release; {listed}"
        else:
            fix = f"did you mean {close[0]!r}? ({listed})" if close else listed
        return NotFound("pool type", name, [*close, *(other for other in known if other not in close)], fix=fix)


def _not_importable(name: str, entry: EntryPoint, error: ImportError) -> PlatformMissing:
    missing = f"the module {error.name!r} is not installed" if isinstance(error, ModuleNotFoundError) else str(error)
    extra = EXTRAS.get(name)
    fix = f"pip install 'push-pools[{extra}]'" if extra else _fix(entry)
    return PlatformMissing(name, missing, fix=fix)


def _broken(name: str, what: str, error: Exception) -> PlatformMissing:
    return PlatformMissing(
        name, f"{what}: {type(error).__name__}: {error}", fix="repair or uninstall the package that brings it"
    )


def _fix(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist is not None else entry.value.partition(".")[0]
    return f"reinstall {package!r}"
