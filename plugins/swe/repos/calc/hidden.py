from calc import evaluate
from tokens import tokenize


def case_sum():
    """Sums and differences go from left to right."""
    return [evaluate("10 - 3 - 2"), evaluate("10 - 3 + 2"), evaluate("1+2+3")]


def case_product():
    """Products and quotients go from left to right."""
    return [evaluate("24 / 4 / 2"), evaluate("24 / 4 * 2"), evaluate("2*3*4")]


def case_precedence():
    """Products bind tighter than sums."""
    return [evaluate("2 + 3 * 4"), evaluate("2 * 3 + 4"), evaluate("20 - 6 / 2")]


def case_remainder():
    """The remainder is an operator like the quotient."""
    return [evaluate("17 % 5"), evaluate("2 + 17 % 5 * 2")]


def case_power():
    """Powers bind tighter than products."""
    return [evaluate("2 * 3 ^ 2"), evaluate("2 ^ 3 * 2"), evaluate("4 ^ 0.5")]


def case_power_right():
    """Powers group to the right."""
    return evaluate("2 ^ 3 ^ 2")


def case_power_sign():
    """A power binds tighter than a sign before it."""
    return [evaluate("-2 ^ 2"), evaluate("(-2) ^ 2")]


def case_power_negative():
    """An exponent may have a sign."""
    return evaluate("2 ^ -1")


def case_sign():
    """Signs may stand before any number, and repeat."""
    return [evaluate("-5 + 3"), evaluate("4 * -2"), evaluate("--4"), evaluate("+7"), evaluate("3 - -2")]


def case_brackets():
    """Brackets come first."""
    return [evaluate("(2 + 3) * 4"), evaluate("2 * (3 - (4 - 6))")]


def case_decimals():
    """Numbers may have decimals."""
    return [evaluate("1.5 * 2"), evaluate(".5 + .25"), evaluate("3. + 1")]


def case_two_points():
    """A number with two points is refused."""
    return evaluate("1.2.3")


def case_only_point():
    """A point alone is no number."""
    return evaluate(".")


def case_names():
    """Names stand for their values."""
    return evaluate("width * (height_2 + 1)", {"width": 3, "height_2": 4})


def case_name_zero():
    """A name may stand for zero."""
    return evaluate("a + b", {"a": 0, "b": 2})


def case_unknown_name():
    """An unknown name is refused."""
    return evaluate("x + 1", {"y": 1})


def case_division_by_zero():
    """Dividing by zero is an error."""
    return evaluate("1 / (2 - 2)")


def case_remainder_by_zero():
    """The remainder by zero is an error."""
    return evaluate("1 % 0")


def case_times_zero():
    """Multiplying by zero is allowed."""
    return evaluate("5 * 0")


def case_unclosed():
    """A bracket that is not closed is refused."""
    return evaluate("(1 + 2")


def case_too_many_closed():
    """A bracket that was not opened is refused."""
    return evaluate("1 + 2)")


def case_two_numbers():
    """Two numbers side by side are refused."""
    return evaluate("1 2")


def case_ends_early():
    """An expression that ends with an operator is refused."""
    return evaluate("1 +")


def case_empty():
    """An empty text is refused."""
    return evaluate("  ")


def case_operator_first():
    """An expression cannot begin with `*`."""
    return evaluate("* 2")


def case_character():
    """A character that means nothing is refused."""
    return evaluate("1 & 2")


def case_tokens():
    """Tokens have a kind and a value."""
    return tokenize("a1+ 2.5*(_b)")


def case_tokens_spaces():
    """Spaces separate tokens and are none."""
    return tokenize(" 12 3\t4 ")
