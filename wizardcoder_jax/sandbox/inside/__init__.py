"""Code that runs inside the sandbox, imported there as a top-level package; it needs only Python 3.10 or later."""
