"""Random values that depend only on names (run seed, record id, round, purpose), never on order or concurrency."""

import hashlib


def random_bits(*names: object, separator: str = "/") -> int:
    """Return an integer from 0 to 2**64 - 1 that is determined by `names`, and uniformly distributed over different names.

    Args:
        names: values that determine the result, e.g. the run's seed and a record id; their `str` is hashed.
        separator: string between the names; if it occurs in names, different names can give the same result.
    """
    digest = hashlib.sha256(separator.join(map(str, names)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big")


def random_fraction(*names: object) -> float:
    """Return a number in [0, 1) that is determined by `names`, and uniformly distributed over different names."""
    return (random_bits(*names) >> 11) / 2**53


def random_key(*names: object, separator: str = "/") -> tuple[int, int]:
    """Return a JAX random key for `names` as two 32-bit words, the format of `GenerationRequest.key`."""
    bits = random_bits(*names, separator=separator)
    return bits >> 32, bits & 0xFFFFFFFF
