"""A set of half-open integer intervals `[start, end)`."""


class IntervalSet:
    """Keeps its intervals sorted and apart: none overlaps or touches another."""

    def __init__(self, spans=()):
        self._spans = []
        for start, end in spans:
            self.add(start, end)

    def spans(self):
        """The intervals, sorted."""
        return list(self._spans)

    def add(self, start, end):
        """Adds `[start, end)`; an empty interval changes nothing."""
        if start > end:
            raise ValueError("an interval must not end before it starts")
        if start == end:
            return
        kept = []
        for left, right in self._spans:
            if right < start or left > end:
                kept.append((left, right))
            else:
                start = min(start, left)
                end = max(end, right)
        kept.append((start, end))
        self._spans = sorted(kept)

    def remove(self, start, end):
        """Takes `[start, end)` out; what lies around it stays."""
        kept = []
        for left, right in self._spans:
            if left < min(right, start):
                kept.append((left, min(right, start)))
            if max(left, end) < right:
                kept.append((max(left, end), right))
        self._spans = kept

    def contains(self, point):
        """Whether a point lies in one of the intervals."""
        return any(left <= point < right for left, right in self._spans)

    def total(self):
        """How many integers the set holds."""
        return sum(right - left for left, right in self._spans)

    def gaps(self, start, end):
        """The intervals of `[start, end)` that are not in the set."""
        free = []
        at = start
        for left, right in self._spans:
            if right <= start or left >= end:
                continue
            if left > at:
                free.append((at, left))
            at = right
        if at < end:
            free.append((at, end))
        return free
