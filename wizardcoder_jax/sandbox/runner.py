"""Runs programs in the sandbox: one at a time, or many with a pool of threads."""

import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.sandbox.bubblewrap import Bubblewrap
from wizardcoder_jax.sandbox.inside.confine import BUBBLEWRAP, LANDLOCK, NONE
from wizardcoder_jax.sandbox.interpreter import find
from wizardcoder_jax.sandbox.program import PYTHON, SANDBOX, TIMEOUT, Limits, Program, Verdict, wall_limit_s
from wizardcoder_jax.sandbox.tiers import TIERS, HostTier, landlock_lacks
from wizardcoder_jax.sandbox.toolchains import Toolchain, toolchain
from wizardcoder_jax.sandbox.worker import Lost, Worker

TIER_VARIABLE = "WIZARDCODER_SANDBOX"  # environment variable that names the tier to use
INSTALL_HINT = "install it with `apt-get install bubblewrap`, or accept the risk with --unsafe-no-sandbox"
_REASON = re.compile(r"passed|assertion|syntax|timeout|memory|exit|sandbox|exception:\w{1,80}", re.ASCII)
_NUM_UIDS = 64
_HIGH_UIDS = range(1_879_048_192, 2_147_483_647)  # given to nobody (systemd, "Users, Groups, UIDs and GIDs")
_LOW_UIDS = range(61_184, 65_520)  # for short-lived users, where a container has no higher ones
_PROBE = Program(candidate="def f(): return [1]", test="import json\nassert f() == [1]", entry_point="f")
_PRELOADED = re.compile(r"^[ \t]*(?:from|import)[ \t]+(numpy|pandas|scipy|sklearn|matplotlib)\b", re.M)
_PRELOAD_AS = {"matplotlib": "matplotlib.pyplot"}
_OPEN_AT_A_TIME = 4  # programs handed to the pool for each worker: memory stays bounded however many there are
_Kind = tuple[str | None, str]  # of a worker: (interpreter, language)


