"""The loopback teacher in a separate process, which logs each request: `python teacher_process.py LOG LATENCY_S`.

It prints its port. Each line of LOG is the last message of a request, as JSON, written once the request has arrived completely.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.loopback_teacher import answer, chat_body
from tests.helpers.processes import REPOSITORY


async def serve(log, latency_s):
    async def handle(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                prompt = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
                log.write(json.dumps(prompt) + "\n")
                log.flush()
                await asyncio.sleep(latency_s)
                text, finish_reason = answer(prompt)
                usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
                body = chat_body(text, finish_reason, usage)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class TeacherProcess:
    """Context manager that runs the teacher."""

    def __init__(self, log: Path, latency_s: float) -> None:
        self._log, self._latency_s = log, latency_s

    def __enter__(self):
        command = [sys.executable, "-m", "tests.helpers.teacher_process", str(self._log), str(self._latency_s)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        self.base_url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"
        return self

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def prompts(self) -> list[str]:
        """Return all prompts so far, in order."""
        return [json.loads(line) for line in self._log.read_text().split("\n") if line]

    def clear_log(self) -> None:
        self._log.write_text("")


if __name__ == "__main__":
    with open(sys.argv[1], "a") as log, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(log, float(sys.argv[2])))
