"""The code that runs inside the sandbox, imported there as a top-level package; standard library only, Python 3.10 or later."""
