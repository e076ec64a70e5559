"""What a server counts about itself, for Prometheus."""

from __future__ import annotations

from typing import Any

from attnvgg.errors import InputError


class Counters:
    """Requests, refusals, batches and times of one server.

    Nothing in them is of an image or of a patient.

    Raises:
        InputError: the extra `serve` is not installed.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise InputError('Serving needs more: pip install "attnvgg[serve]".') from None
        self._registry = prometheus.CollectorRegistry()
        kept: Any = {"registry": self._registry}
        self.requests = prometheus.Counter(
            "attnvgg_requests", "Requests answered.", ["path", "status"], **kept
        )
        self.seconds = prometheus.Histogram(
            "attnvgg_request_seconds", "From the head of a request to its answer.", ["path"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60), **kept,
        )  # fmt: skip
        self.under_way = prometheus.Gauge("attnvgg_requests_under_way", "Not yet answered.", **kept)
        self.body_bytes = prometheus.Gauge("attnvgg_body_bytes", "Bodies in memory.", **kept)
        self.waiting = prometheus.Gauge("attnvgg_queue", "Images or bags that wait.", **kept)
        self.batch = prometheus.Histogram(
            "attnvgg_batch_size", "Images or bags computed together.", buckets=(1, 2, 4, 8, 16),
            **kept,
        )  # fmt: skip
        self.engine_seconds = prometheus.Counter(
            "attnvgg_engine_seconds", "Time that the engine computed.", **kept
        )
        self.predictions = prometheus.Counter(
            "attnvgg_predictions", "Images or bags by what they were called.", ["called"], **kept
        )
        self.lost_records = prometheus.Gauge(
            "attnvgg_trail_lost", "Predictions that the audit trail could not take.", **kept
        )
        self._prometheus = prometheus

    def observe_batch(self, size: int, seconds: float) -> None:
        """Count a batch of the engine."""
        self.batch.observe(size)
        self.engine_seconds.inc(seconds)

    def text(self) -> tuple[bytes, str]:
        """Return everything as Prometheus reads it, and the media type of that."""
        return self._prometheus.generate_latest(self._registry), str(
            self._prometheus.CONTENT_TYPE_LATEST
        )
