"""Reads and writes comma-separated text (RFC 4180)."""


def parse(text, separator=","):
    """The rows of a text, each a list of its fields."""
    rows = []
    row = []
    field = []
    quoted = False
    at = 0
    while at < len(text):
        char = text[at]
        if quoted:
            if char != '"':
                field.append(char)
            elif text[at + 1 : at + 2] == '"':
                field.append('"')
                at += 1
            else:
                quoted = False
        elif char == '"' and not field:
            quoted = True
        elif char == separator:
            row.append("".join(field))
            field = []
        elif char == "\n":
            row.append("".join(field))
            rows.append(row)
            row = []
            field = []
        elif char != "\r":
            field.append(char)
        at += 1
    if quoted:
        raise ValueError("a quoted field is not closed")
    if field or row:
        row.append("".join(field))
        rows.append(row)
    return rows


def records(text, separator=","):
    """The rows after the first as dictionaries, keyed by the first row. Missing fields are empty, surplus ones an error."""
    rows = parse(text, separator)
    if not rows:
        return []
    header = rows[0]
    found = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > len(header):
            raise ValueError(f"row {number} has {len(row)} fields, the header has {len(header)}")
        padded = row + [""] * (len(header) - len(row))
        found.append(dict(zip(header, padded)))
    return found


def quote(field, separator=","):
    """A field as it is written: in quotes only where it must be."""
    special = (separator, '"', "\n", "\r")
    if any(mark in field for mark in special):
        return '"' + field.replace('"', '""') + '"'
    return field


def write(rows, separator=","):
    """The text of some rows; every row ends with a line break."""
    lines = [separator.join(quote(field, separator) for field in row) for row in rows]
    return "".join(line + "\n" for line in lines)
