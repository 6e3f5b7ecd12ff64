"""Runs the evolve command with the loopback teacher: seeds, arguments and outputs."""

import contextlib
import json
import sqlite3
import subprocess
import sys

from tests.helpers.processes import REPOSITORY

KEY = "sk-loopback-0123456789abcdef"
NUM_SEEDS = 24
JSON = {"Content-Type": "application/json"}
OUTPUTS = ("evolved.jsonl", "rejected.jsonl", "data_card.md", "summary.json")


def write_seeds(folder):
    """Write NUM_SEEDS seeds and one duplicate."""
    path = folder / "seeds.jsonl"
    lines = [{"instruction": f"Write function number {i}.", "input": "", "output": f"f{i}"} for i in range(NUM_SEEDS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))
    return path


def arguments(server, seeds, folder, *more, concurrency=4):
    return [
        *("--seeds", str(seeds), "--output-dir", str(folder), "--rounds", "2"),
        *("--teacher.base-url", server.base_url, "--teacher.concurrency", str(concurrency), *more),
    ]


def run_process(*args, **kwargs):
    """Run `python -m wizardcoder_jax.evolve` and wait for it to end."""
    command = [sys.executable, "-m", "wizardcoder_jax.evolve", *map(str, args)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, **kwargs)


START = (
    "import os, signal, sys; signal.signal(signal.SIGINT, {handler}); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


@contextlib.contextmanager
def start_process(*args, ignores_sigint=False):
    """Start `python -m wizardcoder_jax.evolve`, and kill it at the end of the context if it is still running.

    `ignores_sigint` is set explicitly, because background processes of a shell inherit that SIGINT is ignored.
    """
    start = START.format(handler="signal.SIG_IGN" if ignores_sigint else "signal.SIG_DFL")
    command = [sys.executable, "-c", start, "-m", "wizardcoder_jax.evolve", *map(str, args)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_outputs(folder):
    """Return the bytes of all output files except the settings and the ledger."""
    rounds = {path.name: path.read_bytes() for path in (folder / "rounds").iterdir()}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["teacher"]["base_url"].startswith("http://127.0.0.1")
    return {name: (folder / name).read_bytes() for name in OUTPUTS} | rounds


def ledger_totals(folder):
    """Return the number of calls in the ledger, and their cost."""
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        return connection.execute("SELECT COUNT(*), TOTAL(usd) FROM calls").fetchone()
    finally:
        connection.close()


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]
