"""Random choices as functions of names alone (run seed, record, round, purpose): order and concurrency never matter."""

import hashlib


def number(*names: object) -> int:
    """A number from 0 to 2**64 - 1 that the names decide: uniform over different names."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def fraction(*names: object) -> float:
    """A number from 0 to 1 (excluded) that the names decide."""
    return (number(*names) >> 11) / 2**53
