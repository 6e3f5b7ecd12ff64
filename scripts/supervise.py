"""Run a command as several JAX processes on this machine, and restart all of them when one ends early.

    python scripts/supervise.py --processes 2 -- python -m wizardcoder_jax.train --mesh 2x1 ...

Each process gets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. If one fails or is stopped, the others are
stopped too, and all are restarted; the command resumes from its last checkpoint, which also works with another --processes.
After bad input (exit status 2), this script exits with the same status. It gives up after --max-restarts consecutive runs that
failed within --healthy-s seconds. SIGTERM and Ctrl-C are forwarded; the exit status is then 75.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

EXIT_BAD_INPUT, EXIT_RESUMABLE = 2, 75
GRACE_S = 60  # seconds between SIGTERM and SIGKILL, in which a process can save a checkpoint
MAX_PAUSE_S = 60.0


def free_port() -> int:
    """Return a port that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list[str], num_processes: int) -> list[subprocess.Popen[bytes]]:
    """Start the processes, each in its own process group, so that Ctrl-C reaches them only through this process."""
    shared = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": str(num_processes)}
    environments = ({**os.environ, **shared, "JAX_PROCESS_ID": str(i)} for i in range(num_processes))
    return [subprocess.Popen(command, env=environment, process_group=0) for environment in environments]


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop the processes that are still running, and kill those that do not stop within GRACE_S."""
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


def watch(processes: list[subprocess.Popen[bytes]], signals: list[int]) -> int:
    """Wait until all processes have ended or one fails, stop the others, and return the first nonzero exit status, or 0."""
    while not signals and any(process.poll() is None for process in processes):
        if any(process.poll() for process in processes):
            break
        time.sleep(0.2)
    first_failure = next((process.returncode for process in processes if process.poll()), 0)
    end(processes)
    return first_failure


def supervise(command: list[str], num_processes: int, max_restarts: int, healthy_s: float) -> int:
    """Run the command until it succeeds or must not be restarted, and return the exit status."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: signals.append(number))
    failures = 0
    while True:
        began = time.monotonic()
        status = watch(start(command, num_processes), signals)
        if signals:
            return EXIT_RESUMABLE
        if status in (0, EXIT_BAD_INPUT):
            return status
        failures = 1 if time.monotonic() - began >= healthy_s else failures + 1
        if failures > max_restarts:
            print(f"supervise: giving up after {failures} consecutive failures, the last with status {status}", file=sys.stderr)
            return 1
        pause_s = min(2.0 ** (failures - 1), MAX_PAUSE_S)
        print(f"supervise: a process ended with status {status}; restarting all in {pause_s:.0f} s", file=sys.stderr)
        time.sleep(pause_s)
        if signals:
            return EXIT_RESUMABLE


def main() -> None:
    """Parse the arguments and supervise the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    parser.add_argument("--max-restarts", type=int, default=5, help="consecutive failures before giving up")
    parser.add_argument("--healthy-s", type=float, default=300.0, help="a longer run resets the number of failures")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command, after --")
    arguments = parser.parse_args()
    command = arguments.command[arguments.command[:1] == ["--"] :]
    if not command or arguments.processes < 1:
        parser.error("give --processes N and, after --, the command")
    sys.exit(supervise(command, arguments.processes, arguments.max_restarts, arguments.healthy_s))


if __name__ == "__main__":
    main()
