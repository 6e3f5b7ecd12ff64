"""The text of /metrics has the names, labels and order that dashboards rely on."""

import pytest

from wizardcoder_jax.serving.prometheus_metrics import Metrics

pytestmark = pytest.mark.quick


def test_series_have_stable_names_labels_and_order():
    metrics = Metrics({"slots": ("answers that can be made together", lambda: 4)})
    for path, status in (("/v1/models", 200), ("/", 404), ("/v1/models", 200)):
        metrics.count_request(path, status)
    metrics.completion_tokens.inc(7)
    metrics.request_s.observe(1)
    lines = metrics.text().decode().splitlines()
    series = [line for line in lines if not line.startswith("#")]
    assert series[:5] == [
        'wizardcoder_requests_total{code="404",path="/"} 1.0',
        'wizardcoder_requests_total{code="200",path="/v1/models"} 2.0',
        "wizardcoder_prompt_tokens_total 0.0",
        "wizardcoder_completion_tokens_total 7.0",
        "wizardcoder_slots 4.0",
    ]
    assert 'wizardcoder_request_seconds_bucket{le="0.5"} 0.0' in series
    assert 'wizardcoder_request_seconds_bucket{le="1"} 1.0' in series
    assert 'wizardcoder_request_seconds_bucket{le="+Inf"} 1.0' in series
    assert "# TYPE wizardcoder_requests_total counter" in lines
    assert not [line for line in lines if "_created" in line]


def test_two_servers_in_one_process_count_apart():
    first, second = Metrics({}), Metrics({})
    first.prompt_tokens.inc(3)
    assert b"wizardcoder_prompt_tokens_total 3.0" in first.text()
    assert b"wizardcoder_prompt_tokens_total 0.0" in second.text()
