from runlength import decode, encode, longest_run, pack, runs, unpack


def case_encode():
    """Runs are written as a count and a character."""
    return encode("aaabccd")


def case_encode_single():
    """A run of one has no count."""
    return encode("abc")


def case_encode_pair():
    """A run of two has a count."""
    return encode("aabb")


def case_encode_long():
    """Counts may have several digits."""
    return encode("z" * 120)


def case_encode_digits():
    """Digits get a backslash."""
    return encode("a11b7")


def case_encode_backslash():
    """Backslashes get a backslash."""
    return encode("a\\\\b\\")


def case_decode():
    """A count repeats the character after it."""
    return decode("3ab2cd")


def case_decode_long():
    """Counts of several digits are read."""
    return decode("12x10y")


def case_decode_digits():
    """A digit after a backslash is a character."""
    return decode("a2\\1b\\7")


def case_decode_backslash():
    """A backslash after a backslash is a character."""
    return decode("3\\\\x")


def case_decode_ends_with_count():
    """A code that ends with a count is refused."""
    return decode("a3")


def case_decode_ends_with_backslash():
    """A code that ends with a backslash is refused."""
    return decode("a\\")


def case_decode_zero():
    """A count that begins with 0 is refused."""
    return decode("0a")


def case_decode_empty():
    """An empty code is an empty text."""
    return decode("")


def case_round_trip():
    """What was encoded is decoded."""
    return decode(encode("aab  111\\\\\\c0000000000002"))


def case_runs():
    """Runs are pairs of a count and an item."""
    return runs([1, 1, 2, 1, 1, 1])


def case_runs_empty():
    """Nothing has no runs."""
    return runs("")


def case_pack():
    """Bytes are packed in pairs."""
    return pack(b"aaab")


def case_pack_longest():
    """A run of 255 is one pair."""
    return pack(b"x" * 255)


def case_pack_longer():
    """A run of 256 takes two pairs."""
    return pack(b"x" * 256)


def case_pack_very_long():
    """A run of 600 takes three pairs."""
    return pack(b"x" * 600 + b"y")


def case_unpack():
    """Pairs are unpacked."""
    return unpack(bytes([3, 97, 1, 98]))


def case_unpack_long():
    """A long run is put together again."""
    return len(unpack(pack(b"q" * 1000)))


def case_unpack_odd():
    """A pair that is not complete is refused."""
    return unpack(bytes([3, 97, 1]))


def case_unpack_zero():
    """A count of 0 is refused."""
    return unpack(bytes([2, 97, 0, 98]))


def case_longest():
    """The longest run is found."""
    return longest_run("abbbccd")


def case_longest_first():
    """Of several longest runs, the first is taken."""
    return longest_run("aabbc")


def case_longest_none():
    """Nothing has no longest run."""
    return longest_run("")
