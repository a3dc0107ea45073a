import unittest

from wrapping import fill, justify, shorten, wrap


class WrappingTest(unittest.TestCase):
    def test_wraps(self):
        self.assertEqual(wrap("the quick brown fox", 10), ["the quick", "brown fox"])

    def test_short_text(self):
        self.assertEqual(wrap("hello", 20), ["hello"])

    def test_justify_one_word(self):
        self.assertEqual(justify("a", 4), "a   ")

    def test_shorten_keeps_short_text(self):
        self.assertEqual(shorten("hello", 10), "hello")

    def test_fill(self):
        self.assertEqual(fill("a b", 10), "a b")


if __name__ == "__main__":
    unittest.main()
