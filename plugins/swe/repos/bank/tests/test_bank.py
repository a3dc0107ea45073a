import unittest

from bank import InsufficientFunds, Ledger


class LedgerTest(unittest.TestCase):
    def test_open(self):
        ledger = Ledger()
        ledger.open("ada", 100)
        self.assertEqual(ledger.balance("ada"), 100)

    def test_deposit(self):
        ledger = Ledger()
        ledger.open("ada")
        ledger.deposit("ada", 5)
        self.assertEqual(ledger.balance("ada"), 5)

    def test_withdraw_too_much(self):
        ledger = Ledger()
        ledger.open("ada", 100)
        with self.assertRaises(InsufficientFunds):
            ledger.withdraw("ada", 500)

    def test_transfer(self):
        ledger = Ledger()
        ledger.open("ada", 100)
        ledger.open("alan")
        ledger.transfer("ada", "alan", 40)
        self.assertEqual(ledger.balance("alan"), 40)


if __name__ == "__main__":
    unittest.main()
