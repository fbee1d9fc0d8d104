"""Prometheus metrics: the meaning of TEI's under zoo's names; truncation, padding and cancelled pairs besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zoo.scoring.queue import BatchReport
from zoo.serve.models import Models, ServedModel
from zoo.serve.record import Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)
POWERS = tuple(float(2**n) for n in range(0, 21))
RATIOS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MODEL = ("model", "device", "precision")


class Metrics:
    """The counters of one server."""

    def __init__(self, models: Models) -> None:
        self.registry = registry = CollectorRegistry()
        self._models = {model.name: model for model in models.all}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"zoo_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"zoo_{name}", text, labels, buckets=buckets, registry=registry)

        self._requests = counter("requests", "Requests for scores.", "model", "dialect", "status")
        self._refused = counter("refused_requests", "Requests without scores, by reason.", "model", "reason")
        self._pairs = counter("pairs", "Pairs that the device was given.", *MODEL)
        self._tokens = counter("tokens", "Tokens of pairs that were computed, without padding.", *MODEL)
        self._padded = counter("padded_tokens", "Tokens of batches that were computed, with padding.", *MODEL)
        self._truncated = counter("truncated_pairs", "Pairs whose query or passage was cut.", *MODEL)
        self._cancelled = counter("cancelled_pairs", "Pairs dropped before they were computed.", *MODEL)
        self._duration = histogram(
            "request_duration_seconds", "From a request's head to its answer.", SECONDS, "model", "dialect"
        )
        self._tokenising = histogram("tokenization_duration_seconds", "Tokenising a request's pairs.", SECONDS, *MODEL)
        self._queueing = histogram(
            "queue_duration_seconds", "Until the device was given a request's first pair.", SECONDS, *MODEL
        )
        self._computing = histogram("inference_duration_seconds", "From then to its last score.", SECONDS, *MODEL)
        self._request_pairs = histogram("request_pairs", "Pairs of a request, chunks counted.", POWERS[:13], *MODEL)
        self._batch_pairs = histogram("batch_pairs", "Pairs of a batch.", POWERS[:13], *MODEL)
        self._batch_tokens = histogram("batch_tokens", "Tokens of a batch, with padding.", POWERS, *MODEL)
        self._batch_requests = histogram("batch_requests", "Requests that share a batch.", POWERS[:9], *MODEL)
        self._padding = histogram("batch_padding_ratio", "Padding over real tokens of a batch.", RATIOS, *MODEL)
        self._in_progress = Gauge(
            "zoo_requests_in_progress", "Requests for scores that are not answered.", registry=registry
        )
        registry.register(_Queues(models))
        ProcessCollector(registry=registry)
        for model in models.all:
            model.on_batch = _listener(self, model)

    def begin(self) -> None:
        """A request for scores has come in."""
        self._in_progress.inc()

    def end(self, record: Record) -> None:
        """It has been answered, or its client has gone."""
        self._in_progress.dec()
        self._requests.labels(record.model, record.dialect, str(record.status)).inc()
        self._duration.labels(record.model, record.dialect).observe(record.seconds)
        if record.refused:
            self._refused.labels(record.model, record.refused).inc()
        model = self._models.get(record.model)
        if model is None or not record.pairs:
            return
        labels = labels_of(model)
        self._request_pairs.labels(*labels).observe(record.pairs)
        self._truncated.labels(*labels).inc(record.truncated)
        self._cancelled.labels(*labels).inc(record.pairs - record.computed)
        if record.scored:
            self._tokenising.labels(*labels).observe(record.tokenising)
            self._queueing.labels(*labels).observe(record.queueing)
            self._computing.labels(*labels).observe(record.computing)

    def batch(self, model: ServedModel, report: BatchReport) -> None:
        """A batch has been computed."""
        labels = labels_of(model)
        self._pairs.labels(*labels).inc(report.pairs)
        self._tokens.labels(*labels).inc(report.tokens)
        self._padded.labels(*labels).inc(report.slots)
        self._batch_pairs.labels(*labels).observe(report.pairs)
        self._batch_tokens.labels(*labels).observe(report.slots)
        self._batch_requests.labels(*labels).observe(report.calls)
        self._padding.labels(*labels).observe(max(report.slots / max(report.tokens, 1) - 1, 0))

    def page(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


def labels_of(model: ServedModel) -> tuple[str, str, str]:
    """The values of the labels MODEL."""
    reranker = model.reranker
    return (model.name, reranker.device_name, reranker.precision) if reranker else (model.name, "", "")


def _listener(metrics: Metrics, model: ServedModel) -> Callable[[BatchReport], None]:
    return lambda report: metrics.batch(model, report)


class _Queues(Collector):
    """What waits, asked when the metrics are read."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        size = GaugeMetricFamily("zoo_queue_size", "Pairs that wait for the device.", labels=MODEL)
        tokens = GaugeMetricFamily("zoo_queue_tokens", "Their tokens.", labels=MODEL)
        rate = GaugeMetricFamily(
            "zoo_tokens_per_second", "What the device has done lately while it was busy.", labels=MODEL
        )
        ready = GaugeMetricFamily("zoo_model_ready", "1 if the model can score.", labels=["model"])
        for model in self._models.all:
            reranker = model.reranker
            ready.add_metric([model.name], model.state == "ready")
            if reranker is not None:
                size.add_metric(labels_of(model), reranker.queued_pairs)
                tokens.add_metric(labels_of(model), reranker.queued_tokens)
                rate.add_metric(labels_of(model), model.tokens_per_second)
        yield from (size, tokens, rate, ready)
