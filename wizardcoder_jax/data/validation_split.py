"""Training and validation records, told apart by record id alone."""

import xxhash


def is_held_out(record_id: str, fraction: float) -> bool:
    """Whether the record belongs to the validation side, which gets about `fraction` of all ids.

    Neither the order of the records nor the run's seed matters, and a record never changes sides when others come or go.
    Records that share an id, as all evolutions of one seed share its seed_id, stay together.
    """
    return xxhash.xxh3_64_intdigest(record_id.encode("utf-8", "surrogatepass")) < fraction * 2**64
