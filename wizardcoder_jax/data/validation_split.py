"""The split into training and validation records, by record id alone."""

import xxhash


def is_held_out(record_id: str, fraction: float) -> bool:
    """Return whether the record belongs to the validation set, which gets about `fraction` of all ids.

    The split depends neither on the order of the records nor on the run's seed, and a record never changes sides when others
    are added or removed. Records that share an id, such as all evolutions of one seed, which share its seed_id, stay together.
    """
    return xxhash.xxh3_64_intdigest(record_id.encode("utf-8", "surrogatepass")) < fraction * 2**64
