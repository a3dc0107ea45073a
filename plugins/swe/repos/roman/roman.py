"""Roman numerals from 1 to 3999."""

LARGEST = 3999

SYMBOLS = [
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
]


def to_roman(number):
    """The numeral of a number."""
    if number < 1 or number > LARGEST:
        raise ValueError(f"{number} is not between 1 and {LARGEST}")
    parts = []
    for value, symbol in SYMBOLS:
        count, number = divmod(number, value)
        parts.append(symbol * count)
    return "".join(parts)


def from_roman(numeral):
    """The number of a numeral, in either case; only the canonical form is accepted."""
    text = numeral.strip().upper()
    if not text:
        raise ValueError("an empty text is no numeral")
    total = 0
    at = 0
    for value, symbol in SYMBOLS:
        while text.startswith(symbol, at):
            total += value
            at += len(symbol)
    if at != len(text) or total > LARGEST or to_roman(total) != text:
        raise ValueError(f"{numeral!r} is no numeral")
    return total


def is_roman(text):
    """Whether a text is a canonical numeral."""
    try:
        from_roman(text)
    except ValueError:
        return False
    return True


def add(left, right):
    """The sum of two numerals, as a numeral."""
    return to_roman(from_roman(left) + from_roman(right))


def subtract(left, right):
    """The difference of two numerals, as a numeral; there is no zero and nothing below."""
    return to_roman(from_roman(left) - from_roman(right))


def sort_numerals(numerals, descending=False):
    """Numerals by their value; the same value keeps its order."""
    return sorted(numerals, key=from_roman, reverse=descending)
