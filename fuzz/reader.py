"""A fuzzer's bytes as choices and numbers; zeros when they run out."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, padded with zeros."""
        taken, self.data = self.data[:count], self.data[count:]
        return taken.ljust(count, b"\0")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data))

    def integer(self, least: int, most: int) -> int:
        """From ``least`` to ``most``."""
        size = ((most - least).bit_length() + 7) // 8
        return least + int.from_bytes(self.take(size), "little") % (most - least + 1)

    def double(self) -> float:
        """Any float64, infinity and NaN among them."""
        return float(struct.unpack("<d", self.take(8))[0])

    def choose(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.integer(0, len(items) - 1)]
