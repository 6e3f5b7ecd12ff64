"""Confines a process before it runs untrusted code: namespaces, limits, dropped privileges, filters.

Source of the constants: Linux, include/uapi/linux/{sched,mount,prctl,capability}.h.
"""

import contextlib
import ctypes
import dataclasses
import functools
import os
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from . import landlock, seccomp

BUBBLEWRAP, LANDLOCK, NONE = "bubblewrap", "landlock", "none"  # names of the tiers

_NEW_MOUNTS, _NEW_PIDS = 0x00020000, 0x20000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _RECURSIVE = 2, 4, 8, 4096, 16384
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_SUBREAPER, _PR_CAP_AMBIENT = (
    1,
    4,
    8,
    24,
    36,
    47,
)
_PR_SET_NO_NEW_PRIVS, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 38, 2, 4
_CAPABILITY_VERSION, _DAC_READ_SEARCH = 0x20080522, 2
_PROTOCOL_FD = 3
_NAMESPACE_OWN_PROCESSES = 8  # number of processes allowed in addition for zygote, tester and bubblewrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZygoteConfig:
    """The settings that all jobs of a zygote share."""

    tier: str
    readable: tuple[str, ...]  # paths of folders and files that programs may read
    memory_bytes: int
    file_bytes: int
    tmp_bytes: int
    num_files: int
    read_all: bool = False  # whether programs may read files of any mode within `readable`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The settings of one job."""

    uid: int  # user id of the candidate; 0 means the zygote's own
    cpu_s: float
    wall_s: float
    num_processes: int
    limit_address_space: bool
    imports: tuple[str, ...] = ()  # names of libraries that the program probably imports


def mount_own_folders(config: ZygoteConfig) -> None:
    """Mount an empty /tmp and /dev/shm of limited size for one job, in a new mount namespace.

    Raises:
        OSError: the kernel does not permit it.
    """
    _check(_libc().unshare(_NEW_MOUNTS), "cannot create a mount namespace")
    below = [folder for folder in config.readable if folder.startswith("/tmp/") and os.path.isdir(folder)]
    covered = [folder for folder in below if not any(str(above) in below for above in Path(folder).parents)]
    # Open the folders in the new namespace, because folders of another mount namespace cannot be bound.
    opened = [(folder, os.open(folder, os.O_PATH)) for folder in covered]
    for folder in ("/tmp", "/dev/shm"):
        _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, f"size={config.tmp_bytes},nr_inodes=65536,mode=1777")
    for folder, fd in opened:  # e.g. a Python installation below /tmp
        os.makedirs(folder, exist_ok=True)
        for above in Path(folder).parents[:-2]:  # all parents below /tmp
            above.chmod(0o755)
        _mount(f"/proc/self/fd/{fd}", folder, "", _BIND | _RECURSIVE, "")
        os.close(fd)


def start(body: Callable[[int], None], config: ZygoteConfig, job: Job, folder: str, connection: int) -> int:
    """Fork a confined process that runs `body`, and return the process id.

    Args:
        body: called in the new process with the descriptor of the connection; the process exits when it returns.
        config: the settings that all jobs of the zygote share.
        job: the settings of this job.
        folder: the work folder.
        connection: descriptor of a connection to the tester, the only one that the process keeps, as number 3.

    Raises:
        OSError: the process cannot be created.
    """
    if config.tier == BUBBLEWRAP:
        _check(_libc().unshare(_NEW_PIDS), "cannot create a process namespace")
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _redirect_descriptors(connection)
        confine(config, job, folder)
        status = 0
        body(_PROTOCOL_FD)
    except BaseException as error:
        if status:  # no untrusted code has run yet, so report what failed
            with contextlib.suppress(OSError):
                os.write(_PROTOCOL_FD, struct.pack("<Q", 0) + f"{type(error).__name__}: {error}".encode()[:500])
    finally:
        os._exit(status)


def confine(config: ZygoteConfig, job: Job, folder: str) -> None:
    """Irrevocably drop all privileges and access that a program must not have, and set its limits.

    Raises:
        OSError: a step of the confinement fails.
    """
    os.setsid()
    if config.tier == BUBBLEWRAP:
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC, "")
    os.environ.update(TMPDIR=folder, HOME=folder)
    _set_limits(config, job)
    _drop_privileges(config, job)
    end_with_parent()
    os.chdir(folder)
    if config.tier == LANDLOCK:
        readable = (*config.readable, f"/proc/{os.getpid()}", *_PROC_FILES)
        landlock.restrict(landlock.Paths(readable=readable, writable=(folder, *_DEVICES)))
    if config.tier != NONE:
        seccomp.install(
            _filter(config.tier, bool(job.uid)) or seccomp.program(_filter_context(config.tier, bool(job.uid)), os.getpid())
        )


