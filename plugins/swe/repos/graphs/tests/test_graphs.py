import unittest

from graphs import Graph


class GraphTest(unittest.TestCase):
    def test_nodes(self):
        self.assertEqual(Graph([("b", "a", 1)]).nodes(), ["a", "b"])

    def test_direct_path(self):
        self.assertEqual(Graph([("a", "b", 2)]).shortest_path("a", "b"), (2, ["a", "b"]))

    def test_reachable(self):
        self.assertEqual(Graph([("a", "b", 1)]).reachable("a"), ["a", "b"])

    def test_order(self):
        self.assertEqual(Graph([("a", "b", 1)]).topological_order(), ["a", "b"])


if __name__ == "__main__":
    unittest.main()
