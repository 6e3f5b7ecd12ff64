"""Running untrusted programs, one process tree each, and saying how each ended.

How: a zygote, started in the sandbox, loads what programs often need and never reads a program. For each program it forks a
trusted tester, which forks the confined candidate before it reads the test. The tester runs the test against proxies of the
candidate's functions: plain values cross through a closed codec, everything else stays where it is, and what the test
compares is compared on the tester's side. The zygote watches from outside, ends a program at its limits, and ends everything
that it started before the next one begins.

Tiers, in the order in which they are tried; the first that works is used and named in results:
* "bubblewrap": the zygote is started by bubblewrap, and each program has mount and process namespaces of its own;
* "landlock": where namespaces are not to be had, e.g. in containers: Landlock for files, a system call filter for the rest;
* "none": by explicit request only; limits and the separation of candidate and test, but no protection of the host.

Covered by "bubblewrap" and "landlock" alike, as root and as another user (tests/helpers/attacks.py holds the attacks):
* faking: leaving early, results that claim to be equal to anything, patched builtins and modules, looking for the test in
  memory, frames or files, speaking the protocol;
* files: programs read /usr, the Python installation and its packages, and a few files of /etc and /proc; they write to an
  empty work folder of limited size, which goes with them;
* environment variables: only a fixed handful;
* network: in "bubblewrap" an empty one, in "landlock" no socket but pairs; abstract sockets of the host are out of reach;
* processes: nothing outside can be signalled, traced, or given other priorities and limits;
* privileges: no capabilities, no_new_privs, a user id of each program's own where we are root, a system call filter;
* amounts: CPU seconds of all processes together, wall time, memory of all processes together, file sizes, disk, open
  descriptors, processes;
* persistence: no file, process, patched module or shared memory of one program is there for the next.

Weaker in "landlock":
* names, sizes and dates of the host's files can be asked for (stat), not their contents;
* there is no /dev/shm (multiprocessing's locks and queues fail), no /tmp but the work folder, no loopback network;
* run as an ordinary user, programs share that user's id and process count, cannot change file modes or dates, and are ended
  by following their parents, so a program that wins that race against the zygote is seen only by the next look;
* run as root with Python below a folder that only root can enter, programs keep the right to read (not to write) whatever
  file modes say, within what Landlock lets them see.

Not covered:
* programs without an entry point, and tests that hand over objects of their own classes, share an interpreter with their
  test; programs of other languages share a process with it, and pass by their exit status (scripts in js, sh and r must also
  reach the end of the file). Such verdicts are marked forgeable;
* a method of a candidate's own object is the candidate's word: `assert f().equals(x)` passes if it says so;
* memory between two looks (at most 50 ms apart): put a limit on the container too;
* attacks on the kernel itself, timing side channels, and slowing the other programs down within the limits.
"""
