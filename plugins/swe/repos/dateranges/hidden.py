from dateranges import DateRange, add_months, days_in_month


def year(number=2024):
    return DateRange(f"{number}-01-01", f"{number}-12-31")


def case_days():
    """Both ends count."""
    return [DateRange("2024-02-27", "2024-03-02").days(), DateRange("2024-05-05", "2024-05-05").days(), year().days()]


def case_backwards():
    """A range that ends before it begins is refused."""
    return DateRange("2024-03-02", "2024-03-01").days()


def case_contains():
    """Both ends belong to the range."""
    week = DateRange("2024-03-04", "2024-03-10")
    return [week.contains(f"2024-03-{day:02d}") for day in (3, 4, 7, 10, 11)]


def case_month_lengths():
    """The months of an ordinary year."""
    return [days_in_month(2023, month) for month in range(1, 13)]


def case_leap_years():
    """Every fourth year is a leap year, but not every hundredth, but every four-hundredth."""
    return [days_in_month(number, 2) for number in (2024, 2023, 1900, 2000, 2100)]


def case_add_months():
    """The same day of a later month."""
    return [add_months("2024-01-15", months) for months in (0, 1, 11, 12, 25)]


def case_add_months_back():
    """The same day of an earlier month."""
    return [add_months("2024-01-15", months) for months in (-1, -12, -13)]


def case_add_months_short():
    """Where the month is too short, its last day."""
    return [add_months("2024-01-31", 1), add_months("2023-01-31", 1), add_months("2024-03-31", 1), add_months("2024-03-31", -1)]


def case_add_months_december():
    """December is reached from both sides."""
    return [add_months("2024-11-30", 1), add_months("2025-01-30", -1), add_months("2024-12-05", 1)]


def case_overlap():
    """The days that two ranges share."""
    return DateRange("2024-01-01", "2024-01-20").overlap(DateRange("2024-01-15", "2024-02-10"))


def case_overlap_inside():
    """A range within another is their overlap."""
    return [year().overlap(DateRange("2024-05-01", "2024-05-03")), DateRange("2024-05-01", "2024-05-03").overlap(year())]


def case_overlap_one_day():
    """One common day is an overlap."""
    return DateRange("2024-01-01", "2024-01-05").overlap(DateRange("2024-01-05", "2024-01-09"))


def case_overlap_none():
    """Ranges that only follow each other do not overlap."""
    return DateRange("2024-01-01", "2024-01-05").overlap(DateRange("2024-01-06", "2024-01-09"))


def case_joined():
    """Ranges that overlap can be joined."""
    return DateRange("2024-01-10", "2024-01-20").joined(DateRange("2024-01-01", "2024-01-12"))


def case_joined_next_day():
    """Ranges that follow each other can be joined, in either order."""
    first, second = DateRange("2024-01-01", "2024-01-05"), DateRange("2024-01-06", "2024-01-09")
    return [first.joined(second), second.joined(first)]


def case_joined_gap():
    """Ranges with a day between them cannot be joined, in either order."""
    first, second = DateRange("2024-01-01", "2024-01-05"), DateRange("2024-01-07", "2024-01-09")
    return [first.joined(second), second.joined(first)]


def case_joined_inside():
    """Joining a range with one inside it gives the outer one."""
    return year().joined(DateRange("2024-05-01", "2024-05-03"))


def case_weekdays():
    """Saturdays and Sundays are no weekdays."""
    return [DateRange("2024-02-27", "2024-03-02").weekdays(), DateRange("2024-03-02", "2024-03-03").weekdays(), DateRange("2024-03-04", "2024-03-17").weekdays()]


def case_weekdays_friday():
    """A Friday is a weekday, a Saturday is none."""
    return [DateRange("2024-03-01", "2024-03-01").weekdays(), DateRange("2024-03-02", "2024-03-02").weekdays()]


def case_weeks():
    """A range is split after every Sunday."""
    return DateRange("2024-03-01", "2024-03-12").weeks()


def case_weeks_sunday():
    """A Sunday alone is a week's end."""
    return DateRange("2024-03-03", "2024-03-04").weeks()


def case_weeks_whole():
    """A whole week is one part."""
    return DateRange("2024-03-04", "2024-03-10").weeks()


def case_weeks_year():
    """A year has so many parts."""
    return len(year().weeks())


def case_months():
    """All months that are touched are listed."""
    return DateRange("2023-11-30", "2024-02-01").months()


def case_months_one():
    """A range within a month touches one."""
    return DateRange("2024-12-01", "2024-12-31").months()


def case_months_year():
    """A year touches twelve months."""
    return year().months()


def case_text():
    """As a text, both days stand side by side."""
    return str(DateRange("2024-03-04", "2024-03-10"))
