from matrix import Matrix


def case_identity():
    """The identity has ones on its diagonal only."""
    return Matrix.identity(3).rows


def case_shape():
    """The shape is rows, then columns."""
    return Matrix([[1, 2, 3], [4, 5, 6]]).shape


def case_ragged():
    """Rows of different lengths are refused."""
    return Matrix([[1, 2], [3]]).rows


def case_empty():
    """A matrix without numbers is refused."""
    return Matrix([]).rows


def case_empty_row():
    """A matrix of empty rows is refused."""
    return Matrix([[], []]).rows


def case_transpose():
    """Transposing makes columns of rows."""
    return Matrix([[1, 2, 3], [4, 5, 6]]).transpose().rows


def case_add():
    """Matrices are added number by number."""
    return (Matrix([[1, 2], [3, 4]]) + Matrix([[10, 20], [30, 40]])).rows


def case_add_shapes():
    """Matrices of different shapes cannot be added."""
    return (Matrix([[1, 2]]) + Matrix([[1], [2]])).rows


def case_scale():
    """Scaling multiplies every number."""
    return Matrix([[1, -2], [3, 0]]).scale(3).rows


def case_product():
    """The product is rows times columns."""
    return (Matrix([[1, 2], [3, 4]]) @ Matrix([[5, 6], [7, 8]])).rows


def case_product_shapes():
    """The product of a 2 by 3 and a 3 by 1 matrix is 2 by 1."""
    return (Matrix([[1, 2, 3], [4, 5, 6]]) @ Matrix([[1], [0], [2]])).rows


def case_product_mismatch():
    """A product needs equal inner sizes."""
    return (Matrix([[1, 2]]) @ Matrix([[1, 2]])).rows


def case_product_mismatch_tall():
    """Equal outer sizes are not enough for a product."""
    return (Matrix([[1, 2, 3], [4, 5, 6]]) @ Matrix([[1, 2, 3], [4, 5, 6]])).rows


def case_minor():
    """A minor leaves out one row and one column."""
    return Matrix([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).minor(1, 2).rows


def case_minor_first():
    """The first row and column can be left out."""
    return Matrix([[1, 2, 3], [4, 5, 6], [7, 8, 10]]).minor(0, 0).rows


def case_determinant_one():
    """The determinant of a single number is that number."""
    return Matrix([[7]]).determinant()


def case_determinant_two():
    """The determinant of a 2 by 2 matrix."""
    return Matrix([[1, 2], [3, 4]]).determinant()


def case_determinant_three():
    """The determinant of a 3 by 3 matrix."""
    return Matrix([[2, 0, 1], [1, 3, 2], [1, 1, 4]]).determinant()


def case_determinant_four():
    """The determinant of a 4 by 4 matrix."""
    return Matrix([[1, 2, 0, 1], [0, 1, 3, 2], [2, 1, 1, 0], [1, 0, 2, 4]]).determinant()


def case_determinant_not_square():
    """Only a square matrix has a determinant."""
    return Matrix([[1, 2, 3], [4, 5, 6]]).determinant()


def case_power_zero():
    """Power 0 is the identity."""
    return Matrix([[1, 2], [3, 4]]).power(0).rows


def case_power_two():
    """Power 2 is the matrix times itself."""
    return Matrix([[1, 2], [3, 4]]).power(2).rows


def case_power_ten():
    """Powers of the Fibonacci matrix hold Fibonacci numbers."""
    return Matrix([[1, 1], [1, 0]]).power(10).rows


def case_power_negative():
    """Negative powers are refused."""
    return Matrix([[1, 2], [3, 4]]).power(-1).rows


def case_trace():
    """The trace is the sum of the diagonal."""
    return Matrix([[1, 2, 3], [4, 5, 6], [7, 8, 9]]).trace()


def case_trace_not_square():
    """The trace of a matrix that is not square ends at the shorter side."""
    return Matrix([[1, 2, 3], [4, 5, 6]]).trace()


def case_input_is_copied():
    """Changing the input afterwards does not change the matrix."""
    rows = [[1, 2], [3, 4]]
    a = Matrix(rows)
    rows[0][0] = 99
    return a.rows
