"""Landlock: restricts the files that a candidate may read and write, if namespaces are not available.

Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

import ctypes
import dataclasses
import os
import stat
import struct
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system call numbers, the same on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_RIGHTS_SINCE = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}  # ABI version -> access rights that it added
_DEVICES = (1 << 6) | (1 << 11) | (1 << 15)  # rights that are never granted: create devices, use ioctl on them
_TCP, _SCOPES = 0b11, 0b11  # restrict TCP bind and connect (ABI 4), abstract sockets and signals (ABI 6)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _EXECUTE | _READ_FILE | _READ_DIR
SIGNALS_SCOPED_SINCE = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paths:
    """The paths that a process may use."""

    readable: tuple[str, ...]  # paths of folders and files; missing ones are ignored
    writable: tuple[str, ...]


def abi() -> int:
    """Return this kernel's Landlock ABI version, or 0 if the kernel has no Landlock."""
    version = _libc().syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)
    return max(0, version)


def restrict(paths: Paths) -> None:
    """Restrict this process and its future children to the given paths, irrevocably; no_new_privs must be set.

    Raises:
        OSError: the kernel rejects the rules.
    """
    version = abi()
    rights = 0
    for since, more in _RIGHTS_SINCE.items():
        rights |= more if version >= since else 0
    attributes = struct.pack("<Q", rights)
    if version >= 4:
        attributes += struct.pack("<Q", _TCP)
    if version >= SIGNALS_SCOPED_SINCE:
        attributes += struct.pack("<Q", _SCOPES)
    ruleset = _syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        _allow(ruleset, paths.readable, _READ & rights)
        _allow(ruleset, paths.writable, rights & ~_DEVICES)
        _syscall(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            applicable = rights if stat.S_ISDIR(os.fstat(opened).st_mode) else rights & _OF_FILES
            _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", applicable, opened), 0)
        finally:
            os.close(opened)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(*arguments: object) -> int:
    result = _libc().syscall(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
