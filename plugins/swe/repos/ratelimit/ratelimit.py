"""Two rate limiters; time is passed in, in seconds."""

from collections import deque


class TokenBucket:
    """Holds at most `burst` tokens, gains `rate` a second, and begins full."""

    def __init__(self, rate, burst):
        if rate <= 0 or burst < 1:
            raise ValueError("the rate must be positive and the burst at least 1")
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._seen = None

    def _refill(self, now):
        if self._seen is not None and now > self._seen:
            gained = (now - self._seen) * self.rate
            self._tokens = min(self.burst, self._tokens + gained)
        if self._seen is None or now > self._seen:
            self._seen = now

    def allow(self, now, cost=1):
        """Takes `cost` tokens where there are so many."""
        self._refill(now)
        if cost > self._tokens:
            return False
        self._tokens -= cost
        return True

    def wait(self, now, cost=1):
        """Seconds until `cost` tokens are there; None where that never happens."""
        if cost > self.burst:
            return None
        self._refill(now)
        missing = cost - self._tokens
        return max(0.0, missing / self.rate)


class SlidingWindow:
    """At most `limit` calls of a key in any `seconds`."""

    def __init__(self, limit, seconds):
        if limit < 1 or seconds <= 0:
            raise ValueError("the limit and the seconds must be positive")
        self.limit = limit
        self.seconds = seconds
        self._calls = {}

    def _recent(self, key, now):
        calls = self._calls.setdefault(key, deque())
        while calls and calls[0] <= now - self.seconds:
            calls.popleft()
        return calls

    def allow(self, key, now):
        """Counts a call where there is room for it."""
        calls = self._recent(key, now)
        if len(calls) >= self.limit:
            return False
        calls.append(now)
        return True

    def remaining(self, key, now):
        """How many more calls there is room for."""
        return self.limit - len(self._recent(key, now))

    def retry_after(self, key, now):
        """Seconds until there is room for a call."""
        calls = self._recent(key, now)
        if len(calls) < self.limit:
            return 0.0
        return calls[0] + self.seconds - now
