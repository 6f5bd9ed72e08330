"""The output of a local job, page by page."""

from __future__ import annotations

from typing import Final

from push_pools.ports import LogPage

PAGE_BYTES: Final = 1_000_000
PAGE_LINES: Final = 10_000


def page_of(data: bytes, offset: int, *, is_over: bool) -> LogPage:
    is_all = len(data) <= PAGE_BYTES
    data = data[:PAGE_BYTES]
    end = len(data) if is_all and is_over else data.rfind(b"\n") + 1
    if not end and not is_all:
        end = _whole_characters(data)  # One line longer than a page comes in parts.
    lines = data[:end].split(b"\n", PAGE_LINES)
    if len(lines) > PAGE_LINES and lines[-1]:
        end -= len(lines[-1])
        is_all = False
    if len(lines) > PAGE_LINES or not lines[-1]:
        lines.pop()
    texts = tuple(line.removesuffix(b"\r").decode(errors="replace") for line in lines)
    return LogPage(texts, str(offset + end), is_last=is_all and is_over)


def _whole_characters(data: bytes) -> int:
    """Return how many bytes there are up to a character that may be cut off at the end."""
    for back in range(1, 4):
        if data[-back] & 0xC0 == 0xC0:
            return len(data) - back
    return len(data)
