"""The system call filter of a candidate, as a BPF program, for x86_64 and aarch64.

It refuses access to other processes, mounting, namespaces, loading code into the kernel, interfaces with a large attack
surface (bpf, io_uring, userfaultfd, keys, perf), memory that no limit counts (memfd, System V, message queues), and sockets
of families that an empty network namespace does not make harmless. Without namespaces it also refuses every socket, every
signal to another process, and the changes to files that Landlock does not control.
Source of the system call numbers: Linux, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import ctypes
import dataclasses
import errno
import os
import platform
import struct

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32_BIT = 0x40000000
_NEW_NAMESPACES = 0x7E020080  # flags CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET, -TIME

# System call -> its number on (x86_64, aarch64); None if the architecture has no such call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "remap_file_pages": (216, 234),
    "vmsplice": (278, 75),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "personality": (135, 92),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "mq_timedsend": (242, 182),
    "mq_timedreceive": (243, 183),
    "mq_notify": (244, 184),
}
# These fail with ENOSYS, which makes C libraries fall back to clone.
_REFUSED_AS_MISSING: dict[str, tuple[int | None, int | None]] = {"clone3": (435, 435)}
_CLONE, _SOCKET = (56, 220), (41, 198)
_FCNTL, _IOCTL, _PRLIMIT = (72, 25), (16, 29), (302, 261)

# These are refused only if there are no namespaces.
SIGNALS_BY_PID = {"kill": (62, 129), "tgkill": (234, 131)}  # refused except for signals to the process itself
REFUSED_WITHOUT_NAMESPACES: dict[str, tuple[int | None, int | None]] = {
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "inotify_add_watch": (254, 27),
    "truncate": (76, 45),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
# These are refused only if the candidate has our user id, because it may then own files that it sees.
REFUSED_WITHOUT_OWN_UID: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}
_OWN_PROCESS_ONLY = {  # system call -> (numbers, index of the argument that must be 0, i.e. the process itself)
    "sched_setaffinity": ((203, 122), 0),
    "sched_setscheduler": ((144, 119), 0),
    "sched_setparam": ((142, 118), 0),
    "sched_setattr": ((314, 274), 0),
    "setpriority": ((141, 140), 1),
    "ioprio_set": ((251, 30), 1),
}
_F_SETOWN, _F_SETOWN_EX = 8, 15
_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP = 0x5412, 0x541C, 0x8901, 0x8902
_FAMILIES = (1, 2, 10)  # allowed socket families: AF_UNIX, AF_INET, AF_INET6


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterContext:
    """How else a candidate is confined, on which the filter depends."""

    namespaces: bool  # whether the candidate has its own process, network and mount namespaces
    own_uid: bool  # whether no other process has the candidate's user id
    signals_scoped: bool  # whether Landlock restricts the candidate's signals


def is_supported() -> bool:
    """Return whether the filter knows the system call numbers of this machine's architecture."""
    return platform.machine() in _AUDIT_ARCH


def program(context: FilterContext, pid: int) -> bytes:
    """Return the filter as a BPF program for the process with id `pid`."""
    machine = platform.machine()
    column = list(_AUDIT_ARCH).index(machine)
    code = [_op(_LOAD, 4), _op(_JEQ, _AUDIT_ARCH[machine], 1, 0), _op(_RETURN, _KILL_PROCESS), _op(_LOAD, 0)]
    if machine == "x86_64":
        code += [_op(_JGE, _X32_BIT, 0, 1), _op(_RETURN, _ERRNO | errno.ENOSYS)]
    refused = dict(REFUSED)
    if not context.namespaces:
        refused |= REFUSED_WITHOUT_NAMESPACES
        refused |= {} if context.own_uid else REFUSED_WITHOUT_OWN_UID
    for calls, error in ((refused, errno.EPERM), (_REFUSED_AS_MISSING, errno.ENOSYS)):
        for numbers in calls.values():
            if (number := numbers[column]) is not None:
                code += [_op(_JEQ, number, 0, 1), _op(_RETURN, _ERRNO | error)]
    for number, rule in _rules(context, pid, column):
        code += [_op(_JEQ, number, 0, len(rule)), *rule]
    return b"".join([*code, _op(_RETURN, _ALLOW)])


def _rules(context: FilterContext, pid: int, column: int) -> list[tuple[int, list[bytes]]]:
    """Return (system call number, instructions that allow or refuse it) for calls that are refused depending on arguments."""
    refuse, allow = _op(_RETURN, _ERRNO | errno.EPERM), _op(_RETURN, _ALLOW)
    rules = [(_CLONE[column], [_argument(0), _op(_JSET, _NEW_NAMESPACES, 0, 1), refuse, allow])]
    rules.append((_IOCTL[column], _none_of(1, (_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP))))
    if context.namespaces:
        unsupported = _op(_RETURN, _ERRNO | errno.EAFNOSUPPORT)
        rules.append(
            (
                _SOCKET[column],
                [
                    _argument(0),
                    *(_op(_JEQ, family, i, 0) for i, family in zip((3, 2, 1), _FAMILIES, strict=True)),
                    unsupported,
                    allow,
                ],
            )
        )
        return rules
    rules.append((_SOCKET[column], [refuse]))
    rules.append((_FCNTL[column], _none_of(1, (_F_SETOWN, _F_SETOWN_EX))))
    rules.append((_PRLIMIT[column], [_argument(0), _op(_JEQ, 0, 1, 0), refuse, allow]))
    for numbers, index in _OWN_PROCESS_ONLY.values():
        rules.append((numbers[column], [_argument(index), _op(_JEQ, 0, 1, 0), refuse, allow]))
    if not context.signals_scoped:
        for numbers in SIGNALS_BY_PID.values():
            rules.append((numbers[column], [_argument(0), _op(_JEQ, pid, 1, 0), refuse, allow]))
    return rules


def _none_of(index: int, values: tuple[int, ...]) -> list[bytes]:
    """Return instructions that refuse a call if the argument with that index is one of the values."""
    tests = [_op(_JEQ, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [_argument(index), *tests, _op(_RETURN, _ALLOW), _op(_RETURN, _ERRNO | errno.EPERM)]


def _argument(index: int) -> bytes:
    """Return an instruction that loads the low 32 bits of an argument; the kernel ignores the rest in the tested arguments."""
    return _op(_LOAD, 16 + 8 * index)


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(code: bytes) -> None:
    """Install the filter for this process and its future children, irrevocably.

    Raises:
        OSError: the kernel rejects the filter.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    whole = _Program(len(code) // 8, code)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(whole), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"system call filter: {os.strerror(number)}")
