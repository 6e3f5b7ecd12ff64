"""Random values that depend only on names (run seed, record id, round, purpose), never on order or concurrency."""

import hashlib


def random_bits(*names: object, separator: str = "/") -> int:
    """Return an integer from 0 to 2**64 - 1, uniformly distributed over different names.

    Args:
        names: what the value depends on, e.g. the run's seed and a record id; their `str` is hashed.
        separator: text between the names; must not be able to occur in them where different names may not collide.
    """
    digest = hashlib.sha256(separator.join(map(str, names)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big")


def random_fraction(*names: object) -> float:
    """Return a number in [0, 1), uniformly distributed over different names."""
    return (random_bits(*names) >> 11) / 2**53


def random_key(*names: object, separator: str = "/") -> tuple[int, int]:
    """Return the two 32-bit words of a JAX random key for these names, as `GenerationRequest.key` takes them."""
    bits = random_bits(*names, separator=separator)
    return bits >> 32, bits & 0xFFFFFFFF
