"""A plain HTTP client for our server, for requests that the official OpenAI client cannot send."""

import json
import re
import time
import urllib.error
import urllib.request

TIMEOUT_S = 120


class HttpClient:
    """Sends requests to `url`, which a subclass sets."""

    url: str

    def get(self, path, **headers):
        """Return (status, headers, body) of a GET."""
        return self._send(urllib.request.Request(self.url + path, headers=headers))

    def post(self, path, body, **headers):
        """Return (status, headers, body) of a POST; `body` is sent as JSON, or unchanged if it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send(urllib.request.Request(self.url + path, content, {"Content-Type": "application/json", **headers}))

    def _send(self, request):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                status, headers, content = response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, headers, content = error.code, error.headers, error.read()
        is_json = headers.get("Content-Type", "").startswith("application/json")
        return status, headers, json.loads(content) if is_json else content.decode()

    def metric(self, name):
        """Return the value of a gauge or counter."""
        found = re.search(rf"^wizardcoder_{re.escape(name)} (\S+)$", self.get("/metrics")[2], re.MULTILINE)
        assert found, name
        return float(found[1])

    def wait_for(self, name, value):
        """Wait until the metric `name` has the value `value`."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.metric(name) != value:
            assert time.monotonic() < deadline, (name, self.metric(name))
            time.sleep(0.01)
