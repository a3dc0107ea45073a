from ratelimit import SlidingWindow, TokenBucket


def calls(bucket, *times):
    return [bucket.allow(now) for now in times]


def case_burst():
    """As many calls as the burst are allowed at once, and no more."""
    return calls(TokenBucket(1, 3), 0.0, 0.0, 0.0, 0.0)


def case_refill():
    """Tokens come back at the rate."""
    return calls(TokenBucket(2, 2), 0.0, 0.0, 0.25, 0.5, 0.75, 1.0)


def case_refill_capped():
    """No more tokens than the burst are saved."""
    return calls(TokenBucket(1, 2), 0.0, 100.0, 100.0, 100.0)


def case_refill_partial():
    """Parts of a token add up."""
    return calls(TokenBucket(1, 1), 0.0, 0.5, 1.0, 1.5, 2.0)


def case_starts_late():
    """The first call may come at any time."""
    return calls(TokenBucket(1, 2), 50.0, 50.0, 50.0)


def case_time_backwards():
    """A clock that goes backwards gives no tokens."""
    return calls(TokenBucket(1, 1), 10.0, 5.0, 10.0, 10.5, 11.0)


def case_cost():
    """A call may cost several tokens."""
    bucket = TokenBucket(1, 5)
    return [bucket.allow(0.0, 3), bucket.allow(0.0, 3), bucket.allow(0.0, 2), bucket.allow(0.0)]


def case_refused_costs_nothing():
    """A refused call takes no tokens."""
    bucket = TokenBucket(1, 2)
    return [bucket.allow(0.0, 3), bucket.allow(0.0, 2)]


def case_wait():
    """The wait is until enough tokens are there."""
    bucket = TokenBucket(2, 4)
    bucket.allow(0.0, 4)
    return [bucket.wait(0.0), bucket.wait(0.0, 4), bucket.wait(0.25)]


def case_wait_none():
    """There is no wait while tokens are there."""
    return TokenBucket(2, 4).wait(0.0, 4)


def case_wait_never():
    """More than the burst never comes."""
    return TokenBucket(1, 3).wait(0.0, 4)


def case_bad_rate():
    """A rate of 0 is refused."""
    return TokenBucket(0, 1).rate


def case_bad_burst():
    """A burst of 0 is refused."""
    return TokenBucket(1, 0).burst


def case_window():
    """At most `limit` calls are allowed in the window."""
    window = SlidingWindow(2, 10)
    return [window.allow("a", now) for now in (0, 1, 2, 3)]


def case_window_moves():
    """A call is forgotten when exactly the window's time has passed."""
    window = SlidingWindow(2, 10)
    return [window.allow("a", now) for now in (0, 4, 9, 10, 11, 14)]


def case_window_refused_costs_nothing():
    """Refused calls do not count."""
    window = SlidingWindow(1, 10)
    return [window.allow("a", now) for now in (0, 5, 9, 10)]


def case_window_keys():
    """Every key has a window of its own."""
    window = SlidingWindow(1, 10)
    return [window.allow(key, 0) for key in ("a", "b", "a", "b", "c")]


def case_remaining():
    """The remaining calls are counted down, and up again later."""
    window = SlidingWindow(3, 10)
    window.allow("a", 0)
    window.allow("a", 5)
    return [window.remaining("a", 5), window.remaining("a", 10), window.remaining("a", 15)]


def case_remaining_unknown():
    """An unknown key has all its calls left."""
    return SlidingWindow(3, 10).remaining("z", 0)


def case_remaining_full():
    """A full window has no calls left."""
    window = SlidingWindow(1, 10)
    window.allow("a", 0)
    return window.remaining("a", 9)


def case_retry_after():
    """The wait is until the oldest call is forgotten."""
    window = SlidingWindow(2, 10)
    window.allow("a", 0)
    window.allow("a", 3)
    return [window.retry_after("a", 4), window.retry_after("a", 9), window.retry_after("a", 10)]


def case_retry_after_room():
    """There is no wait while there is room."""
    window = SlidingWindow(2, 10)
    window.allow("a", 0)
    return window.retry_after("a", 1)


def case_bad_limit():
    """A limit of 0 is refused."""
    return SlidingWindow(0, 10).limit


def case_bad_seconds():
    """A window of no seconds is refused."""
    return SlidingWindow(1, 0).seconds
