"""Small dense matrices of numbers."""


class Matrix:
    """A matrix as a list of rows; never changed in place."""

    def __init__(self, rows):
        if not rows or not rows[0]:
            raise ValueError("a matrix needs at least one number")
        if any(len(row) != len(rows[0]) for row in rows):
            raise ValueError("all rows must have the same length")
        self.rows = [list(row) for row in rows]

    @classmethod
    def identity(cls, size):
        """Ones on the diagonal, zeros elsewhere."""
        return cls([[1 if row == column else 0 for column in range(size)] for row in range(size)])

    @property
    def shape(self):
        """The number of rows and of columns."""
        return len(self.rows), len(self.rows[0])

    def transpose(self):
        """Rows become columns."""
        return Matrix([list(column) for column in zip(*self.rows)])

    def __add__(self, other):
        if self.shape != other.shape:
            raise ValueError("shapes differ")
        pairs = zip(self.rows, other.rows)
        return Matrix([[a + b for a, b in zip(left, right)] for left, right in pairs])

    def scale(self, factor):
        """Every number times a factor."""
        return Matrix([[factor * number for number in row] for row in self.rows])

    def __matmul__(self, other):
        if self.shape[1] != other.shape[0]:
            raise ValueError("the inner sizes differ")
        columns = other.transpose().rows
        return Matrix([[sum(a * b for a, b in zip(row, column)) for column in columns] for row in self.rows])

    def minor(self, row, column):
        """Without one row and one column."""
        kept = [numbers for number, numbers in enumerate(self.rows) if number != row]
        return Matrix([numbers[:column] + numbers[column + 1 :] for numbers in kept])

    def determinant(self):
        """By expansion along the first row."""
        height, width = self.shape
        if height != width:
            raise ValueError("only a square matrix has a determinant")
        if height == 1:
            return self.rows[0][0]
        total = 0
        for column in range(width):
            sign = -1 if column % 2 else 1
            total += sign * self.rows[0][column] * self.minor(0, column).determinant()
        return total

    def power(self, exponent):
        """The matrix times itself, `exponent` times; the identity for 0."""
        if exponent < 0:
            raise ValueError("the exponent must not be negative")
        result = Matrix.identity(self.shape[0])
        base = self
        while exponent > 0:
            if exponent % 2 == 1:
                result = result @ base
            base = base @ base
            exponent //= 2
        return result

    def trace(self):
        """The sum of the diagonal."""
        return sum(self.rows[place][place] for place in range(min(self.shape)))
