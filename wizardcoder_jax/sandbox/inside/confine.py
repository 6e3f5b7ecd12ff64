"""What is done to a process before it runs anything untrusted: namespaces, limits, privileges, filters.

Source of the numbers: Linux, include/uapi/linux/{sched,mount,prctl,capability}.h.
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

BUBBLEWRAP, LANDLOCK, NONE = "bubblewrap", "landlock", "none"  # tiers

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
_NAMESPACE_OWN_PROCESSES = 8  # of a non-root user in its namespace: zygote, tester, bubblewrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What holds for every job of a zygote."""

    tier: str
    readable: tuple[str, ...]  # folders and files that programs may read
    memory_bytes: int
    file_bytes: int
    tmp_bytes: int
    num_files: int
    read_all: bool = False  # the interpreter lies where only root may look: keep the right to read, within `readable`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What holds for one job."""

    uid: int  # 0: stay who we are
    cpu_s: float
    wall_s: float
    num_processes: int
    limit_address_space: bool
    imports: tuple[str, ...] = ()  # libraries that it seems to want


def own_folders(place: Place) -> None:
    """Empty, sized /tmp and /dev/shm for one job, in a mount namespace of its own.

    Raises:
        OSError: it is not permitted.
    """
    _checked(_libc().unshare(_NEW_MOUNTS), "mount namespace")
    below = [folder for folder in place.readable if folder.startswith("/tmp/") and os.path.isdir(folder)]
    covered = [folder for folder in below if not any(str(above) in below for above in Path(folder).parents)]
    opened = [(folder, os.open(folder, os.O_PATH)) for folder in covered]  # in this namespace: no other's can be bound
    for folder in ("/tmp", "/dev/shm"):
        _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, f"size={place.tmp_bytes},nr_inodes=65536,mode=1777")
    for folder, fd in opened:  # a Python that is installed below /tmp
        os.makedirs(folder, exist_ok=True)
        for above in Path(folder).parents[:-2]:  # below /tmp
            above.chmod(0o755)
        _mount(f"/proc/self/fd/{fd}", folder, "", _BIND | _RECURSIVE, "")
        os.close(fd)


def start(body: Callable[[int], None], place: Place, job: Job, folder: str, connection: int) -> int:
    """Forks a confined process that runs `body` with its end of a connection; its id.

    Args:
        body: runs in the new process, which ends with it.
        place: see there.
        job: see there.
        folder: its work folder.
        connection: the only descriptor that it keeps, as number 3.

    Raises:
        OSError: no process could be made.
    """
    if place.tier == BUBBLEWRAP:
        _checked(_libc().unshare(_NEW_PIDS), "process namespace")
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _descriptors(connection)
        confine(place, job, folder)
        status = 0
        body(_PROTOCOL_FD)
    except BaseException as error:
        if status:  # before anything untrusted: say what is missing
            with contextlib.suppress(OSError):
                os.write(_PROTOCOL_FD, struct.pack("<Q", 0) + f"{type(error).__name__}: {error}".encode()[:500])
    finally:
        os._exit(status)


def confine(place: Place, job: Job, folder: str) -> None:
    """Takes everything from this process that a program must not have, for good.

    Raises:
        OSError: something could not be taken.
    """
    os.setsid()
    if place.tier == BUBBLEWRAP:
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC, "")
    os.environ.update(TMPDIR=folder, HOME=folder)
    _limits(place, job)
    _privileges(place, job)
    end_with_parent()
    os.chdir(folder)
    if place.tier == LANDLOCK:
        own = (*place.readable, f"/proc/{os.getpid()}", *_PROC_FILES)
        landlock.restrict(landlock.Paths(readable=own, writable=(folder, *_DEVICES)))
    if place.tier != NONE:
        seccomp.install(
            _filter(place.tier, bool(job.uid)) or seccomp.program(_surroundings(place.tier, bool(job.uid)), os.getpid())
        )


@functools.cache
def _surroundings(tier: str, own_uid: bool) -> seccomp.FilterContext:
    scoped = landlock.abi() >= landlock.SIGNALS_SCOPED_SINCE
    return seccomp.FilterContext(namespaces=tier == BUBBLEWRAP, own_uid=own_uid, signals_scoped=scoped)


@functools.cache
def _filter(tier: str, own_uid: bool) -> bytes | None:
    """The filter where it is the same for every process; None where it names the process."""
    around = _surroundings(tier, own_uid)
    return seccomp.program(around, 0) if around.namespaces or around.signals_scoped else None


def prepare(place: Place) -> None:
    """Makes once what each job would otherwise make anew."""
    for own_uid in (False, True):
        _filter(place.tier, own_uid)
    _last_capability()


_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PROC_FILES = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/filesystems", "/proc/version")


def _descriptors(connection: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    kept = os.dup(connection) if connection == _PROTOCOL_FD else connection
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(kept, _PROTOCOL_FD)
    os.closerange(_PROTOCOL_FD + 1, os.sysconf("SC_OPEN_MAX"))


def lower(kind: int, soft: int, hard: int | None = None) -> None:
    """Lowers a resource limit, never above what holds already."""
    hard = soft if hard is None else hard
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def _limits(place: Place, job: Job) -> None:
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:
        adjustment.write("1000")  # where memory runs out, the kernel ends this process first
    cpu_s = int(job.cpu_s) + 2  # a backstop: the zygote counts more finely
    lower(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    if job.limit_address_space:
        lower(resource.RLIMIT_AS, place.memory_bytes)
    lower(resource.RLIMIT_FSIZE, place.file_bytes)
    lower(resource.RLIMIT_NOFILE, place.num_files)
    lower(resource.RLIMIT_CORE, 0)
    if place.tier == BUBBLEWRAP:
        lower(resource.RLIMIT_NPROC, job.num_processes + (0 if job.uid else _NAMESPACE_OWN_PROCESSES))
    elif place.tier == LANDLOCK:
        lower(resource.RLIMIT_NPROC, job.num_processes + (0 if job.uid else _num_tasks(os.getuid())))


def _num_tasks(uid: int) -> int:
    """Processes and threads of a user now: the kernel's limit counts them all."""
    found = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                found += len(os.listdir(f"/proc/{name}/task"))
    return found


def _privileges(place: Place, job: Job) -> None:
    libc = _libc()
    if place.tier == NONE:
        return
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    kept = 1 << _DAC_READ_SEARCH if place.read_all and job.uid else 0
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
        _checked(libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, _DAC_READ_SEARCH, 0, 0), "reading the interpreter")
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self is root's


@functools.cache
def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def drop_capabilities() -> None:
    """Takes every capability from this process, which stays who it is."""
    _set_capabilities(0)


def end_with_parent() -> None:
    """Has this process killed when the one that forked it ends."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def hide() -> None:
    """No other process of the same user may look into this one."""
    _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
    """What this process's descendants leave behind becomes its children."""
    _checked(_libc().prctl(_PR_SET_SUBREAPER, 1, 0, 0, 0), "adopting orphans")


def _set_capabilities(mask: int) -> None:
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _checked(_libc().capset(header, struct.pack("<6I", low, low, low, high, high, high)), "capabilities")


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    _checked(_libc().mount(*arguments), f"mount {target}")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def kill_all_of(uid: int) -> None:
    """Ends every process of a user id that is one job's alone; takes root."""
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
