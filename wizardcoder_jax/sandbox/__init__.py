"""Runs untrusted programs, each in a process tree of its own, and returns how each one ended.

How it works: a zygote process, started inside the sandbox, imports what programs often need and never reads a program. For
each program it forks a trusted tester, which forks the confined candidate before it reads the test. The tester runs the test
against proxies of the candidate's functions. Plain values cross through a closed codec; everything else stays in its own
process, and comparisons happen on the tester's side. The zygote watches from outside, kills a program that reaches a limit,
and kills everything the program started before the next one begins.

Tiers, in the order in which they are tried; the first that works is used and recorded in the results:
* "bubblewrap": bubblewrap starts the zygote, and each program has its own mount and process namespaces;
* "landlock": where namespaces are not available, e.g. in containers: Landlock for files, a system call filter for the rest;
* "none": by explicit request only; limits and separate processes for candidate and test, but no protection of the host.

Prevented by "bubblewrap" and "landlock" alike, as root and as another user (tests/helpers/attacks.py contains the attacks):
* faked passes: exiting early, results that claim to equal anything, patched builtins and modules, reading the test from
  memory, frames or files, speaking the protocol;
* file access: programs read /usr, the Python installation and its packages, and a few files of /etc and /proc; they write
  only to an empty work folder of limited size, which is deleted afterwards;
* environment variables: programs see only a fixed handful;
* network access: "bubblewrap" gives an empty network, "landlock" allows no socket except pairs; abstract sockets of the host
  cannot be reached;
* process access: no process outside can be signalled or traced, or have its priority or limits changed;
* privileges: no capabilities, no_new_privs, a separate user id for each program if we are root, a system call filter;
* excessive use: CPU seconds of all processes together, wall-clock time, memory of all processes together, file sizes, disk,
  open descriptors, processes;
* persistence: no file, process, patched module or shared memory of one program is visible to the next.

Weaker in "landlock":
* names, sizes and dates of the host's files can be queried (stat), but not their contents;
* there is no /dev/shm (multiprocessing's locks and queues fail), no /tmp except the work folder, no loopback network;
* if we are an ordinary user, programs share that user's id and process count and cannot change file modes or dates. They are
  killed by following their parents, so a program that wins a race against the zygote is found only at the next check;
* if we are root and Python is below a folder that only root can enter, programs keep the right to read (not to write) files
  of any mode, within what Landlock lets them see.

Not prevented:
* programs without an entry point, and tests that pass objects of their own classes, share an interpreter with their test;
  programs of other languages share a process with it and pass by their exit status (scripts in js, sh and r must also reach
  the end of the file). Such verdicts are marked forgeable;
* the candidate decides what methods of its own objects return: `assert f().equals(x)` passes if the candidate says so;
* memory use between two checks (at most 50 ms apart): put a limit on the container too;
* attacks on the kernel itself, timing side channels, and slowing the other programs down within the limits.
"""
