"""Performance of `evolve`: utilization of the teacher, CPU time per call, and memory by number of seeds.

    python scripts/bench/evolve.py                          (2,000 seeds, 3 rounds, 256 in flight, 300 ms per call)
    python scripts/bench/evolve.py --memory                 (20,000 and 100,000 seeds, 1 round, a teacher without latency)

The teacher is a separate process on the loopback interface that answers every call after the latency. It measures the mean
number of requests in flight between the first and the last request; utilization is this mean divided by the maximum that evolve
may have in flight. Memory is measured without lineage.html. Its writer needs a bounded amount: 467 MB at 100,000 seeds and 483
MB at 200,000.

Results of three runs on 2 cores shared with other work (load 3 to 4): utilization 92.9, 95.3 and 94.2 %; 0.49, 0.52 and 0.48 ms
of CPU time per call in total (start, requests, ledger, rules, statistics, pages). Memory: 62 MB at 20,000 seeds, 63 MB at
100,000; only the set of seen ids grows, by 78 bytes per seed (102 MB for a file of 1,000,000).
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
INSTRUCTION_CHARS, ANSWER_CHARS = 500, 1200  # typical lengths of gpt-3.5's evolutions of Code Alpaca


class Teacher(asyncio.Protocol):
    """Server side of one connection. It answers after the latency, and counts requests in flight over all connections."""

    latency_s = 0.0
    num_calls = in_flight = most = 0
    busy_s = changed_s = first_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is complete."""
        self._received += data
        head, mark, body = self._received.partition(b"\r\n\r\n")
        if not mark or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        self._received = b""
        self._count(1)
        Teacher.num_calls += 1
        if self.latency_s:
            asyncio.get_running_loop().call_later(self.latency_s, self._answer, body)
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        self._count(-1)
        if not self._transport.is_closing():
            self._transport.write(response(body))

    @classmethod
    def _count(cls, change: int) -> None:
        now = time.monotonic()
        cls.first_s = cls.first_s or now
        cls.busy_s += cls.in_flight * (now - (cls.changed_s or now))
        cls.changed_s, cls.in_flight = now, cls.in_flight + change
        cls.most = max(cls.most, cls.in_flight)


def response(body: bytes) -> bytes:
    """Return the HTTP response to a request: an evolution, a verdict or an answer, different for each request body."""
    digest = hashlib.sha256(body).hexdigest()
    if b"Please increase the difficulty" in body:
        text = f"Write function {digest}. ".ljust(INSTRUCTION_CHARS, "x")
    elif b"Here are two Instructions" in body:
        text = "Not Equal"
    else:
        text = f"def f():\\n    return '{digest}'".ljust(ANSWER_CHARS, "y")
    usage = f'{{"prompt_tokens": {len(body) // 4}, "completion_tokens": {len(text) // 4}}}'
    message = f'{{"index": 0, "message": {{"role": "assistant", "content": "{text}"}}, "finish_reason": "stop"}}'
    content = f'{{"model": "loopback", "choices": [{message}], "usage": {usage}}}'.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content


async def serve(latency_s: float) -> None:
    """Print the port, serve until stdin is closed, and print the measurements."""
    Teacher.latency_s = latency_s
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Teacher, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    wall_s = Teacher.changed_s - Teacher.first_s
    measured = {"num_calls": Teacher.num_calls, "most_in_flight": Teacher.most, "wall_s": wall_s}
    print(json.dumps({**measured, "mean_in_flight": Teacher.busy_s / max(wall_s, 1e-9), "cpu_s": time.process_time()}))


def run(num_seeds: int, rounds: int, concurrency: int, latency_s: float, *more: str) -> dict[str, float]:
    """Run evolve once, and return the measurements of the teacher and the operating system."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds.jsonl"
        with seeds.open("w") as file:
            for i in range(num_seeds):
                file.write(json.dumps({"instruction": f"Write function number {i}. " + "x" * 80, "output": "y" * 200}) + "\n")
        command = [sys.executable, __file__, "--serve", str(latency_s)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None and server.stdout is not None
            port = int(server.stdout.readline())
            named = ["--seeds", str(seeds), "--output-dir", f"{folder}/out", "--rounds", str(rounds)]
            named += ["--teacher.base-url", f"http://127.0.0.1:{port}/v1", "--teacher.concurrency", str(concurrency)]
            began = time.monotonic()
            evolve = subprocess.Popen([sys.executable, "-m", "wizardcoder_jax.evolve", *named, *more], cwd=REPOSITORY)
            _, status, usage = os.wait4(evolve.pid, 0)
            evolve.returncode = os.waitstatus_to_exitcode(status)
            if evolve.returncode:
                sys.exit(f"evolve failed with status {evolve.returncode}")
            wall_s = time.monotonic() - began
            server.stdin.close()
            measured = json.loads(server.stdout.readline())
    cpu_s = usage.ru_utime + usage.ru_stime
    return {**measured, "evolve_wall_s": wall_s, "evolve_cpu_s": cpu_s, "peak_bytes": usage.ru_maxrss * 1024}


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-s", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="measure the growth of memory instead")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(args.serve))
        return
    if args.memory:
        few, many = 20_000, 100_000
        more = ("--no-lineage", "--no-judge-information-gain")
        peaks = [run(number, 1, args.concurrency, 0.0, *more)["peak_bytes"] for number in (few, many)]
        growth = (peaks[1] - peaks[0]) / (many - few)
        million = peaks[1] + growth * (1_000_000 - many)
        print(f"peak memory: {peaks[0] / 1e6:.0f} MB at {few:,} seeds, {peaks[1] / 1e6:.0f} MB at {many:,}")
        print(f"{growth:.0f} bytes per seed; 1,000,000 seeds would need {million / 1e9:.2f} GB")
        return
    for _ in range(args.repeats):
        found = run(args.seeds, args.rounds, args.concurrency, args.latency_s)
        print(
            f"{found['num_calls']} calls in {found['wall_s']:.1f} s ({found['num_calls'] / found['wall_s']:.0f} a second), "
            f"{found['mean_in_flight']:.1f} of {args.concurrency} in flight: utilization "
            f"{found['mean_in_flight'] / args.concurrency:.1%}; evolve's CPU time {found['evolve_cpu_s']:.1f} s, "
            f"{1e3 * found['evolve_cpu_s'] / found['num_calls']:.3f} ms per call (the teacher's {found['cpu_s']:.1f} s); "
            f"peak {found['peak_bytes'] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()
