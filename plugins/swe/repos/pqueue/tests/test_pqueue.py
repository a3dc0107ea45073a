import unittest

from pqueue import PriorityQueue


class PriorityQueueTest(unittest.TestCase):
    def test_smallest_first(self):
        q = PriorityQueue()
        q.push("b", 2)
        q.push("a", 1)
        self.assertEqual(q.pop(), "a")

    def test_length(self):
        q = PriorityQueue()
        q.push("a", 1)
        self.assertEqual(len(q), 1)
        q.pop()
        self.assertEqual(len(q), 0)

    def test_empty(self):
        with self.assertRaises(IndexError):
            PriorityQueue().pop()


if __name__ == "__main__":
    unittest.main()
