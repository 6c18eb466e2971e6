"""The cheapest way to divide nodes between two sides: a minimum cut (Dinic, 1970), in whole nanoseconds."""

from __future__ import annotations

from collections import deque

FOREVER = 1 << 60


class MinCut:
    """A network between a source (side False) and a sink (side True). Points are numbers from ``point()``."""

    def __init__(self) -> None:
        self._heads: list[list[int]] = [[], []]
        self._to: list[int] = []
        self._left: list[int] = []

    def point(self) -> int:
        """A new point."""
        self._heads.append([])
        return len(self._heads) - 1

    def price(self, point: int, first: int, second: int) -> None:
        """What a point costs on the first and on the second side."""
        self._arc(0, point, second)
        self._arc(point, 1, first)

    def pay(self, first: int, second: int, cost: int) -> None:
        """Pay if the point ``first`` is on the first side and ``second`` on the second."""
        self._arc(first, second, cost)

    def _arc(self, tail: int, head: int, capacity: int) -> None:
        if capacity <= 0:
            return
        for start, end, left in ((tail, head, capacity), (head, tail, 0)):
            self._heads[start].append(len(self._to))
            self._to.append(end)
            self._left.append(left)

    def on_second_side(self) -> list[bool]:
        """For every point, whether it is on the second side of a cheapest division."""
        levels = self._levels()
        while levels[1] >= 0:
            cursor = [0] * len(self._heads)
            while self._augment(levels, cursor):
                pass
            levels = self._levels()
        return [level < 0 for level in levels]

    def _levels(self) -> list[int]:
        levels = [-1] * len(self._heads)
        levels[0] = 0
        pending = deque([0])
        while pending:
            point = pending.popleft()
            for arc in self._heads[point]:
                if self._left[arc] > 0 and levels[self._to[arc]] < 0:
                    levels[self._to[arc]] = levels[point] + 1
                    pending.append(self._to[arc])
        return levels

    def _augment(self, levels: list[int], cursor: list[int]) -> bool:
        """Send what fits along one shortest path; False if there is none left."""
        path: list[int] = []
        point = 0
        while point != 1:
            arcs = self._heads[point]
            while cursor[point] < len(arcs):
                arc = arcs[cursor[point]]
                if self._left[arc] > 0 and levels[self._to[arc]] == levels[point] + 1:
                    break
                cursor[point] += 1
            else:
                if point == 0:
                    return False
                back = path.pop()
                point = self._to[back ^ 1]
                cursor[point] += 1
                continue
            path.append(arc)
            point = self._to[arc]
        amount = min(self._left[arc] for arc in path)
        for arc in path:
            self._left[arc] -= amount
            self._left[arc ^ 1] += amount
        return True
