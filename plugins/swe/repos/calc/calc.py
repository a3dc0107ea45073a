"""A calculator for arithmetic in text."""

from tokens import tokenize


class Parser:
    """Recursive descent: sum, product, sign, power, atom."""

    def __init__(self, tokens, names):
        self.tokens = tokens
        self.names = names
        self.at = 0

    def peek(self):
        """The operator that is next, or None."""
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "operator":
            return self.tokens[self.at][1]
        return None

    def sum(self):
        """`product (+|- product)*`"""
        value = self.product()
        while self.peek() in ("+", "-"):
            operator = self.peek()
            self.at += 1
            right = self.product()
            value = value + right if operator == "+" else value - right
        return value

    def product(self):
        """`sign (*|/|% sign)*`"""
        value = self.sign()
        while self.peek() in ("*", "/", "%"):
            operator = self.peek()
            self.at += 1
            right = self.sign()
            if operator == "*":
                value = value * right
            elif right == 0:
                raise ZeroDivisionError("division by zero")
            elif operator == "/":
                value = value / right
            else:
                value = value % right
        return value

    def sign(self):
        """`(+|-) sign | power`"""
        operator = self.peek()
        if operator in ("+", "-"):
            self.at += 1
            value = self.sign()
            return -value if operator == "-" else value
        return self.power()

    def power(self):
        """`atom (^ sign)?`"""
        base = self.atom()
        if self.peek() == "^":
            self.at += 1
            return base ** self.sign()
        return base

    def atom(self):
        """A number, a name, or a sum in brackets."""
        if self.at >= len(self.tokens):
            raise ValueError("the expression ends too early")
        kind, value = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return value
        if kind == "name":
            if value not in self.names:
                raise ValueError(f"{value!r} is not known")
            return float(self.names[value])
        if value != "(":
            raise ValueError(f"unexpected {value!r}")
        inner = self.sum()
        if self.peek() != ")":
            raise ValueError("a bracket is not closed")
        self.at += 1
        return inner


def evaluate(text, names=None):
    """The value of an expression."""
    parser = Parser(tokenize(text), names or {})
    value = parser.sum()
    if parser.at < len(parser.tokens):
        raise ValueError("the expression does not end where it should")
    return value
