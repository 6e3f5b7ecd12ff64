"""The zygote, the process from which jobs are forked: it imports what programs often need, and never reads a program.

It is started with the descriptor of its control socket and its settings as JSON. Each message on the socket contains the
settings of one job and the connection for the job's tester. The zygote then watches the job from outside, kills it if it
reaches a limit, kills every process that is left, and replies {}, or {"reason", "detail"} if it had to end the job.
"""

import _sitebuiltins
import builtins
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from typing import Any

from . import resource_usage, tester
from .channel import warm_up
from .confine import BUBBLEWRAP, NONE, Job, ZygoteConfig, adopt_orphans, kill_all_of, prepare

OFTEN_NEEDED = (
    *("abc", "array", "ast", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json", "math"),
    *("numbers", "operator", "queue", "random", "re", "statistics", "string", "struct", "textwrap", "threading", "typing"),
    *("unicodedata", "warnings"),
)
_FIRST_CHECK_S, _MAX_PAUSE_S, _DISK_CHECK_INTERVAL = 0.03, 0.05, 5
_KILL_WAIT_S = 10.0  # seconds to wait for killed processes to disappear


def main(control_fd: int, config_json: str) -> None:
    """Run a job for each message, until the control socket is closed."""
    control = socket.socket(fileno=control_fd)
    config = ZygoteConfig(**{**(fields := json.loads(config_json)), "readable": tuple(fields["readable"])})
    if config.tier != BUBBLEWRAP:
        adopt_orphans()
    for name in OFTEN_NEEDED:
        importlib.import_module(name)
    if config.tier != NONE:
        prepare(config)
    for name in ("exit", "quit"):  # the module site, which usually defines these, is not imported
        setattr(builtins, name, _sitebuiltins.Quitter(name, ""))
    warm_up()
    gc.collect()
    gc.freeze()  # keeps garbage collection in forked processes from copying these pages
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        settings = json.loads(message)
        job = Job(**{**settings, "imports": tuple(settings["imports"])})
        with socket.socket(fileno=fds[0]) as connection:
            reply = _run(control, connection, config, job)
        try:
            control.send(json.dumps(reply).encode())
        except OSError:
            return


def _run(control: socket.socket, connection: socket.socket, config: ZygoteConfig, job: Job) -> dict[str, Any]:
    _import_libraries(job.imports)
    folder = "/tmp"
    if config.tier != BUBBLEWRAP:
        folder = tempfile.mkdtemp(prefix="sandbox-", dir=os.environ["SANDBOX_FOLDER"])
        if job.uid:
            os.chown(folder, job.uid, job.uid)
    exit_read, exit_write = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        return {"reason": "sandbox", "detail": f"the tester cannot be forked: {error}"}
    if pid == 0:
        try:
            control.close()
            os.close(exit_read)
            tester.run(connection, config, job, folder)
        finally:
            os._exit(1)
    os.close(exit_write)
    connection.close()
    try:
        return _watch(control, exit_read, config, job, folder)
    finally:
        os.close(exit_read)
        _kill_all(config, job)
        if config.tier != BUBBLEWRAP:
            _remove(folder)


def _import_libraries(names: tuple[str, ...]) -> None:
    """Import libraries that this job and later ones use; skip a missing library, whose import fails in the program too."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
            gc.collect()
            gc.freeze()


def _watch(control: socket.socket, exit_read: int, config: ZygoteConfig, job: Job, folder: str) -> dict[str, Any]:
    """Wait until the tester exits, which closes its end of the pipe, or the job reaches a limit."""
    deadline, pause, num_checks = time.monotonic() + job.wall_s, _FIRST_CHECK_S, 0
    while True:
        ready = select.select([exit_read, control], [], [], pause)[0]
        if exit_read in ready:
            return {}
        if control in ready:  # no message is sent to a busy zygote, so the other side has disconnected
            return {"reason": "sandbox", "detail": "stopped"}
        pause, num_checks = min(_MAX_PAUSE_S, pause * 1.5), num_checks + 1
        pids = resource_usage.other_processes() if config.tier == BUBBLEWRAP else resource_usage.descendants()
        cpu_s, resident = resource_usage.cpu_and_resident(pids)
        if cpu_s > job.cpu_s:
            return {"reason": "timeout", "detail": "CPU limit"}
        if resident > config.memory_bytes and resource_usage.proportional_bytes(pids) > config.memory_bytes:
            return {"reason": "memory", "detail": "all processes together"}
        if config.tier != BUBBLEWRAP and num_checks % _DISK_CHECK_INTERVAL == 0:
            if resource_usage.disk_bytes(folder, config.tmp_bytes) > config.tmp_bytes:
                return {"reason": "memory", "detail": "files of the work folder"}
            if config.tier != NONE and not job.uid and len(pids) > 2 * job.num_processes:
                return {"reason": "exit", "detail": "too many processes"}
        if time.monotonic() > deadline:
            return {"reason": "timeout", "detail": "wall-clock limit"}


def _kill_all(config: ZygoteConfig, job: Job) -> None:
    """Kill every process of the job and wait for them to disappear.

    Raises:
        TimeoutError: a process of the job does not end.
    """
    if config.tier == BUBBLEWRAP:
        with contextlib.suppress(ProcessLookupError):
            # Kills every process in this namespace and in those below it, except the first one, which is this process.
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    deadline, is_retry = time.monotonic() + _KILL_WAIT_S, False
    while time.monotonic() < deadline:
        for pid in resource_usage.descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if is_retry and job.uid:  # the job may fork faster than its processes are found
            kill_all_of(job.uid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.0005)
        is_retry = True
    raise TimeoutError("a process of the job does not end")


def _remove(folder: str) -> None:
    """Remove a work folder, however deep and whatever its file modes."""
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # most work folders are empty
    for command in (["rm", "-rf", folder], ["chmod", "-R", "u+rwX", folder], ["rm", "-rf", folder]):
        if os.path.lexists(folder):
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def start(control_fd: int, config_json: str) -> None:
    """Run `main`; if it fails, print a traceback to standard error and exit with status 1."""
    try:
        main(control_fd, config_json)
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
