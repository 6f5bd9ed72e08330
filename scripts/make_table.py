"""Write `infra/table.json`: the DynamoDB table of a ledger, for infrastructure code. A test compares it."""

from __future__ import annotations

import json
from pathlib import Path

from push_pools.stores.dynamodb_table import as_infra

FILE = Path(__file__).resolve().parent.parent / "infra" / "table.json"


def text() -> str:
    """Return what the file holds."""
    return json.dumps(as_infra(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