@functools.cache
def _filter_context(tier: str, own_uid: bool) -> seccomp.FilterContext:
    scoped = landlock.abi() >= landlock.SIGNALS_SCOPED_SINCE
    return seccomp.FilterContext(namespaces=tier == BUBBLEWRAP, own_uid=own_uid, signals_scoped=scoped)


@functools.cache
def _filter(tier: str, own_uid: bool) -> bytes | None:
    """Return the system call filter if it is the same for every process, or None if it depends on the process id."""
    context = _filter_context(tier, own_uid)
    return seccomp.program(context, 0) if context.namespaces or context.signals_scoped else None


def prepare(config: ZygoteConfig) -> None:
    """Compute and cache what every job needs."""
    for own_uid in (False, True):
        _filter(config.tier, own_uid)
    _last_capability()


_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PROC_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/filesystems", "/proc/version")


def _redirect_descriptors(connection: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    kept = os.dup(connection) if connection == _PROTOCOL_FD else connection
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(kept, _PROTOCOL_FD)
    os.closerange(_PROTOCOL_FD + 1, os.sysconf("SC_OPEN_MAX"))


def lower_limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower a resource limit; never raise it above the current hard limit."""
    hard = soft if hard is None else hard
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def _set_limits(config: ZygoteConfig, job: Job) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:
        adjustment.write("1000")  # the kernel kills this process first if memory runs out
    cpu_s = int(job.cpu_s) + 2  # a backstop: the zygote measures more precisely
    lower_limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    if job.limit_address_space:
        lower_limit(resource.RLIMIT_AS, config.memory_bytes)
    lower_limit(resource.RLIMIT_FSIZE, config.file_bytes)
    lower_limit(resource.RLIMIT_NOFILE, config.num_files)
    lower_limit(resource.RLIMIT_CORE, 0)
    if config.tier == BUBBLEWRAP:
        lower_limit(resource.RLIMIT_NPROC, job.num_processes + (0 if job.uid else _NAMESPACE_OWN_PROCESSES))
    elif config.tier == LANDLOCK:
        lower_limit(resource.RLIMIT_NPROC, job.num_processes + (0 if job.uid else _num_tasks(os.getuid())))


def _num_tasks(uid: int) -> int:
    """Return the number of processes and threads of a user, all of which count toward the kernel's limit."""
    found = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                found += len(os.listdir(f"/proc/{name}/task"))
    return found


def _drop_privileges(config: ZygoteConfig, job: Job) -> None:
    libc = _libc()
    if config.tier == NONE:
        return
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "cannot set no_new_privs")
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    kept = 1 << _DAC_READ_SEARCH if config.read_all and job.uid else 0
    for capability in range(_last_capability() + 1):
        if not kept >> capability & 1:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    if job.uid:
        libc.prctl(_PR_SET_KEEPCAPS, 1 if kept else 0, 0, 0, 0)
        os.setgroups([])
        os.setresgid(job.uid, job.uid, job.uid)
        os.setresuid(job.uid, job.uid, job.uid)
    _set_capabilities(kept)
    if kept:
        _check(
            libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, _DAC_READ_SEARCH, 0, 0),
            "cannot keep CAP_DAC_READ_SEARCH",
        )
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # otherwise root would own the files in /proc/self


@functools.cache
def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def drop_capabilities() -> None:
    """Drop every capability of this process; keep the user id."""
    _set_capabilities(0)


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def forbid_tracing() -> None:
    """Prevent other processes of the same user from tracing this process or reading its memory."""
    _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process."""
    _check(_libc().prctl(_PR_SET_SUBREAPER, 1, 0, 0, 0), "cannot adopt orphaned processes")


def _set_capabilities(mask: int) -> None:
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _check(_libc().capset(header, struct.pack("<6I", low, low, low, high, high, high)), "cannot set capabilities")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    _check(_libc().mount(*arguments), f"cannot mount {target}")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def kill_all_of(uid: int) -> None:
    """Kill every process of a user id, which must belong to only one job; requires root."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
