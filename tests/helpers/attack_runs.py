"""Runs attacks or honest programs in one sandbox tier as the current user, and prints the results as JSON.

Arguments: the tier, then "attacks", "attacks representative" or "honest". This is a script, so that it can be started as
another user, with a Python that has only the standard library.
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

from tests.helpers.attacks import PERSISTENCE, REPRESENTATIVE, attacks
from tests.helpers.honest_programs import honest_programs
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.limits import Limits
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.sandbox import Sandbox

LIMITS = Limits(memory_bytes=600 << 20, tmp_bytes=64 << 20, num_processes=32)
TIMEOUT_S = 0.6  # CPU seconds per attack; many attacks use all of them
HONEST_TIMEOUT_S = 30.0
DISAPPEAR_S = 30.0


class Host:
    """Targets of escapes: a secret, listening sockets and a victim process. Detects whether any of them was reached."""

    def __init__(self, folder):
        os.chmod(folder, 0o755)
        self.folder = folder
        self.secret = os.path.join(folder, "secret")
        with open(self.secret, "w") as file:
            file.write("secret")
        os.chmod(self.secret, 0o644)
        os.environ["SECRET_TOKEN"] = "secret"
        self.abstract = f"x{secrets.token_hex(8)}"  # a digit after \0 would change the escape sequence
        self.heard = []
        # Separate standard streams: if this script fails, its caller must not wait for the victim to close them.
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.victim = subprocess.Popen(["sleep", "3600"], start_new_session=True, **streams)
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
        """Return one line for each target that was reached or changed."""
        now = self.state()
        found = [f"{before!r} became {after!r}" for before, after in zip(self.before, now, strict=True) if before != after]
        return found + [f"heard on {name}" for name in self.heard]

    def close(self):
        self.victim.kill()
        self.victim.wait()
        for made in self.sockets:
            made.close()


def left_behind(uids, known):
    """Return processes of `uids` that are not in `known`, after giving them time to exit."""
    deadline = time.monotonic() + DISAPPEAR_S
    while (found := new_processes(uids, known)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def new_processes(uids, known):
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and int(name) not in known and os.stat(f"/proc/{name}").st_uid in uids:
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found.append(Path(f"/proc/{name}/cmdline").read_text().replace("\0", " "))
    return found


def substitute(text, names):
    for name, value in names.items():
        text = text.replace(name, value)
    return text


def run_attacks(tier, selection=None):
    """Run the attacks; return their verdicts, and everything that they changed or left behind."""
    chosen = {name: attacks()[name] for name in REPRESENTATIVE} if selection else attacks()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as work,
        contextlib.closing(Host(folder)) as host,
    ):
        known = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        tempfile.tempdir = work
        os.chmod(work, 0o755)
        sandbox = Sandbox.open(tier=tier, limits=LIMITS)
        verdicts = run_each(sandbox, chosen, host.names) | run_pairs(sandbox)
        alive = run_called(sandbox, "def f(): return 1", "assert f() == 1", HONEST_TIMEOUT_S)
        sandbox.stop()
        uids = set(sandbox.uids) or {os.getuid()}
        remaining = left_behind(uids, known | {os.getpid()})
        return {
            "verdicts": {name: [verdict.reason, verdict.detail, verdict.seconds] for name, verdict in verdicts.items()},
            "effects": host.effects(),
            "left_behind": remaining,
            "folders": os.listdir(work),
            "alive": alive.passed,
        }


def run_each(sandbox, chosen, names):
    programs = {}
    for name, (candidate, test, entry_point) in chosen.items():
        test = test.replace("TOKEN", secrets.token_hex(16))
        programs[name] = Program(candidate=substitute(candidate, names), test=test, entry_point=entry_point)
    return dict(ProgramRunner(sandbox, timeout_s=TIMEOUT_S, num_workers=2).run_all(programs))


def run_pairs(sandbox):
    verdicts = {}
    for name, (first, second) in PERSISTENCE.items():
        run_called(sandbox, first, "f()", TIMEOUT_S)
        verdicts[f"persistence: {name}"] = run_called(sandbox, second, "assert f() is True", TIMEOUT_S)
    return verdicts


def run_called(sandbox, candidate, test, timeout_s):
    return sandbox.run(Program(candidate=candidate, test=test, entry_point="f"), timeout_s)


def run_honest(tier):
    sandbox = Sandbox.open(tier=tier)
    programs = {name: Program(**fields) for name, fields in honest_programs(tier).items()}
    found = {
        name: [verdict.reason, verdict.detail, verdict.forgeable]
        for name, verdict in ProgramRunner(sandbox, timeout_s=HONEST_TIMEOUT_S, num_workers=2).run_all(programs)
    }
    sandbox.stop()
    return {"verdicts": found}


if __name__ == "__main__":
    signal.alarm(1800)
    print(json.dumps({"attacks": run_attacks, "honest": run_honest}[sys.argv[2]](sys.argv[1], *sys.argv[3:])))
