"""What runs inside the sandbox: the standard library alone, Python 3.10 or later, started as a package of its own."""
