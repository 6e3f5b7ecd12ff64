"""Runs every attack, or every honest program, in one tier as the present user; prints what happened as JSON.

Arguments: the tier, and "attacks" or "honest". A script of its own, so that it can be started as another user, with a Python
that has nothing but its standard library.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.helpers.attacks import PERSISTENCE, attacks
from tests.helpers.honest_programs import honest_programs
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.limits import Limits
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.sandbox import Sandbox

LIMITS = Limits(memory_bytes=600 << 20, tmp_bytes=64 << 20, num_processes=32)
TIMEOUT_S = 0.6


class Host:
    """What an escape would find: a secret, listeners, a victim; and whether anything came of it."""

    def __init__(self, folder):
        self.folder = folder
        self.secret = os.path.join(folder, "secret")
        with open(self.secret, "w") as file:
            file.write("secret")
        os.chmod(self.secret, 0o644)
        os.environ["SECRET_TOKEN"] = "secret"
        self.abstract = f"x{secrets.token_hex(8)}"  # no digit may follow the \0
        self.heard = []
        self.victim = subprocess.Popen(["sleep", "600"], start_new_session=True)
        unix = os.path.join(folder, "listening")
        self.sockets = [
            self.listener(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            self.listener(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            self.listener(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{self.abstract}"),
            self.listener(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{self.abstract}.dgram"),
            self.listener(socket.AF_UNIX, socket.SOCK_STREAM, unix),
        ]
        os.chmod(unix, 0o777)
        self.names = {
            "SECRET_FILE": self.secret,
            "TEST_FILE": os.path.abspath(__file__),
            "TCP_PORT": str(self.sockets[0].getsockname()[1]),
            "UDP_PORT": str(self.sockets[1].getsockname()[1]),
            "ABSTRACT": self.abstract,
            "SOCKET_PATH": unix,
            "VICTIM_PID": str(self.victim.pid),
            "RUNNER_PID": str(os.getpid()),
            "RUNNER_UID": str(os.getuid()),
        }
        self.before = self.state()

    def listener(self, family, kind, address):
        made = socket.socket(family, kind)
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen()
        threading.Thread(target=self.listen, args=(made, kind), daemon=True).start()
        return made

    def listen(self, made, kind):
        with contextlib.suppress(OSError):
            if kind == socket.SOCK_STREAM:
                made.accept()
            else:
                made.recvfrom(10)
            self.heard.append(str(made.getsockname()))

    def state(self):
        facts = os.stat(self.secret)
        return [
            Path(self.secret).read_text(),
            [facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime, facts.st_nlink],
            sorted(os.listdir(self.folder)),
            self.victim.poll(),
            "stopped" if Path(f"/proc/{self.victim.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T" else "running",
            os.getpriority(os.PRIO_PROCESS, 0),
            sorted(os.sched_getaffinity(0)),
            socket.gethostname(),
            Path("/usr/x").exists(),
        ]

    def effects(self):
        """What changed: a line each."""
        now = self.state()
        found = [f"{before!r} became {after!r}" for before, after in zip(self.before, now, strict=True) if before != after]
        return found + [f"heard on {name}" for name in self.heard]

    def close(self):
        self.victim.kill()
        self.victim.wait()
        for made in self.sockets:
            made.close()


def left_behind(uids, known):
    """Processes of those users that were not there before."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and int(name) not in known and os.stat(f"/proc/{name}").st_uid in uids:
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(Path(f"/proc/{name}/cmdline").read_text().replace("\0", " "))
    return found


def substituted(text, names):
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def run_attacks(tier):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work:
        os.chmod(folder, 0o755)
        host = Host(folder)
        known = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        tempfile.tempdir = work
        os.chmod(work, 0o755)
        sandbox = Sandbox.open(tier=tier, limits=LIMITS)
        verdicts = {}
        programs = {}
        for name, (candidate, test, entry_point) in attacks().items():
            test = test.replace("TOKEN", secrets.token_hex(16))
            programs[name] = Program(candidate=substituted(candidate, host.names), test=test, entry_point=entry_point)
        for name, verdict in ProgramRunner(sandbox, timeout_s=TIMEOUT_S, num_workers=2).run_all(programs):
            verdicts[name] = [verdict.reason, verdict.detail, verdict.seconds]
        for name, (first, second) in PERSISTENCE.items():
            sandbox.run(Program(candidate=first, test="f()", entry_point="f"), TIMEOUT_S)
            verdict = sandbox.run(Program(candidate=second, test="assert f() is True", entry_point="f"), TIMEOUT_S)
            verdicts[f"persistence: {name}"] = [verdict.reason, verdict.detail, verdict.seconds]
        alive = sandbox.run(Program(candidate="def f(): return 1", test="assert f() == 1", entry_point="f"), TIMEOUT_S)
        sandbox.stop()
        time.sleep(0.2)
        uids = set(sandbox.uids) or {os.getuid()}
        effects = host.effects()
        host.close()
        return {
            "verdicts": verdicts,
            "effects": effects,
            "left_behind": left_behind(uids, known | {os.getpid()}),
            "folders": os.listdir(work),
            "alive": alive.passed,
        }


def run_honest(tier):
    sandbox = Sandbox.open(tier=tier)
    programs = {name: Program(**fields) for name, fields in honest_programs(tier).items()}
    found = {
        name: [verdict.reason, verdict.detail, verdict.forgeable]
        for name, verdict in ProgramRunner(sandbox, timeout_s=6.0, num_workers=2).run_all(programs)
    }
    sandbox.stop()
    return {"verdicts": found}


if __name__ == "__main__":
    signal.alarm(900)
    print(json.dumps({"attacks": run_attacks, "honest": run_honest}[sys.argv[2]](sys.argv[1])))
