"""The process that jobs are forked from: it has loaded what programs often need, and never reads a job.

Started with the number of its control socket and its place as JSON. Each message there is one job's settings, and brings the
job's connection, which is for the tester. The zygote then watches the job from outside, ends it at its limits, ends all that
it left behind, and answers {} or {"reason", "detail"}.
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
from .confine import BUBBLEWRAP, NONE, Job, Place, adopt_orphans, kill_all_of, prepare

OFTEN_NEEDED = (
    *("abc", "array", "ast", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime"),
    *("decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json", "math"),
    *("numbers", "operator", "queue", "random", "re", "statistics", "string", "struct", "textwrap", "threading", "typing"),
    *("unicodedata", "warnings"),
)
_FIRST_LOOK_S, _LONGEST_PAUSE_S, _DISK_EVERY = 0.03, 0.05, 5
_MOMENT_S = 10.0  # for what is killed to be gone


def main(control_fd: int, described: str) -> None:
    """Forks a tester for each message until the control socket closes."""
    control = socket.socket(fileno=control_fd)
    place = Place(**{**(given := json.loads(described)), "readable": tuple(given["readable"])})
    if place.tier != BUBBLEWRAP:
        adopt_orphans()
    for name in OFTEN_NEEDED:
        importlib.import_module(name)
    if place.tier != NONE:
        prepare(place)
    for name in ("exit", "quit"):  # as the module site does
        setattr(builtins, name, _sitebuiltins.Quitter(name, ""))
    warm_up()
    gc.collect()
    gc.freeze()  # collections in forked processes then leave these pages shared
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        settings = json.loads(message)
        job = Job(**{**settings, "imports": tuple(settings["imports"])})
        with socket.socket(fileno=fds[0]) as connection:
            reply = _run(control, connection, place, job)
        try:
            control.send(json.dumps(reply).encode())
        except OSError:
            return


def _run(control: socket.socket, connection: socket.socket, place: Place, job: Job) -> dict[str, Any]:
    _load(job.imports)
    folder = "/tmp"
    if place.tier != BUBBLEWRAP:
        folder = tempfile.mkdtemp(prefix="sandbox-", dir=os.environ["SANDBOX_FOLDER"])
        if job.uid:
            os.chown(folder, job.uid, job.uid)
    ended, ending = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        return {"reason": "sandbox", "detail": f"no process could be made: {error}"}
    if pid == 0:
        try:
            control.close()
            os.close(ended)
            tester.run(connection, place, job, folder)
        finally:
            os._exit(1)
    os.close(ending)
    connection.close()
    try:
        return _watch(control, ended, place, job, folder)
    finally:
        os.close(ended)
        _end_all(place, job)
        if place.tier != BUBBLEWRAP:
            _remove(folder)


def _load(names: tuple[str, ...]) -> None:
    """Libraries that this and later jobs want; one that is not there is the program's business."""
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
            gc.collect()
            gc.freeze()


def _watch(control: socket.socket, ended: int, place: Place, job: Job, folder: str) -> dict[str, Any]:
    """Waits until the tester ends (its end of the pipe closes), or the job reaches a limit."""
    deadline, pause, looks = time.monotonic() + job.wall_s, _FIRST_LOOK_S, 0
    while True:
        ready = select.select([ended, control], [], [], pause)[0]
        if ended in ready:
            return {}
        if control in ready:  # nothing is asked of a busy zygote: the other side is gone
            return {"reason": "sandbox", "detail": "stopped"}
        pause, looks = min(_LONGEST_PAUSE_S, pause * 1.5), looks + 1
        pids = resource_usage.others() if place.tier == BUBBLEWRAP else resource_usage.descendants()
        cpu_s, resident = resource_usage.cpu_and_resident(pids)
        if cpu_s > job.cpu_s:
            return {"reason": "timeout", "detail": "CPU limit"}
        if resident > place.memory_bytes and resource_usage.proportional(pids) > place.memory_bytes:
            return {"reason": "memory", "detail": "all processes together"}
        if place.tier != BUBBLEWRAP and looks % _DISK_EVERY == 0:
            if resource_usage.disk(folder, place.tmp_bytes) > place.tmp_bytes:
                return {"reason": "memory", "detail": "files of the work folder"}
            if place.tier != NONE and not job.uid and len(pids) > 2 * job.num_processes:
                return {"reason": "exit", "detail": "too many processes"}
        if time.monotonic() > deadline:
            return {"reason": "timeout", "detail": "wall-clock limit"}


def _end_all(place: Place, job: Job) -> None:
    """Ends every process of the job, and waits until it is gone.

    Raises:
        TimeoutError: one does not go.
    """
    if place.tier == BUBBLEWRAP:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all of this namespace, and of those in it; the first process is spared
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
    deadline, again = time.monotonic() + _MOMENT_S, False
    while time.monotonic() < deadline:
        for pid in resource_usage.descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if again and job.uid:  # one that forks faster than it is found
            kill_all_of(job.uid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.0005)
        again = True
    raise TimeoutError("a process of the job does not end")


def _remove(folder: str) -> None:
    """Removes a work folder whatever its modes and depth."""
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # most are empty
    for command in (["rm", "-rf", folder], ["chmod", "-R", "u+rwX", folder], ["rm", "-rf", folder]):
        if os.path.lexists(folder):
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def start(control_fd: int, described: str) -> None:
    """As main, but says on standard error why it ended, if not for the other side's going."""
    try:
        main(control_fd, described)
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None
