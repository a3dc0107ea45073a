"""Ranges of days, both ends included."""

from datetime import date, timedelta

DAY = timedelta(days=1)


def days_in_month(year, month):
    """How many days a month has."""
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return 29 if leap else 28
    return 30 if month in (4, 6, 9, 11) else 31


def add_months(day, months):
    """The same day some months later, or earlier; the last of the month where there is no such day."""
    start = date.fromisoformat(day)
    index = start.year * 12 + (start.month - 1) + months
    year, month = index // 12, index % 12 + 1
    return date(year, month, min(start.day, days_in_month(year, month))).isoformat()


class DateRange:
    """The days from `first` to `last`."""

    def __init__(self, first, last):
        self.first = date.fromisoformat(first)
        self.last = date.fromisoformat(last)
        if self.last < self.first:
            raise ValueError("the range ends before it begins")

    def __str__(self):
        return f"{self.first.isoformat()}/{self.last.isoformat()}"

    def days(self):
        """How many days it has."""
        return (self.last - self.first).days + 1

    def contains(self, day):
        """Whether a day is in it."""
        return self.first <= date.fromisoformat(day) <= self.last

    def overlap(self, other):
        """The days that two ranges share, as a text; None where they share none."""
        first = max(self.first, other.first)
        last = min(self.last, other.last)
        if first > last:
            return None
        return str(DateRange(first.isoformat(), last.isoformat()))

    def joined(self, other):
        """Both ranges as one, as a text, where they overlap or follow each other; None otherwise."""
        if self.last + DAY < other.first or other.last + DAY < self.first:
            return None
        first = min(self.first, other.first)
        last = max(self.last, other.last)
        return str(DateRange(first.isoformat(), last.isoformat()))

    def weekdays(self):
        """How many of its days are Monday to Friday."""
        return sum(1 for number in range(self.days()) if (self.first + number * DAY).weekday() < 5)

    def weeks(self):
        """Split at the end of every Sunday, as texts."""
        parts = []
        start = self.first
        while start <= self.last:
            sunday = start + (6 - start.weekday()) * DAY
            end = min(sunday, self.last)
            parts.append(f"{start.isoformat()}/{end.isoformat()}")
            start = end + DAY
        return parts

    def months(self):
        """The months that it touches, as texts such as `2024-02`."""
        found = []
        year, month = self.first.year, self.first.month
        while (year, month) <= (self.last.year, self.last.month):
            found.append(f"{year:04d}-{month:02d}")
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        return found
