"""Code that runs inside the sandbox, imported there as the top-level package `inside`.

It uses only the standard library of Python 3.10 or later.
"""
