import unittest

from roman import from_roman, is_roman, to_roman


class RomanTest(unittest.TestCase):
    def test_small(self):
        self.assertEqual(to_roman(3), "III")

    def test_reads_small(self):
        self.assertEqual(from_roman("III"), 3)

    def test_zero(self):
        with self.assertRaises(ValueError):
            to_roman(0)

    def test_is_roman(self):
        self.assertFalse(is_roman("ABC"))


if __name__ == "__main__":
    unittest.main()
