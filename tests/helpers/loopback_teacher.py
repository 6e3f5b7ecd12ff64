"""An OpenAI-compatible server on the loopback interface, whose answers depend only on the prompt."""

import contextlib
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(prompt: str) -> tuple[str, str]:
    """Return (text, finish_reason). Some evolutions are judged equal; some answers apologize or are truncated."""
    digest = hashlib.sha256(prompt.encode()).digest()
    if prompt.startswith("Please increase the difficulty"):
        question = prompt.split("\n\n", 2)[2]
        return f"{question}\nAlso handle case {digest.hex()[:6]}.", "stop"
    if prompt.startswith("Here are two Instructions"):
        return ("Equal" if digest[0] % 6 == 0 else "Not Equal"), "stop"
    if digest[0] % 8 == 0:
        return "I am sorry, I cannot do that.", "stop"
    return f"def f():\n    return '{digest.hex()}'", "length" if digest[0] % 8 == 1 else "stop"


def chat_body(text: str, finish_reason: str = "stop", usage: dict[str, int] | None = None) -> bytes:
    """Return a chat completion in OpenAI's format."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return json.dumps({"model": "loopback-1", "choices": [choice], "usage": usage}).encode()


def completion_body(text: str, finish_reason: str = "stop", usage: dict[str, int] | None = None) -> bytes:
    """Return a text completion in OpenAI's format."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    return json.dumps({"model": "loopback-1", "choices": [choice], "usage": usage}).encode()


class LoopbackTeacher:
    """Context manager that runs the server.

    Args:
        scripted: the first replies (status, headers, body), one for each request; None answers as usual. A status of None
            closes the connection. Bytes are sent as they are, then the connection is closed.
        hold_after: requests after this number are answered only after `release` is called; `held` counts them.
        port: the port, or 0 for any.
        hold: returns for the number of a request whether it is held; replaces `hold_after`.
        drip_s: delay before each byte of a body, seconds.
    """

    def __init__(self, scripted=(), hold_after: int | None = None, port: int = 0, hold=None, drip_s: float = 0.0) -> None:
        self.scripted = list(scripted)
        self._holds = hold or (lambda number: hold_after is not None and number > hold_after)
        self.drip_s = drip_s
        self.requests: list[dict] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.held = threading.Semaphore(0)
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        # http.server polls for shutdown; a short poll keeps tests fast.
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def release(self) -> None:
        self._released.set()

    def _reply(self, path: str, request: dict, authorization: str | None):
        with self._lock:
            self.requests.append(request)
            self.paths.append(path)
            self.authorizations.append(authorization)
            number = len(self.requests)
            scripted = self.scripted.pop(0) if self.scripted else None
        if self._holds(number) and not self._released.is_set():
            self.held.release()
            self._released.wait()
        if scripted is not None:
            return scripted
        in_chat = path.endswith("/chat/completions")
        prompt = request["messages"][-1]["content"] if in_chat else request["prompt"]
        text, finish_reason = answer(prompt)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        body = (chat_body if in_chat else completion_body)(text, finish_reason, usage)
        return 200, {"Content-Type": "application/json"}, body

    def _handler(teacher):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # send headers and body in one packet: two would wait for a delayed acknowledgment

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = teacher._reply(self.path, body, self.headers.get("Authorization"))
                try:
                    if isinstance(reply, bytes):
                        self.close_connection = True
                        self.wfile.write(reply)
                        return
                    status, headers, content = reply
                    if status is None:
                        self.close_connection = True
                        return
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(content))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for byte in content if teacher.drip_s else ():
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(teacher.drip_s)
                    self.wfile.write(b"" if teacher.drip_s else content)
                except OSError:
                    self.close_connection = True  # the client was killed

            def handle(self):
                with contextlib.suppress(OSError):  # the client was killed
                    super().handle()

            def finish(self):
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, *_):
                pass

        return Handler
