import unittest

from matrix import Matrix


class MatrixTest(unittest.TestCase):
    def test_shape(self):
        self.assertEqual(Matrix([[1, 2, 3], [4, 5, 6]]).shape, (2, 3))

    def test_add(self):
        self.assertEqual((Matrix([[1, 2]]) + Matrix([[3, 4]])).rows, [[4, 6]])

    def test_identity_changes_nothing(self):
        a = Matrix([[1, 2], [3, 4]])
        self.assertEqual((a @ Matrix.identity(2)).rows, a.rows)

    def test_power_of_one(self):
        self.assertEqual(Matrix([[5]]).power(1).rows, [[5]])


if __name__ == "__main__":
    unittest.main()
