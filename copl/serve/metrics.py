"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from copl.serve.limits import App, Message, Receive, Send

if TYPE_CHECKING:
    from copl.serve.engine import Engine

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@final
class Metrics:
    """What is counted and timed; one object for each application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "copl_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.latency = Histogram(
            "copl_stage_seconds",
            "Seconds by stage: request, wait (for the model), model, store, upstream.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "copl_batch_texts", "Texts that the model reads at once.", buckets=_COUNTS, registry=self.registry
        )
        self.feedback = Counter("copl_feedback", "Answers of users by kind.", ("kind",), registry=self.registry)
        self.answers = Counter(
            "copl_answers",
            "Completions, by whether the choice differed from the unpersonalised one.",
            ("differs",),
            registry=self.registry,
        )
        self.swaps = Counter("copl_model_loads", "Models that were loaded.", registry=self.registry)
        self._queue = Gauge("copl_queue_requests", "Requests that wait for the model.", registry=self.registry)
        self._texts = Gauge("copl_queue_texts", "Texts that wait for the model.", registry=self.registry)
        self._ready = Gauge("copl_ready", "1 when a model is loaded.", registry=self.registry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = perf_counter()
        try:
            yield
        finally:
            self.latency.labels(name).observe(perf_counter() - started)

    def observe_batch(self, waited: float, took: float, size: int) -> None:
        """Take down what the engine did."""
        self.latency.labels("wait").observe(max(waited, 0.0))
        self.latency.labels("model").observe(took)
        self.batch.observe(size)

    def value(self, name: str, **labels: str) -> float:
        """Return one figure; 0 where nothing was counted yet."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def text(self, engine: Engine) -> bytes:
        """Return everything in Prometheus' text format."""
        load = engine.load
        self._queue.set(load.num_jobs)
        self._texts.set(load.num_texts)
        self._ready.set(engine.served is not None)
        return generate_latest(self.registry)


@final
class Counted:
    """Counts and times every request, refused ones and faults as well.

    Args:
        app: what comes after.
        metrics: the figures.
    """

    def __init__(self, app: App, *, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(
                scope.get("route"), "path_format", "none"
            )  # never the path itself: ids stay out of the figures
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.latency.labels("request").observe(perf_counter() - started)
