"""Requests that wait for a slot, by who asked: one who asks for much does not keep others waiting."""

import collections
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class RequestQueue(Generic[T]):
    """A queue an owner. Next is the first of the owner who has fewest slots; of equals, the one who came first."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, collections.deque[tuple[int, T]]] = {}  # none is empty
        self._num_come = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, item: T, owner: Hashable) -> None:
        """Puts an item behind those of its owner."""
        self._num_come += 1
        self._queues.setdefault(owner, collections.deque()).append((self._num_come, item))

    def take(self, holders: Iterable[Hashable]) -> T:
        """Takes the next item out.

        Args:
            holders: the owner of each slot that is in use.
        """
        num_held = collections.Counter(holders)
        owner = min(self._queues, key=lambda owner: (num_held[owner], self._queues[owner][0][0]))
        _, item = self._queues[owner].popleft()
        self._drop_empty(owner)
        return item

    def remove(self, is_gone: Callable[[T], bool]) -> None:
        """Takes all such items out."""
        for owner, queue in list(self._queues.items()):
            self._queues[owner] = collections.deque(entry for entry in queue if not is_gone(entry[1]))
            self._drop_empty(owner)

    def _drop_empty(self, owner: Hashable) -> None:
        if not self._queues[owner]:
            del self._queues[owner]
