import unittest

from ratelimit import SlidingWindow, TokenBucket


class RateLimitTest(unittest.TestCase):
    def test_bucket_begins_full(self):
        bucket = TokenBucket(1, 2)
        self.assertTrue(bucket.allow(0.0))
        self.assertTrue(bucket.allow(0.0))

    def test_bucket_runs_dry(self):
        bucket = TokenBucket(1, 1)
        bucket.allow(0.0)
        self.assertFalse(bucket.allow(0.0))

    def test_window_allows(self):
        self.assertTrue(SlidingWindow(1, 10).allow("a", 0.0))

    def test_window_keys_are_apart(self):
        window = SlidingWindow(1, 10)
        window.allow("a", 0.0)
        self.assertTrue(window.allow("b", 0.0))


if __name__ == "__main__":
    unittest.main()
