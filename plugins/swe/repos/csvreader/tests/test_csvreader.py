import unittest

from csvreader import parse, records, write


class CsvReaderTest(unittest.TestCase):
    def test_rows(self):
        self.assertEqual(parse("a,b\nc,d\n"), [["a", "b"], ["c", "d"]])

    def test_quoted_comma(self):
        self.assertEqual(parse('"a,b",c\n'), [["a,b", "c"]])

    def test_records(self):
        self.assertEqual(records("x,y\n1,2\n"), [{"x": "1", "y": "2"}])

    def test_write(self):
        self.assertEqual(write([["a", "b"]]), "a,b\n")


if __name__ == "__main__":
    unittest.main()
