import unittest

from semver import bump, compare, parse, satisfies


class SemverTest(unittest.TestCase):
    def test_parse(self):
        self.assertEqual(parse("1.2.3"), (1, 2, 3, []))

    def test_compare(self):
        self.assertEqual(compare("1.2.3", "1.2.3"), 0)
        self.assertEqual(compare("1.2.3", "2.0.0"), -1)

    def test_bump(self):
        self.assertEqual(bump("1.2.3", "patch"), "1.2.4")

    def test_exact_range(self):
        self.assertTrue(satisfies("1.2.3", "1.2.3"))


if __name__ == "__main__":
    unittest.main()
