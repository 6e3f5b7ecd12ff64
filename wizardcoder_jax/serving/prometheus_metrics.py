"""Metrics of the server in Prometheus' text format."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
NAMESPACE = "wizardcoder"
# Bounds of the histogram buckets in seconds.
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REQUEST_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters, latency histograms and gauges of one server, in a separate registry.

    Args:
        gauges: (description, function that returns the current value) of each gauge, by name.
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._requests = Counter("requests", "HTTP requests by path and status", ["path", "code"], **_OPTIONS)
        self.prompt_tokens = Counter("prompt_tokens", "tokens of prompts", **_OPTIONS)
        self.completion_tokens = Counter("completion_tokens", "tokens of completions", **_OPTIONS)
        self.first_token_s = Histogram(
            "time_to_first_token_seconds", "from a request to its first token", buckets=FIRST_TOKEN_S, **_OPTIONS
        )
        self.request_s = Histogram("request_seconds", "from a request to the end of its answers", buckets=REQUEST_S, **_OPTIONS)
        counters = (self._requests, self.prompt_tokens, self.completion_tokens)
        self._registry = CollectorRegistry()
        self._registry.register(_Exporter([*counters, *_make_gauges(gauges), self.first_token_s, self.request_s]))

    def count_request(self, path: str, status: int) -> None:
        """Count an HTTP request with its path and status."""
        self._requests.labels(path=path, code=str(status)).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


_OPTIONS = {"namespace": NAMESPACE, "registry": None}


def _make_gauges(gauges: dict[str, tuple[str, Callable[[], float]]]) -> Iterator[Gauge]:
    for name, (description, function) in gauges.items():
        gauge = Gauge(name, description, **_OPTIONS)
        gauge.set_function(function)
        yield gauge


class _Exporter(Collector):
    """Collector that exports metrics in a fixed order, with the names and labels of earlier versions, which dashboards rely on.

    By default, prometheus_client also exports the creation time of each series, and writes the bound 1 as le="1.0", not le="1".
    """

    def __init__(self, metrics: Iterable[MetricWrapperBase]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            for family in metric.collect():
                samples = [_shorten_bound(sample) for sample in family.samples if not sample.name.endswith("_created")]
                is_labeled = family.type == "counter"  # histogram samples stay in the order of their bounds
                family.samples = sorted(samples, key=lambda sample: tuple(sample.labels.values())) if is_labeled else samples
                yield family


def _shorten_bound(sample: Sample) -> Sample:
    if "le" not in sample.labels:
        return sample
    bound = float(sample.labels["le"])
    return sample._replace(labels={**sample.labels, "le": "+Inf" if bound == float("inf") else f"{bound:g}"})
