"""Runs Python programs in separate processes: a single one, or several that form one distributed run."""

import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def environment(num_devices=1):
    """Return the environment variables for a program with `num_devices` fake CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={num_devices}"
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


def run_python(*args, num_devices=1, cwd=REPOSITORY, timeout_s=300):
    """Run `python ARGS` and return the completed process, with its output as strings."""
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, env=environment(num_devices), cwd=cwd, capture_output=True, text=True, timeout=timeout_s)


def start_together(num_processes, *args, num_devices=1, only=None, **changes):
    """Start `python ARGS` in several processes of one run, or only those in `only`, each with `num_devices` devices.

    `changes` are added to the environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    run = []
    for i in range(num_processes) if only is None else only:
        named = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(num_processes), "JAX_PROCESS_ID": str(i)}
        env = {**environment(num_devices), **named, **changes}
        command = [sys.executable, *map(str, args)]
        run.append(
            subprocess.Popen(command, env=env, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return run


def run_together(num_processes, *args, num_devices=1, timeout_s=300, **changes):
    """Run `python ARGS` in several processes of one run until all succeed; return the stderr of each."""
    run = start_together(num_processes, *args, num_devices=num_devices, **changes)
    said = [process.communicate(timeout=timeout_s)[1] for process in run]
    assert [process.returncode for process in run] == [0] * num_processes, "\n".join(text[-3000:] for text in said)
    return said
