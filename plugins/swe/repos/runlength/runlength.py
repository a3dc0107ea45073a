"""Run-length coding of text and of bytes."""

LONGEST = 255


def runs(items):
    """The runs of a sequence, as pairs of a count and an item."""
    found = []
    for item in items:
        if found and found[-1][1] == item:
            found[-1] = (found[-1][0] + 1, item)
        else:
            found.append((1, item))
    return found


def encode(text):
    """A text, shorter where characters repeat."""
    parts = []
    for count, char in runs(text):
        if count > 1:
            parts.append(str(count))
        if char.isdigit() or char == "\\":
            parts.append("\\")
        parts.append(char)
    return "".join(parts)


def decode(code):
    """The text of a code."""
    parts = []
    count = 0
    at = 0
    while at < len(code):
        char = code[at]
        if char.isdigit():
            if char == "0" and count == 0:
                raise ValueError(f"a count begins with 0 at {at}")
            count = count * 10 + int(char)
            at += 1
            continue
        if char == "\\":
            at += 1
            if at == len(code):
                raise ValueError("the code ends with a backslash")
            char = code[at]
        parts.append(char * max(count, 1))
        count = 0
        at += 1
    if count > 0:
        raise ValueError("the code ends with a count")
    return "".join(parts)


def pack(data):
    """Bytes as pairs of a count and a value; long runs take several pairs."""
    packed = bytearray()
    for count, value in runs(data):
        while count > LONGEST:
            packed += bytes([LONGEST, value])
            count -= LONGEST
        packed += bytes([count, value])
    return bytes(packed)


def unpack(packed):
    """The bytes of some pairs."""
    if len(packed) % 2 != 0:
        raise ValueError("a pair is not complete")
    data = bytearray()
    for at in range(0, len(packed), 2):
        count, value = packed[at], packed[at + 1]
        if count == 0:
            raise ValueError(f"a count is 0 at {at}")
        data += bytes([value]) * count
    return bytes(data)


def longest_run(items):
    """The longest run, the first of several; None for nothing."""
    best = None
    for count, item in runs(items):
        if best is None or count > best[0]:
            best = (count, item)
    return best
