from csvreader import parse, quote, records, write


def case_plain():
    """Plain fields are split at commas and rows at line breaks."""
    return parse("a,b\nc,d\n")


def case_no_last_break():
    """The last row counts without a line break, too."""
    return parse("a,b\nc,d")


def case_one_field():
    """A single field without a line break is a row."""
    return parse("a")


def case_empty():
    """An empty text has no rows."""
    return parse("")


def case_empty_fields():
    """Empty fields are kept."""
    return parse(",a,,\n")


def case_last_field_empty():
    """An empty last field counts without a line break, too."""
    return parse("a,b\nc,")


def case_quoted_comma():
    """A comma in quotes belongs to the field."""
    return parse('x,"a,b",y\n')


def case_quoted_break():
    """A line break in quotes belongs to the field."""
    return parse('"two\nlines",b\n')


def case_doubled_quote():
    """A doubled quote in quotes is one quote."""
    return parse('"say ""hi""",b\n')


def case_only_quote():
    """A field may be a single quote."""
    return parse('"""",x\n')


def case_quote_inside():
    """A quote in the middle of a plain field is an ordinary character."""
    return parse('5" disk,b\n')


def case_quoted_empty():
    """An empty quoted field is an empty field."""
    return parse('"",b\n')


def case_unclosed():
    """A quoted field that is never closed is refused."""
    return parse('"abc\n')


def case_windows():
    """Windows line breaks are read like any others."""
    return parse("a,b\r\nc,d\r\n")


def case_other_separator():
    """Another separator can be given."""
    return parse('a;"b;c";d,e\n', ";")


def case_records():
    """Rows become dictionaries keyed by the header."""
    return records("name,age\nAda,36\nAlan,41\n")


def case_records_short():
    """Fields missing at the end of a row are empty."""
    return records("a,b,c\n1\n")


def case_records_long():
    """A row with more fields than the header is refused."""
    return records("a,b\n1,2,3\n")


def case_records_separator():
    """Records can use another separator."""
    return records("a;b\n1;2\n", ";")


def case_records_header_only():
    """A header alone has no records."""
    return [records("a,b\n"), records("")]


def case_quote_plain():
    """A plain field is written without quotes."""
    return quote("plain text")


def case_quote_special():
    """A field with a comma, a quote or a line break is written in quotes."""
    return [quote("a,b"), quote('a"b'), quote("a\nb")]


def case_quote_separator():
    """Only the separator in use needs quotes."""
    return [quote("a,b", ";"), quote("a;b", ";")]


def case_write():
    """Rows are written one a line."""
    return write([["a", "b,c"], ["", 'd"e']])


def case_write_separator():
    """Rows can be written with another separator."""
    return write([["a;b", "c,d"]], ";")


def case_round_trip():
    """What was written is read back."""
    return parse(write([["a,b", 'c"d', "e\nf"], ["", "x", ""]]))
