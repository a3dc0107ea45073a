import unittest

from runlength import decode, encode, pack, unpack


class RunLengthTest(unittest.TestCase):
    def test_encode(self):
        self.assertEqual(encode("aaab"), "3ab")

    def test_decode(self):
        self.assertEqual(decode("3ab"), "aaab")

    def test_bytes(self):
        self.assertEqual(unpack(pack(b"aab")), b"aab")

    def test_nothing(self):
        self.assertEqual(encode(""), "")


if __name__ == "__main__":
    unittest.main()
