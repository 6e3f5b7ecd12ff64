"""Running untrusted programs, one process tree each, and saying how each ended.

Covered by the tier "bubblewrap":
* files: the program sees /usr, the Python installation and its packages, read-only, and an empty /tmp of limited size that
  goes with it; nothing of the host's home, work folders, /etc, /sys or sockets;
* environment variables: only a fixed handful;
* network: an empty network namespace, which also hides abstract unix sockets;
* processes: own pid namespace, so that nothing outside can be seen or signalled; all it started dies with it;
* privileges: no capabilities, no_new_privs, an unprivileged real user id (one of its own for each program when we are root,
  because the kernel does not enforce process limits on root, whatever id a user namespace shows);
* amounts: CPU seconds, address space of a process, file size, open files, number of processes, wall time;
* the simplest fakes of a pass: exiting early with status 0 (sys.exit, os._exit, atexit), printing, writing to descriptors.

Not covered:
* a program that looks for the verdict inside its own process (frames, gc, patched builtins, always-equal results): candidate
  and test share one interpreter, so every verdict is counted as forgeable in the results;
* memory of many processes together: limits are per process; put a memory limit on the container;
* attacks on the kernel: there is no system call filter yet;
* timing side channels, and starving the other programs of CPU within the limits.

The tier "none" (only by explicit request) keeps the limits on amounts, except the number of processes, and protects nothing.
"""
