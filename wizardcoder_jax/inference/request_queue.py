"""Queue of requests that wait for a slot. It shares the slots fairly between owners (clients)."""

import collections
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class RequestQueue(Generic[T]):
    """Queue with a first-in-first-out queue for each owner.

    The next item comes from the owner that uses the fewest slots, so that an owner with many requests does not delay other
    owners. Ties between owners are broken by the item that was added first.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, collections.deque[tuple[int, T]]] = {}  # never contains an empty queue
        self._num_added = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, item: T, owner: Hashable) -> None:
        """Append an item to the queue of its owner."""
        self._num_added += 1
        self._queues.setdefault(owner, collections.deque()).append((self._num_added, item))

    def pop(self, slot_owners: Iterable[Hashable]) -> T:
        """Remove and return the next item.

        Args:
            slot_owners: the owner of each slot that is in use.
        """
        num_slots = collections.Counter(slot_owners)
        owner = min(self._queues, key=lambda owner: (num_slots[owner], self._queues[owner][0][0]))
        _, item = self._queues[owner].popleft()
        self._drop_if_empty(owner)
        return item

    def remove(self, is_removed: Callable[[T], bool]) -> None:
        """Remove every item for which `is_removed` returns True."""
        for owner, queue in list(self._queues.items()):
            self._queues[owner] = collections.deque(entry for entry in queue if not is_removed(entry[1]))
            self._drop_if_empty(owner)

    def _drop_if_empty(self, owner: Hashable) -> None:
        if not self._queues[owner]:
            del self._queues[owner]
