from wrapping import fill, justify, shorten, wrap


def case_wraps():
    """Words go to the next line when they do not fit."""
    return wrap("the quick brown fox jumps over the lazy dog", 12)


def case_exact_width():
    """A line may be exactly as long as the width."""
    return wrap("aaaa bbbb cc", 9)


def case_one_too_long():
    """A line is never one character longer than the width."""
    return wrap("aaaa bbbbb cc", 9)


def case_long_word():
    """A word longer than the width is cut."""
    return wrap("abcdefghij", 4)


def case_long_word_after():
    """A long word begins on a line of its own."""
    return wrap("ab cdefghij k", 4)


def case_word_of_width():
    """A word as long as the width is not cut."""
    return wrap("abcd efgh", 4)


def case_spaces():
    """Several spaces and line breaks count as one space."""
    return wrap("  a \n b\t c ", 10)


def case_empty():
    """An empty text has no lines."""
    return wrap("   ", 5)


def case_indent():
    """All lines but the first begin with the indent."""
    return wrap("one two three four", 9, "  ")


def case_indent_long_word():
    """The parts of a cut word are indented, too."""
    return wrap("abcdefghij", 5, "> ")


def case_indent_fits():
    """The indent counts towards the width."""
    return wrap("aa bbbb cccc", 6, "  ")


def case_no_room():
    """A width that the indent fills is refused."""
    return wrap("a b", 2, "  ")


def case_width_one():
    """A width of one works."""
    return wrap("ab c", 1)


def case_fill():
    """Paragraphs stay apart by one blank line."""
    return fill("one two three\n\nfour five", 8)


def case_fill_blank():
    """Empty paragraphs vanish."""
    return fill("one\n\n\n\n  \n\ntwo", 8)


def case_justify():
    """Spaces are spread evenly."""
    return justify("a b c", 9)


def case_justify_uneven():
    """Left-over spaces go to the first gaps."""
    return justify("aa bb cc dd", 16)


def case_justify_tight():
    """A line of exactly the width stays as it is."""
    return justify("ab cd", 5)


def case_justify_one_word():
    """A single word is filled up on the right."""
    return justify(" word ", 8)


def case_justify_too_long():
    """A line longer than the width is refused."""
    return justify("abc def", 6)


def case_justify_two():
    """Two words go to both ends."""
    return justify("left right", 14)


def case_shorten():
    """A long text is cut at a word and marked."""
    return shorten("the quick brown fox jumps", 15)


def case_shorten_exact():
    """A text of exactly the width is kept."""
    return shorten("the quick", 9)


def case_shorten_mark_fits():
    """The mark counts towards the width, which may be used up."""
    return shorten("the quick brown", 12)


def case_shorten_nothing_fits():
    """Where no word fits, only the mark is left."""
    return shorten("extraordinary things", 8)


def case_shorten_spaces():
    """Line breaks and spaces become one space."""
    return shorten(" a\n b   c ", 20)


def case_shorten_mark():
    """The mark can be chosen."""
    return shorten("alpha beta gamma", 11, "~")
