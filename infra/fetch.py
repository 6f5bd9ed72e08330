"""Fetch the bundle of the functions for Terraform: a program of its `external` data source.

Reads `{"url", "sha256", "folder"}` from standard input and answers `{"path", "sha256_base64"}`. What was fetched before
is used again; a file whose SHA-256 is another than the given one is never used. Needs the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 50_000_000
"""What Lambda takes by upload."""
SECONDS: Final = 60.0


def main(given: dict[str, Any]) -> dict[str, str]:
    """Return where the bundle is, having fetched it if need be.

    Raises:
        SystemExit: It cannot be had, or is not the one that is meant.
    """
    url, sha256, folder = str(given["url"]), str(given["sha256"]).lower(), Path(given["folder"])
    path = folder / f"functions-{sha256[:16]}.zip"
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        data = fetch(url)
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            said = f"what is at {url} has the SHA-256 {found}, and not {sha256}; it is not used"
            raise SystemExit(f"{said}: correct package.sha256, or the url")
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part")
        scratch.write_bytes(data)
        scratch.replace(path)
    return {"path": str(path), "sha256_base64": base64.b64encode(hashlib.sha256(data).digest()).decode()}


def fetch(url: str) -> bytes:
    """Return what is at an https URL.

    Raises:
        SystemExit: It cannot be had, or is too large.
    """
    if not url.startswith("https://"):
        raise SystemExit(f"{url} is not an https address; give one, or use package.path")
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            data = bytes(answer.read(MOST_BYTES + 1))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise SystemExit(f"{url} cannot be fetched: {error}; see whether it is there, or use package.path") from error
    if len(data) > MOST_BYTES:
        raise SystemExit(f"what is at {url} is larger than {MOST_BYTES} bytes, which Lambda refuses; use package.s3")
    return data


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
