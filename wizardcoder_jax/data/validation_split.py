"""Splits records into a training and a validation set, based only on their ids."""

import xxhash


def is_held_out(record_id: str, fraction: float) -> bool:
    """Return whether the record belongs to the validation set, which contains about `fraction` of all ids.

    The result depends neither on the order of the records nor on the run's seed, and it does not change when other records are
    added or removed. Records with the same id, such as all evolutions of one seed instruction, are in the same set.
    """
    return xxhash.xxh3_64_intdigest(record_id.encode("utf-8", "surrogatepass")) < fraction * 2**64
