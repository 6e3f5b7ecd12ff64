"""What the server has done, in the text format of Prometheus.

Source of the format: prometheus.io, exposition formats, version 0.0.4.
"""

import bisect
import collections
from collections.abc import Mapping

PREFIX = "wizardcoder_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WHOLE_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Histogram:
    """How many observations were at most as great as each bound.

    Args:
        bounds: in rising order.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, meaning: str) -> list[str]:
        """As text."""
        found, count = [f"# HELP {name} {meaning}", f"# TYPE {name} histogram"], 0
        for bound, more in zip((*self._bounds, None), self._counts, strict=True):
            count += more
            found.append(f'{name}_bucket{{le="{"+Inf" if bound is None else f"{bound:g}"}"}} {count}')
        return [*found, f"{name}_sum {self._sum:.6f}", f"{name}_count {count}"]


class Metrics:
    """Counts of one server, since its start."""

    def __init__(self) -> None:
        self.requests: collections.Counter[tuple[str, int]] = collections.Counter()  # (path, status)
        self.prompt_tokens = self.completion_tokens = 0
        self.first_token_s, self.whole_s = Histogram(FIRST_TOKEN_S), Histogram(WHOLE_S)

    def text(self, gauges: Mapping[str, tuple[str, int]]) -> str:
        """All that is known.

        Args:
            gauges: name -> (meaning, value) of what is so at present.
        """
        lines = [f"# HELP {PREFIX}requests_total HTTP requests by path and status", f"# TYPE {PREFIX}requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'{PREFIX}requests_total{{path="{path}",code="{status}"}} {count}')
        counters = {"prompt": self.prompt_tokens, "completion": self.completion_tokens}
        for kind, value in counters.items():
            name = f"{PREFIX}{kind}_tokens_total"
            lines += [f"# HELP {name} tokens of {kind}s", f"# TYPE {name} counter", f"{name} {value}"]
        for name, (meaning, value) in gauges.items():
            name = PREFIX + name
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", f"{name} {value}"]
        lines += self.first_token_s.lines(f"{PREFIX}time_to_first_token_seconds", "from a request to its first token")
        lines += self.whole_s.lines(f"{PREFIX}request_seconds", "from a request to the end of its answers")
        return "\n".join(lines) + "\n"
