import unittest

from dateranges import DateRange, add_months, days_in_month


class DateRangeTest(unittest.TestCase):
    def test_days(self):
        self.assertEqual(DateRange("2024-01-01", "2024-01-10").days(), 10)

    def test_contains(self):
        self.assertTrue(DateRange("2024-01-01", "2024-01-10").contains("2024-01-05"))

    def test_month(self):
        self.assertEqual(days_in_month(2023, 1), 31)

    def test_add_months(self):
        self.assertEqual(add_months("2024-01-15", 2), "2024-03-15")


if __name__ == "__main__":
    unittest.main()
