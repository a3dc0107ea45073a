import unittest

from calc import evaluate


class CalcTest(unittest.TestCase):
    def test_sum(self):
        self.assertEqual(evaluate("1 + 2"), 3)

    def test_precedence(self):
        self.assertEqual(evaluate("2 + 3 * 4"), 14)

    def test_brackets(self):
        self.assertEqual(evaluate("(2 + 3) * 4"), 20)

    def test_rubbish(self):
        with self.assertRaises(ValueError):
            evaluate("1 $ 2")


if __name__ == "__main__":
    unittest.main()
