"""A cache that forgets what was used longest ago."""

from collections import OrderedDict


class LRUCache:
    """Holds at most `capacity` entries; each lives `ttl` seconds, or for ever."""

    def __init__(self, capacity, ttl=None):
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self.ttl = ttl
        self.hits = 0
        self.misses = 0
        self._entries = OrderedDict()

    def __len__(self):
        return len(self._entries)

    def keys(self):
        """The keys, the least recently used first."""
        return list(self._entries)

    def _expired(self, born, now):
        return self.ttl is not None and now - born >= self.ttl

    def get(self, key, default=None, now=0):
        """The value of a key, which becomes the most recently used."""
        if key not in self._entries:
            self.misses += 1
            return default
        value, born = self._entries[key]
        if self._expired(born, now):
            del self._entries[key]
            self.misses += 1
            return default
        self.hits += 1
        self._entries.move_to_end(key)
        return value

    def put(self, key, value, now=0):
        """Sets a value; the key becomes the most recently used. Returns the key that was forgotten, or None."""
        self._entries[key] = (value, now)
        self._entries.move_to_end(key)
        if len(self._entries) > self.capacity:
            forgotten, _ = self._entries.popitem(last=False)
            return forgotten
        return None

    def resize(self, capacity):
        """Changes the capacity; forgets the least recently used until it fits."""
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)

    def purge(self, now):
        """Forgets all that has expired and says how many that were."""
        old = [key for key, (_, born) in self._entries.items() if self._expired(born, now)]
        for key in old:
            del self._entries[key]
        return len(old)

    def hit_rate(self):
        """The share of look-ups that found something; 0.0 before the first."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0
