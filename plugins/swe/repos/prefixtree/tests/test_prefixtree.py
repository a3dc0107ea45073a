import unittest

from prefixtree import PrefixTree


class PrefixTreeTest(unittest.TestCase):
    def test_count(self):
        self.assertEqual(PrefixTree(["a"]).count("a"), 1)

    def test_with_prefix(self):
        self.assertEqual(PrefixTree(["car", "dog"]).with_prefix("c"), ["car"])

    def test_length(self):
        self.assertEqual(len(PrefixTree(["a", "b"])), 2)

    def test_empty_word(self):
        with self.assertRaises(ValueError):
            PrefixTree([""])


if __name__ == "__main__":
    unittest.main()