class Sandbox:
    """Runs untrusted programs; make one with `Sandbox.open`."""

    def __init__(self, around: HostTier) -> None:
        self.tier = around.tier  # named in results
        self._around = around
        self._uids: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.uids = _free_uids() if around.gives_root_away() else range(0)
        for uid in self.uids or (0,) * _NUM_UIDS:
            self._uids.put(uid)
        self._idle: dict[_Kind, list[Worker]] = {}
        self._running: set[Worker] = set()
        self._stopped = False
        self._lock = threading.Lock()

    @staticmethod
    def open(*, unsafe: bool = False, limits: Limits | None = None, tier: str | None = None) -> "Sandbox":
        """A sandbox that has been seen to work: the first tier of "bubblewrap", "landlock" that does.

        Args:
            unsafe: run programs without isolation.
            limits: what each program may use.
            tier: use this one or none; by default what the environment variable WIZARDCODER_SANDBOX says.

        Raises:
            InputError: programs cannot be isolated here; says what to install.
        """
        tier = tier or os.environ.get(TIER_VARIABLE) or None
        if tier is not None and tier not in TIERS[:2]:
            raise InputError(f"{TIER_VARIABLE}={tier}: no such tier; there are {' and '.join(TIERS[:2])}")
        reasons: list[str] = []
        for name in (NONE,) if unsafe else TIERS[:2] if tier is None else (tier,):
            try:
                return _opened(name, limits or Limits())
            except InputError as error:
                reasons.append(str(error))
        if unsafe:
            raise InputError(f"programs cannot be run here ({reasons[0]}); check the Python installation")
        raise InputError(f"programs cannot be isolated: {'; '.join(reasons)}; {INSTALL_HINT}")

    def run(self, program: Program, timeout_s: float) -> Verdict:
        """Runs one program.

        Args:
            program: candidate and test.
            timeout_s: CPU seconds it may take, the test included; `wall_limit_s` of it is the wall-clock limit.

        Raises:
            InputError: its interpreter or toolchain is not there.
        """
        start = time.monotonic()
        tools = None if program.language == PYTHON else toolchain(program.language)
        whole = program.entry_point is None or tools is not None
        said = self._attempt(program, timeout_s, tools, whole)
        if said.get("cannot_cross"):
            whole, said = True, self._attempt(program, timeout_s, tools, True)
        reason, detail = said["reason"], " ".join(str(said["detail"]).split())
        if not _REASON.fullmatch(reason):
            reason = "exception:" + (re.sub(r"\W", "_", reason.removeprefix("exception:"), flags=re.ASCII)[:80] or "unnamed")
        return Verdict(reason=reason, detail=detail, seconds=round(time.monotonic() - start, 3), forgeable=whole)

    def _attempt(self, program: Program, timeout_s: float, tools: Toolchain | None, whole: bool) -> dict[str, Any]:
        kind = (program.python, program.language)
        job = self._job(program, timeout_s, tools)
        header: dict[str, Any] = {"mode": "whole"}
        if tools is not None:
            header = {"mode": "commands", **tools.steps()}
        elif not whole:
            header = {"mode": "split", "names": [str(program.entry_point), *program.helpers]}
        joined = "\n" if whole and tools is None else ""
        sources = [text.encode("utf-8", "surrogatepass") for text in (program.candidate, joined + program.test)]
        for attempt in range(2):  # a zygote that died since its last job is replaced
            try:
                return self._with_worker(kind, tools, job, header, sources)
            except Lost as error:
                lost = str(error)
            except OSError as error:
                lost = f"could not be started: {error}"
            if self._stopped or attempt:
                break
        return {"reason": SANDBOX, "detail": lost}

    def _job(self, program: Program, timeout_s: float, tools: Toolchain | None) -> dict[str, Any]:
        limits = self._around.limits
        found = dict.fromkeys(_PRELOADED.findall(program.candidate + "\n" + program.test)) if tools is None else {}
        return {
            "cpu_s": timeout_s if tools is None else timeout_s * tools.slowness,
            "wall_s": wall_limit_s(timeout_s if tools is None else timeout_s * tools.slowness),
            "num_processes": limits.num_processes if tools is None else limits.num_processes * 4,
            "limit_address_space": tools is None,
            "imports": [_PRELOAD_AS.get(name, name) for name in found],
        }

    def _with_worker(
        self, kind: _Kind, tools: Toolchain | None, job: dict[str, Any], header: dict[str, Any], sources: list[bytes]
    ) -> dict[str, Any]:
        uid = self._uids.get()
        try:
            worker = self._worker(kind, tools)
            try:
                said = worker.run({**job, "uid": uid}, header, *sources)
            except BaseException:
                self._running.discard(worker)
                worker.close()
                raise
            with self._lock:
                self._running.discard(worker)
                keep = not self._stopped
                if keep:
                    self._idle.setdefault(kind, []).append(worker)
            if not keep:
                worker.close()
            return said
        finally:
            self._uids.put(uid)

    def _worker(self, kind: _Kind, tools: Toolchain | None) -> Worker:
        """An idle worker of that kind, or a new one."""
        interpreter, more = find(kind[0]), tools.folders if tools else ()
        with self._lock:
            if self._stopped:
                raise Lost("stopped")
            idle = self._idle.get(kind)
            worker = idle.pop() if idle else None
            if worker is not None:
                self._running.add(worker)
                return worker
        worker = Worker(lambda fd: self._around.command(interpreter, fd, more), self._around.environment())
        with self._lock:
            self._running.add(worker)
            if self._stopped:
                worker.kill()
        return worker

    def run_all(
        self, programs: Sequence[Program], timeout_s: float, num_workers: int, doubted: Collection[str] = ()
    ) -> Iterator[tuple[int, Verdict]]:
        """Runs programs side by side and yields (index, verdict) as they end.

        A timeout (or a sandbox that failed) beside other programs is not believed: such programs run again at the end,
        alone, and only that verdict counts.

        Args:
            programs: what runs.
            timeout_s: see `run`.
            num_workers: how many run at once.
            doubted: further reasons that are not believed beside other programs.

        Raises:
            InputError: an interpreter or a toolchain is not there; nothing has run then.
        """
        for python, language in dict.fromkeys((program.python, program.language) for program in programs):
            find(python)
            if language != PYTHON:
                toolchain(language)
        doubtful: list[int] = []
        executor = ThreadPoolExecutor(max_workers=num_workers)
        try:
            for index, verdict in self._in_parallel(executor, programs, timeout_s, num_workers):
                if verdict.reason in (TIMEOUT, SANDBOX, *doubted) and num_workers > 1:
                    doubtful.append(index)
                else:
                    yield index, verdict
        except BaseException:  # the caller stops early, or Ctrl-C: nothing stays behind
            self.stop()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
        for index in sorted(doubtful):
            yield index, self.run(programs[index], timeout_s)

    def _in_parallel(
        self, executor: ThreadPoolExecutor, programs: Sequence[Program], timeout_s: float, num_workers: int
    ) -> Iterator[tuple[int, Verdict]]:
        waiting = iter(enumerate(programs))
        pending: dict[Future[Verdict], int] = {}
        while True:
            while len(pending) < num_workers * _OPEN_AT_A_TIME and (following := next(waiting, None)) is not None:
                index, program = following
                pending[executor.submit(self.run, program, timeout_s)] = index
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                yield pending.pop(future), future.result()

    def stop(self) -> None:
        """Ends whatever is running, and every zygote; this sandbox runs nothing any more."""
        with self._lock:
            self._stopped = True
            idle = [worker for workers in self._idle.values() for worker in workers]
            self._idle.clear()
            for worker in self._running:
                worker.kill()
        for worker in idle:
            worker.close()


def _free_uids() -> range:
    """User ids that no other process has: one for each program that runs at the same time."""
    with open("/proc/self/uid_map") as file:
        inside, _, size = map(int, file.readline().split())
    space = _HIGH_UIDS if inside + size > _HIGH_UIDS[-1] else _LOW_UIDS
    first = space[secrets.randbelow(len(space) - _NUM_UIDS)]
    return range(first, first + _NUM_UIDS)


def _opened(tier: str, limits: Limits) -> Sandbox:
    """A sandbox of that tier.

    Raises:
        InputError: it does not work here; says why.
    """
    if tier == LANDLOCK and (lack := landlock_lacks()):
        raise InputError(lack)
    sandbox = Sandbox(HostTier(tier=tier, bubblewrap=Bubblewrap.find() if tier == BUBBLEWRAP else None, limits=limits))
    verdict = sandbox.run(_PROBE, timeout_s=10.0)
    if not verdict.passed:
        sandbox.stop()
        raise InputError(f"{tier} does not work here ({verdict.reason}: {verdict.detail})")
    return sandbox
