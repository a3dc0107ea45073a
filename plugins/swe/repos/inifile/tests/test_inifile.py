import unittest

from inifile import dump, flag, parse


class IniFileTest(unittest.TestCase):
    def test_parse(self):
        self.assertEqual(parse("[a]\nx = 1\n"), {"a": {"x": "1"}})

    def test_comment_line(self):
        self.assertEqual(parse("; nothing\n[a]\n"), {"a": {}})

    def test_dump(self):
        self.assertEqual(dump({"a": {"x": "1"}}), "[a]\nx = 1\n")

    def test_flag(self):
        self.assertTrue(flag({"a": {"x": "yes"}}, "a", "x"))


if __name__ == "__main__":
    unittest.main()
