"""The sandbox: opens the safest tier that works on this host and runs one program at a time in it."""

import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterable
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import PYTHON, Program
from wizardcoder_jax.sandbox.bubblewrap import Bubblewrap
from wizardcoder_jax.sandbox.inside.confine import BUBBLEWRAP, LANDLOCK, NONE
from wizardcoder_jax.sandbox.interpreter import find_interpreter
from wizardcoder_jax.sandbox.limits import Limits, wall_limit_s
from wizardcoder_jax.sandbox.tiers import TIERS, HostTier, missing_for_landlock
from wizardcoder_jax.sandbox.toolchains import Toolchain, toolchain
from wizardcoder_jax.sandbox.verdict import SANDBOX, Verdict
from wizardcoder_jax.sandbox.worker import Worker, WorkerLostError

TIER_VARIABLE = "WIZARDCODER_SANDBOX"  # environment variable that names the tier to use
INSTALL_HINT = "install it with `apt-get install bubblewrap`, or accept the risk with --unsafe-no-sandbox"
_REASON = re.compile(r"passed|assertion|syntax|timeout|memory|exit|sandbox|exception:\w{1,80}", re.ASCII)
_NUM_UIDS = 64
_HIGH_UIDS = range(1_879_048_192, 2_147_483_647)  # unassigned user ids; source: systemd, "Users, Groups, UIDs and GIDs"
_LOW_UIDS = range(61_184, 65_520)  # user ids of short-lived users; used in containers that map no higher ids
_PROBE = Program(candidate="def f(): return [1]", test="import json\nassert f() == [1]", entry_point="f")
_PRELOADED = re.compile(r"^[ \t]*(?:from|import)[ \t]+(numpy|pandas|scipy|sklearn|matplotlib)\b", re.M)
_PRELOAD_AS = {"matplotlib": "matplotlib.pyplot"}
_WorkerKind = tuple[str | None, str]  # (path of the interpreter, language); a worker only runs programs of one kind


