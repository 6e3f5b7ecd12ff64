"""Runs untrusted programs, each in a process tree of its own, and returns how each one ended.

How it works: a zygote (a process that exists to be forked) starts inside the sandbox and imports the modules that programs
often need; it never reads a program. For each program, the zygote forks a trusted tester, which forks the confined candidate
before it receives the test. The tester runs the test against proxies of the candidate's functions. Plain values are exchanged
through a codec for a fixed set of types; every other object stays in its own process, and all comparisons are made in the
tester. The zygote watches the program, kills it if it reaches a limit, and kills every process that the program has started
before the next program begins.

Tiers, in the order in which they are tried; the first tier that works is used and recorded in the results:
* "bubblewrap": bubblewrap starts the zygote, and each program has its own mount and process namespaces;
* "landlock": if namespaces are not available, e.g. in containers: Landlock protects files, a system call filter the rest;
* "none": only on explicit request; it has limits and separate processes for candidate and test, but no protection of the host.

Prevented by both "bubblewrap" and "landlock", as root and as an ordinary user (tests/helpers/attacks.py contains the attacks):
* faked passes: exiting early, results that claim to equal anything, patched builtins and modules, reading the test from
  memory, frames or files, sending forged messages of the protocol;
* file access: programs read /usr, the Python installation and its packages, and a few files of /etc and /proc; they write
  only to an empty work folder of limited size, which is deleted afterwards;
* environment variables: programs see only a small fixed set;
* network access: "bubblewrap" gives an empty network, "landlock" allows no socket except pairs; abstract sockets of the host
  cannot be reached;
* process access: no process outside the sandbox can be signaled or traced, or have its priority or limits changed;
* privileges: no capabilities, no_new_privs, a separate user id for each program if we are root, a system call filter;
* excessive use: CPU seconds of all processes together, wall-clock time, memory of all processes together, file sizes, disk,
  open descriptors, processes;
* persistence: no file, process, patched module or shared memory of one program is visible to the next.

Weaker protection by "landlock":
* names, sizes and dates of the host's files can be queried (stat), but not their contents;
* there is no /dev/shm (multiprocessing's locks and queues fail), no /tmp except the work folder, no loopback network;
* if we are an ordinary user, programs share that user's id and process count and cannot change file modes or dates. The
  zygote finds them by following child processes, so a program that forks at the wrong moment is found at the next check;
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
