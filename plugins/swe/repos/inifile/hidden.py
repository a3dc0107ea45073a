from inifile import dump, flag, parse, strip_comment, unquote


def case_sections():
    """Every key belongs to the section above it."""
    return parse("[a]\nx = 1\ny=2\n\n[b]\nx = 3\n")


def case_no_section():
    """Keys before the first section belong to the nameless one."""
    return parse("x = 1\n[a]\ny = 2\n")


def case_section_again():
    """A section may come twice; its keys are joined."""
    return parse("[a]\nx = 1\n[b]\n[a]\ny = 2\n")


def case_key_again():
    """Of two equal keys the last one counts."""
    return parse("[a]\nx = 1\nx = 2\n")


def case_case():
    """Sections and keys ignore case, values keep it."""
    return parse("[Server]\nPort = Eighty\n")


def case_spaces():
    """Spaces around names and values do not matter."""
    return parse("[ a ]\nx   =   1 2  \n")


def case_equals_in_value():
    """A value may hold an equals sign."""
    return parse("[a]\nx = b = c\n")


def case_empty_value():
    """A value may be empty."""
    return parse("[a]\nx =\n")


def case_comment_after_value():
    """A comment after a space is no part of the value."""
    return parse("[a]\nx = 1 ; one\ny = 2 # two\n")


def case_comment_mark_in_value():
    """A mark without a space before it is part of the value."""
    return parse("[a]\nurl = a;b#c\n")


def case_comment_line():
    """Comment lines are skipped."""
    return parse("# one\n[a]\n; two\nx = 1\n")


def case_quoted():
    """Quotes keep spaces and comment marks."""
    return parse('[a]\nx = "  one ; two  "\n')


def case_unquote():
    """Quotes are taken off only where they are on both sides."""
    return [unquote('"a"'), unquote('"a'), unquote('a"'), unquote('""'), unquote('"')]


def case_strip_comment():
    """A comment may begin at the beginning of a line, or after a space."""
    return [strip_comment(line) for line in (";x", "a ;x", "a;x", 'a " ;" b', "a #x ;y")]


def case_continuation():
    """A line that begins with a space goes on with the value above."""
    return parse("[a]\nx = one\n  two\n\tthree\ny = 4\n")


def case_indented_key():
    """Without a value above, a line that begins with a space is a key."""
    return parse("[a]\n  x = 1\n")


def case_blank_lines():
    """Blank lines are skipped."""
    return parse("\n\n[a]\n\nx = 1\n\n  \n")


def case_unclosed_section():
    """A section that is not closed is refused."""
    return parse("[a\nx = 1\n")


def case_no_equals():
    """A line that is neither a section nor a key is refused."""
    return parse("[a]\nhello\n")


def case_no_name():
    """A value without a key is refused."""
    return parse("[a]\n= 1\n")


def case_dump():
    """Sections are written in order, with a blank line between them."""
    return dump({"b": {"x": "1"}, "a": {"y": "2", "z": "3"}})


def case_dump_nameless():
    """The nameless section comes first and has no title."""
    return dump({"a": {"x": "1"}, "": {"y": "2"}})


def case_dump_quotes():
    """Values with outer spaces or comment marks are written in quotes."""
    return dump({"a": {"x": " one", "y": "a ; b", "z": "plain text"}})


def case_dump_lines():
    """Values of several lines are indented."""
    return dump({"a": {"x": "one\ntwo\nthree"}})


def case_round_trip():
    """What was written is read back."""
    return parse(dump({"": {"k": "v"}, "a": {"x": "one\ntwo", "y": " s ", "z": "a # b"}}))


def case_flag():
    """Words for yes and no are understood in either case."""
    words = ("1", "YES", "true", "On", "0", "no", "False", "off")
    return [flag({"a": {"x": word}}, "a", "x") for word in words]


def case_flag_default():
    """A missing key or section gives the default."""
    return [flag({}, "a", "x"), flag({"a": {}}, "a", "x", True), flag({"a": {"x": "no"}}, "a", "x", True)]


def case_flag_other():
    """Other words are refused."""
    return flag({"a": {"x": "maybe"}}, "a", "x")
