"""Write `infra/schemas/`: the JSON schemas of the events and of the config file. A test compares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from push_pools.domain.config import ConfigFile
from push_pools.domain.described import described_schema
from push_pools.domain.events import event_schemas

FOLDER = Path(__file__).resolve().parent.parent / "infra" / "schemas"


def schemas() -> dict[str, str]:
    """Return the text of every schema by its file name."""
    config: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **described_schema(ConfigFile),
        "title": "push-pools.yaml",
    }
    found = {**event_schemas(), "config-file": config}
    return {f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in found.items()}


def main() -> None:
    """Write every schema, and remove those of types that are gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = schemas()
    for path in FOLDER.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
