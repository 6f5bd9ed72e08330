"""The log of the services: an event's name and its fields; the hosting decides where the lines go."""

from __future__ import annotations

import logging

log = logging.getLogger("push_pools")
