import unittest

from intervals import IntervalSet


class IntervalSetTest(unittest.TestCase):
    def test_adds_apart(self):
        self.assertEqual(IntervalSet([(7, 9), (1, 3)]).spans(), [(1, 3), (7, 9)])

    def test_merges_overlap(self):
        self.assertEqual(IntervalSet([(1, 5), (3, 8)]).spans(), [(1, 8)])

    def test_contains(self):
        self.assertTrue(IntervalSet([(1, 5)]).contains(3))
        self.assertFalse(IntervalSet([(1, 5)]).contains(9))

    def test_total(self):
        self.assertEqual(IntervalSet([(0, 4)]).total(), 4)


if __name__ == "__main__":
    unittest.main()
