from roman import add, from_roman, is_roman, sort_numerals, subtract, to_roman


def case_ones():
    """The numbers from 1 to 10 are written correctly."""
    return [to_roman(number) for number in range(1, 11)]


def case_tens():
    """The tens are written correctly."""
    return [to_roman(number) for number in range(10, 101, 10)]


def case_hundreds():
    """The hundreds are written correctly."""
    return [to_roman(number) for number in range(100, 1001, 100)]


def case_years():
    """Years are written correctly."""
    return [to_roman(year) for year in (1066, 1444, 1789, 1994, 2024)]


def case_largest():
    """3999 is the largest number."""
    return to_roman(3999)


def case_too_large():
    """4000 is refused."""
    return to_roman(4000)


def case_zero():
    """There is no zero."""
    return to_roman(0)


def case_negative():
    """Negative numbers are refused."""
    return to_roman(-3)


def case_reads_ones():
    """The numerals from I to X are read correctly."""
    return [from_roman(text) for text in "I II III IV V VI VII VIII IX X".split()]


def case_reads_years():
    """Years are read correctly."""
    return [from_roman(text) for text in "MLXVI MCDXLIV MDCCLXXXIX MCMXCIV MMXXIV".split()]


def case_reads_lower_case():
    """Small letters are accepted."""
    return from_roman("mcmxciv")


def case_reads_spaces():
    """Spaces around a numeral do not matter."""
    return from_roman("  XIV ")


def case_reads_largest():
    """The largest numeral is read."""
    return from_roman("MMMCMXCIX")


def case_refuses_mmmm():
    """MMMM is beyond the largest numeral."""
    return from_roman("MMMM")


def case_refuses_iiii():
    """IIII is not canonical."""
    return from_roman("IIII")


def case_refuses_order():
    """IVX is no numeral."""
    return from_roman("IVX")


def case_refuses_empty():
    """An empty text is no numeral."""
    return from_roman("  ")


def case_refuses_letters():
    """Other letters are refused."""
    return from_roman("XYZ")


def case_round_trip():
    """Every number from 1 to 3999 is read back from what is written; this lists those that are not."""
    return [number for number in range(1, 4000) if from_roman(to_roman(number)) != number]


def case_is_roman():
    """Canonical numerals are told from other texts."""
    return [is_roman(text) for text in ("XIV", "xiv", "VX", "", "IC", "MM")]


def case_add():
    """Numerals are added."""
    return [add("IV", "V"), add("MCM", "XCIX"), add("I", "I")]


def case_add_too_large():
    """A sum beyond 3999 is refused."""
    return add("MMM", "M")


def case_subtract():
    """Numerals are subtracted."""
    return [subtract("X", "I"), subtract("MM", "VI")]


def case_subtract_to_zero():
    """A difference of zero is refused."""
    return subtract("X", "X")


def case_sort():
    """Numerals are sorted by value, the smallest first."""
    return sort_numerals(["X", "IV", "M", "I"])


def case_sort_descending():
    """Numerals can be sorted the largest first."""
    return sort_numerals(["X", "IV", "M", "I"], descending=True)
