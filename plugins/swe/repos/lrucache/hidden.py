from lrucache import LRUCache


def filled(capacity, keys, ttl=None):
    cache = LRUCache(capacity, ttl)
    for key in keys:
        cache.put(key, key.upper())
    return cache


def case_forgets_oldest():
    """When the cache is full, the entry that was used longest ago goes."""
    cache = filled(2, "abc")
    return cache.keys()


def case_put_reports():
    """`put` says which key it forgot."""
    cache = filled(2, "ab")
    return cache.put("c", 3)


def case_put_reports_none():
    """`put` says None while there is room."""
    cache = filled(3, "ab")
    return [cache.put("c", 3), cache.put("a", 4)]


def case_exactly_full():
    """A cache of capacity 3 holds 3 entries."""
    return len(filled(3, "abc"))


def case_get_refreshes():
    """Looking an entry up makes it the most recently used."""
    cache = filled(2, "ab")
    cache.get("a")
    cache.put("c", 3)
    return cache.keys()


def case_put_refreshes():
    """Setting a key again makes it the most recently used."""
    cache = filled(2, "ab")
    cache.put("a", 9)
    cache.put("c", 3)
    return [cache.keys(), cache.get("a")]


def case_default():
    """A missing key gives the default."""
    return filled(2, "a").get("z", "none")


def case_default_is_none():
    """A missing key gives None unless told otherwise."""
    return filled(2, "a").get("z")


def case_falsy_value():
    """A value of 0 is a value."""
    cache = LRUCache(2)
    cache.put("zero", 0)
    return [cache.get("zero", 7), cache.hits]


def case_capacity_one():
    """A cache of capacity 1 works."""
    return filled(1, "ab").keys()


def case_capacity_zero():
    """A capacity of 0 is refused."""
    return LRUCache(0).capacity


def case_ttl_lives():
    """An entry is there until its time is up."""
    cache = LRUCache(2, ttl=10)
    cache.put("a", 1, now=100)
    return cache.get("a", now=109)


def case_ttl_expires():
    """An entry is gone when exactly its time has passed."""
    cache = LRUCache(2, ttl=10)
    cache.put("a", 1, now=100)
    return cache.get("a", "gone", now=110)


def case_ttl_removes():
    """An expired entry is taken out when it is looked up."""
    cache = LRUCache(2, ttl=10)
    cache.put("a", 1, now=0)
    cache.get("a", now=50)
    return len(cache)


def case_ttl_renewed():
    """Setting a key again starts its time anew."""
    cache = LRUCache(2, ttl=10)
    cache.put("a", 1, now=0)
    cache.put("a", 2, now=8)
    return cache.get("a", now=15)


def case_no_ttl():
    """Without a time to live, entries stay."""
    cache = filled(2, "a")
    return cache.get("a", now=10**9)


def case_counts():
    """Hits and misses are counted."""
    cache = filled(2, "ab")
    cache.get("a")
    cache.get("b")
    cache.get("z")
    return [cache.hits, cache.misses]


def case_expired_is_a_miss():
    """Looking up an expired entry is a miss."""
    cache = LRUCache(2, ttl=5)
    cache.put("a", 1, now=0)
    cache.get("a", now=6)
    return [cache.hits, cache.misses]


def case_hit_rate():
    """The hit rate is hits by look-ups."""
    cache = filled(2, "ab")
    cache.get("a")
    cache.get("z")
    cache.get("y")
    cache.get("x")
    return cache.hit_rate()


def case_hit_rate_unused():
    """The hit rate of an unused cache is 0.0."""
    return LRUCache(3).hit_rate()


def case_resize_smaller():
    """Shrinking forgets the least recently used."""
    cache = filled(4, "abcd")
    cache.get("a")
    cache.resize(2)
    return cache.keys()


def case_resize_bigger():
    """Growing makes room."""
    cache = filled(2, "ab")
    cache.resize(3)
    cache.put("c", 3)
    return cache.keys()


def case_resize_zero():
    """Shrinking to 0 is refused."""
    return filled(2, "ab").resize(0)


def case_purge():
    """`purge` takes out what has expired, counts it and keeps the rest."""
    cache = LRUCache(5, ttl=10)
    cache.put("a", 1, now=0)
    cache.put("b", 2, now=5)
    cache.put("c", 3, now=9)
    return [cache.purge(now=15), cache.keys()]