class Sandbox:
    """Runs untrusted programs; `run` may be called from several threads. Create one with `Sandbox.open`."""

    def __init__(self, host_tier: HostTier) -> None:
        self.tier = host_tier.tier  # name of the tier, which the results record
        self._host_tier = host_tier
        self._free_uids: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.uids = _unused_uids() if host_tier.uses_own_uids() else range(0)
        for uid in self.uids or (0,) * _NUM_UIDS:
            self._free_uids.put(uid)
        self._idle: dict[_WorkerKind, list[Worker]] = {}
        self._running: set[Worker] = set()
        self._stopped = False
        self._lock = threading.Lock()

    @staticmethod
    def open(*, unsafe: bool = False, limits: Limits | None = None, tier: str | None = None) -> "Sandbox":
        """Open the first tier of "bubblewrap" and "landlock" in which a probe program passes.

        Args:
            unsafe: whether to run programs without isolation.
            limits: the resources that each program may use.
            tier: the only tier to try; by default the value of the environment variable WIZARDCODER_SANDBOX.

        Raises:
            InputError: programs cannot be isolated on this host; the message says what to install.
        """
        tier = tier or os.environ.get(TIER_VARIABLE) or None
        if tier is not None and tier not in TIERS[:2]:
            raise InputError(f"unknown tier {TIER_VARIABLE}={tier}; choose {' or '.join(TIERS[:2])}")
        reasons: list[str] = []
        for name in (NONE,) if unsafe else TIERS[:2] if tier is None else (tier,):
            try:
                return _open_tier(name, limits or Limits())
            except InputError as error:
                reasons.append(str(error))
        if unsafe:
            raise InputError(f"programs cannot be run here ({reasons[0]}); check the Python installation")
        raise InputError(f"programs cannot be isolated: {'; '.join(reasons)}; {INSTALL_HINT}")

    def check_tools(self, programs: Iterable[Program]) -> None:
        """Check that every interpreter and toolchain that the programs need is installed.

        Raises:
            InputError: an interpreter or toolchain is missing.
        """
        for python, language in dict.fromkeys((program.python, program.language) for program in programs):
            find_interpreter(python)
            if language != PYTHON:
                toolchain(language)

    def run(self, program: Program, timeout_s: float) -> Verdict:
        """Run one program and return its verdict.

        Args:
            program: the candidate and its test.
            timeout_s: CPU seconds for candidate and test together; `wall_limit_s` derives the wall-clock limit from it.

        Raises:
            InputError: the interpreter or toolchain of the program is missing.
        """
        start = time.monotonic()
        tools = None if program.language == PYTHON else toolchain(program.language)
        is_whole = program.entry_point is None or tools is not None
        reply = self._attempt(program, timeout_s, tools, is_whole)
        if reply.get("cannot_cross"):
            is_whole, reply = True, self._attempt(program, timeout_s, tools, True)
        reason, detail = reply["reason"], " ".join(str(reply["detail"]).split())
        if not _REASON.fullmatch(reason):
            reason = "exception:" + (re.sub(r"\W", "_", reason.removeprefix("exception:"), flags=re.ASCII)[:80] or "unnamed")
        return Verdict(reason=reason, detail=detail, seconds=round(time.monotonic() - start, 3), forgeable=is_whole)

    def stop(self) -> None:
        """Kill the running programs and all zygotes; the sandbox cannot be used afterwards."""
        with self._lock:
            self._stopped = True
            idle = [worker for workers in self._idle.values() for worker in workers]
            self._idle.clear()
            for worker in self._running:
                worker.kill()
        for worker in idle:
            worker.close()

    def _attempt(self, program: Program, timeout_s: float, tools: Toolchain | None, is_whole: bool) -> dict[str, Any]:
        """Run a program and return the tester's reply; if `is_whole`, candidate and test run as one source file."""
        kind = (program.python, program.language)
        job = self._job(program, timeout_s, tools)
        header: dict[str, Any] = {"mode": "whole"}
        if tools is not None:
            header = {"mode": "commands", **tools.steps()}
        elif not is_whole:
            header = {"mode": "split", "names": [str(program.entry_point), *program.helpers]}
        separator = "\n" if is_whole and tools is None else ""
        sources = [text.encode("utf-8", "surrogatepass") for text in (program.candidate, separator + program.test)]
        for attempt in range(2):  # a zygote that has died since its last job is replaced, once
            try:
                return self._run_in_worker(kind, tools, job, header, sources)
            except WorkerLostError as error:
                problem = str(error)
            except OSError as error:
                problem = f"the zygote could not be started: {error}"
            if self._stopped or attempt:
                break
        return {"reason": SANDBOX, "detail": problem}

    def _job(self, program: Program, timeout_s: float, tools: Toolchain | None) -> dict[str, Any]:
        """Return the fields of inside.confine.Job, except `uid`."""
        limits = self._host_tier.limits
        found = dict.fromkeys(_PRELOADED.findall(program.candidate + "\n" + program.test)) if tools is None else {}
        return {
            "cpu_s": timeout_s if tools is None else timeout_s * tools.slowness,
            "wall_s": wall_limit_s(timeout_s if tools is None else timeout_s * tools.slowness),
            "num_processes": limits.num_processes if tools is None else limits.num_processes * 4,
            "limit_address_space": tools is None,
            "imports": [_PRELOAD_AS.get(name, name) for name in found],
        }

    def _run_in_worker(
        self, kind: _WorkerKind, tools: Toolchain | None, job: dict[str, Any], header: dict[str, Any], sources: list[bytes]
    ) -> dict[str, Any]:
        uid = self._free_uids.get()
        try:
            worker = self._take_worker(kind, tools)
            try:
                reply = worker.run({**job, "uid": uid}, header, *sources)
            except BaseException:
                self._running.discard(worker)
                worker.close()
                raise
            with self._lock:
                self._running.discard(worker)
                is_kept = not self._stopped
                if is_kept:
                    self._idle.setdefault(kind, []).append(worker)
            if not is_kept:
                worker.close()
            return reply
        finally:
            self._free_uids.put(uid)

    def _take_worker(self, kind: _WorkerKind, tools: Toolchain | None) -> Worker:
        """Return an idle worker for this kind of program, or start a new one."""
        interpreter, tool_folders = find_interpreter(kind[0]), tools.folders if tools else ()
        with self._lock:
            if self._stopped:
                raise WorkerLostError("the sandbox is stopped")
            idle = self._idle.get(kind)
            worker = idle.pop() if idle else None
            if worker is not None:
                self._running.add(worker)
                return worker
        host_tier = self._host_tier
        worker = Worker(lambda fd: host_tier.zygote_command(interpreter, fd, tool_folders), host_tier.environment())
        with self._lock:
            self._running.add(worker)
            if self._stopped:
                worker.kill()
        return worker


def _unused_uids() -> range:
    """Return user ids that no other process has, one for each program that can run concurrently."""
    with open("/proc/self/uid_map") as file:
        inside, _, size = map(int, file.readline().split())
    candidates = _HIGH_UIDS if inside + size > _HIGH_UIDS[-1] else _LOW_UIDS
    first = candidates[secrets.randbelow(len(candidates) - _NUM_UIDS)]
    return range(first, first + _NUM_UIDS)


def _open_tier(tier: str, limits: Limits) -> Sandbox:
    """Open a sandbox of one tier.

    Raises:
        InputError: the tier does not work on this host; the message says why.
    """
    if tier == LANDLOCK and (missing := missing_for_landlock()):
        raise InputError(missing)
    sandbox = Sandbox(HostTier(tier=tier, bubblewrap=Bubblewrap.find() if tier == BUBBLEWRAP else None, limits=limits))
    verdict = sandbox.run(_PROBE, timeout_s=10.0)
    if not verdict.passed:
        sandbox.stop()
        raise InputError(f"{tier} does not work here ({verdict.reason}: {verdict.detail})")
    return sandbox
