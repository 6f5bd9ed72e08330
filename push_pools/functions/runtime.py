"""What every handler begins with: the log, the metrics, the opened installation, and how long it may work."""

from __future__ import annotations

import functools
import gc
import math
import os
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from push_pools.bootstrap import open_aws
from push_pools.functions.counted import CountingBus, CountingErrors
from push_pools.queues.sqs import SqsQueue
from push_pools.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from push_pools.ports import App, Platform

AnswerT = TypeVar("AnswerT")

# The service is named like our loggers, so the services' own lines come out of the same handler, as JSON.
logger: Final = Logger(service="push_pools", level=os.environ.get("POWERTOOLS_LOG_LEVEL", "INFO"))
# Metrics are told apart by the table, so that two installations in one account do not set off each other's alarms.
metrics: Final = Metrics(namespace="push-pools", service=os.environ.get("PUSH_POOLS_AWS_TABLE") or "push_pools")
ANSWER_SECONDS: Final = 3.0
"""How long before the deadline nothing of ours works any more, so that the answer still arrives."""


def function(handler: Callable[[dict[str, Any], LambdaContext], AnswerT]) -> Callable[..., AnswerT]:
    """Make a handler of a function: its log lines name the invocation, and what it counted is written at its end.

    Only what happened is counted: CloudWatch charges by the hour for every metric that is written, zeros included.
    """

    @logger.inject_lambda_context(clear_state=True)
    @functools.wraps(handler)
    def invoked(event: dict[str, Any], context: LambdaContext) -> AnswerT:
        try:
            return handler(event, context)
        finally:
            if metrics.metric_set:
                metrics.flush_metrics()

    return cast("Callable[..., AnswerT]", invoked)


def count(name: str, value: int = 1) -> None:
    """Count something in the metrics of the invocation, from any thread; nothing is counted for none."""
    if value:
        with _counting:
            metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


_counting: Final = threading.Lock()
logger.addHandler(CountingErrors(count))  # After the handler that writes: powertools takes the first for its own.


class Host:
    """The installation, opened once per process: in Lambda while the process starts, elsewhere when first asked for.

    `acting` are the pool types on whose platforms the function starts, stops and cleans up jobs.
    """

    def __init__(self, *, acting: Iterable[str] = (), platforms: Mapping[str, type[Platform]] | None = None) -> None:
        self._acting, self._platforms = frozenset(acting), platforms
        self._lock = threading.Lock()
        self._app: App | None = None
        self._settings: Settings | None = None
        if "AWS_LAMBDA_RUNTIME_API" in os.environ:
            self._open()
        if not gc.isenabled():
            gc.freeze()
            gc.enable()

    def app(self, context: LambdaContext) -> App:
        """Return the installation, its claims as long as this function may run, and some more."""
        app = self._app or self._open()
        seconds = math.ceil(context.get_remaining_time_in_millis() / 1000)
        if seconds > app.timing.function_seconds:
            # A longer time-out than the default was set: what is claimed must not be taken for dead before it.
            app = self._app = replace(app, timing=replace(app.timing, function_seconds=float(seconds)))
        return app

    def _open(self) -> App:
        with self._lock:
            if self._app is None:
                app = open_aws(self.settings, acting=self._acting, extra_platforms=self._platforms)
                self._app = replace(app, bus=CountingBus(app.bus, count)) if app.bus is not None else app
            return self._app

    @property
    def settings(self) -> Settings:
        """What the environment says."""
        if self._settings is None:
            self._settings = Settings.from_environ(os.environ)
        return self._settings

    @property
    def queue(self) -> SqsQueue:
        """The installation's queues."""
        queue = (self._app or self._open()).queue
        assert isinstance(queue, SqsQueue)
        return queue


def deadline_of(context: LambdaContext, now: datetime) -> datetime:
    """Return until when an invocation may work, with time left to answer."""
    return now + timedelta(milliseconds=context.get_remaining_time_in_millis()) - timedelta(seconds=ANSWER_SECONDS)


def owner_of(context: LambdaContext, what: str) -> str:
    """Return the name under which an invocation claims a run; no two invocations have the same."""
    return f"{context.function_name}/{context.aws_request_id}/{what}"
