"""Splits an expression into tokens."""

OPERATORS = "+-*/%^()"


def tokenize(text):
    """The tokens as pairs of a kind (`number`, `name` or `operator`) and a value."""
    tokens = []
    at = 0
    while at < len(text):
        char = text[at]
        if char.isspace():
            at += 1
        elif char.isdigit() or char == ".":
            end = at
            while end < len(text) and (text[end].isdigit() or text[end] == "."):
                end += 1
            digits = text[at:end]
            if digits.count(".") > 1 or digits == ".":
                raise ValueError(f"{digits!r} is no number")
            tokens.append(("number", float(digits)))
            at = end
        elif char.isalpha() or char == "_":
            end = at
            while end < len(text) and (text[end].isalnum() or text[end] == "_"):
                end += 1
            tokens.append(("name", text[at:end]))
            at = end
        elif char in OPERATORS:
            tokens.append(("operator", char))
            at += 1
        else:
            raise ValueError(f"unexpected {char!r} at {at}")
    return tokens
