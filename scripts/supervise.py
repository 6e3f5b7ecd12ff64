"""Runs a command as several processes of one run on this machine, and starts them again when one of them ends early.

    python scripts/supervise.py --processes 2 -- python -m wizardcoder_jax.train --mesh 2x1 ...

Each process is given JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. When one fails or is stopped, the others
are ended too and all are started again: the command resumes by itself, from its last checkpoint, and may do so with another
number of processes. Not started again: after bad input (status 2, which is passed on), and after --max-restarts failures in
a row of less than --healthy-s seconds each. SIGTERM and Ctrl-C are passed on; the status is then 75.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

EXIT_BAD_INPUT, EXIT_RESUMABLE = 2, 75
GRACE_S = 60  # from SIGTERM to SIGKILL: a process may be saving
LONGEST_PAUSE_S = 60.0


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list[str], num_processes: int) -> list[subprocess.Popen[bytes]]:
    """All processes of one run, in groups of their own, so that a Ctrl-C reaches them through us alone."""
    shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(num_processes)}
    environments = ({**os.environ, **shared, "JAX_PROCESS_ID": str(i)} for i in range(num_processes))
    return [subprocess.Popen(command, env=environment, process_group=0) for environment in environments]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Asks what still runs to stop, and kills it where it does not."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(processes: list[subprocess.Popen[bytes]], asked: list[int]) -> int:
    """Waits until all are done or one is not well, ends the others, and returns the first status that is not 0."""
    while not asked and any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            break
        time.sleep(0.2)
    first_bad = next((process.returncode for process in processes if process.poll()), 0)
    end(processes)
    return first_bad


def supervise(command: list[str], num_processes: int, max_restarts: int, healthy_s: float) -> int:
    """Runs the command to its end; returns the exit status."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    failures = 0
    while True:
        began = time.monotonic()
        status = watch(start(command, num_processes), asked)
        if asked:
            return EXIT_RESUMABLE
        if status in (0, EXIT_BAD_INPUT):
            return status
        failures = 1 if time.monotonic() - began >= healthy_s else failures + 1
        if failures > max_restarts:
            print(f"supervise: {failures} failures in a row, the last with status {status}; gave up", file=sys.stderr)
            return 1
        pause_s = min(2.0 ** (failures - 1), LONGEST_PAUSE_S)
        print(f"supervise: a process ended with status {status}; all start again in {pause_s:.0f} s", file=sys.stderr)
        time.sleep(pause_s)
        if asked:
            return EXIT_RESUMABLE


def main() -> None:
    """Parses the arguments and supervises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="of the run")
    parser.add_argument("--max-restarts", type=int, default=5, help="failures in a row before giving up")
    parser.add_argument("--healthy-s", type=float, default=300.0, help="a run of so many seconds was no failure to start")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="after --")
    arguments = parser.parse_args()
    command = arguments.command[arguments.command[:1] == ["--"] :]
    if not command or arguments.processes < 1:
        parser.error("give --processes N and, after --, the command")
    sys.exit(supervise(command, arguments.processes, arguments.max_restarts, arguments.healthy_s))


if __name__ == "__main__":
    main()
