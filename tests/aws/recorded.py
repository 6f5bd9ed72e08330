"""Runs the real Lambda runtime client, and writes every call of AWS that the function makes into a file.

    CALLS_FILE=calls.jsonl python recorded.py module.handler

It is a script, because the functions of a bundle see nothing of this repository.
"""

import json
import os
import sys
import threading
from pathlib import Path

from botocore.client import BaseClient

FILE = os.environ["CALLS_FILE"]
make_call = BaseClient._make_api_call  # type: ignore[attr-defined] # The one way that every call takes.
lock = threading.Lock()


def recorded(self, operation, params):  # type: ignore[no-untyped-def] # As in botocore.
    """Write what is asked, and as whom; then ask it."""
    identity = self._request_signer._credentials
    line = {
        "service": self.meta.service_model.service_name,
        "operation": operation,
        "as": identity.access_key if identity is not None else None,
        "params": params,
    }
    with lock, Path(FILE).open("a", encoding="utf-8") as out:
        out.write(json.dumps(line, default=str) + "\n")
    return make_call(self, operation, params)


BaseClient._make_api_call = recorded  # type: ignore[attr-defined]

from awslambdaric.__main__ import main  # type: ignore[import-untyped] # noqa: E402 - after the calls are watched

main(sys.argv)
