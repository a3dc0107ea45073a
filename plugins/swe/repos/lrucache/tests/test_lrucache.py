import unittest

from lrucache import LRUCache


class LRUCacheTest(unittest.TestCase):
    def test_put_and_get(self):
        cache = LRUCache(2)
        cache.put("a", 1)
        self.assertEqual(cache.get("a"), 1)

    def test_missing(self):
        self.assertIsNone(LRUCache(2).get("a"))

    def test_length(self):
        cache = LRUCache(5)
        cache.put("a", 1)
        cache.put("b", 2)
        self.assertEqual(len(cache), 2)

    def test_capacity_must_be_positive(self):
        with self.assertRaises(ValueError):
            LRUCache(0)


if __name__ == "__main__":
    unittest.main()
