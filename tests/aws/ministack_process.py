"""Runs ministack until standard input closes, so that it never outlives the tests that started it.

It runs in ministack's own environment (`requirements.txt`), never in ours.
"""

import os
import sys
import threading

from ministack.app import main  # type: ignore[import-not-found]


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=_end_with_input, daemon=True).start()
sys.argv = ["ministack"]
main()
