"""A ledger of accounts, in whole cents."""

FREE_TRANSFER = 10_000
FEE_PERCENT = 1


class InsufficientFunds(Exception):
    """The account has not got so much, its overdraft included."""


class Ledger:
    """Accounts by name, and the history of all movements."""

    def __init__(self):
        self._balances = {}
        self._overdrafts = {}
        self._history = []

    def open(self, name, deposit=0, overdraft=0):
        """Opens an account."""
        if name in self._balances:
            raise ValueError(f"{name} has an account already")
        if deposit < 0 or overdraft < 0:
            raise ValueError("amounts must not be negative")
        self._balances[name] = deposit
        self._overdrafts[name] = overdraft
        if deposit > 0:
            self._history.append((None, name, deposit))

    def balance(self, name):
        """What an account holds; negative when it is overdrawn."""
        return self._balances[name]

    def available(self, name):
        """What could be withdrawn."""
        return self._balances[name] + self._overdrafts[name]

    def deposit(self, name, amount):
        """Puts money in."""
        if amount <= 0:
            raise ValueError("amounts must be positive")
        self._balances[name] += amount
        self._history.append((None, name, amount))

    def withdraw(self, name, amount):
        """Takes money out."""
        if amount <= 0:
            raise ValueError("amounts must be positive")
        if amount > self.available(name):
            raise InsufficientFunds(name)
        self._balances[name] -= amount
        self._history.append((name, None, amount))

    def fee(self, amount):
        """What a transfer of an amount costs the sender."""
        if amount <= FREE_TRANSFER:
            return 0
        return (amount * FEE_PERCENT + 99) // 100

    def transfer(self, sender, receiver, amount):
        """Moves money between two accounts; the fee is taken from the sender. Returns the fee."""
        if sender == receiver:
            raise ValueError("sender and receiver are the same")
        if amount <= 0:
            raise ValueError("amounts must be positive")
        if receiver not in self._balances:
            raise KeyError(receiver)
        fee = self.fee(amount)
        if amount + fee > self.available(sender):
            raise InsufficientFunds(sender)
        self._balances[sender] -= amount + fee
        self._balances[receiver] += amount
        self._history.append((sender, receiver, amount))
        if fee > 0:
            self._history.append((sender, None, fee))
        return fee

    def history(self, name):
        """The movements of an account as signed amounts, oldest first."""
        moves = []
        for sender, receiver, amount in self._history:
            if receiver == name:
                moves.append(amount)
            elif sender == name:
                moves.append(-amount)
        return moves

    def total(self):
        """What all accounts hold together."""
        return sum(self._balances.values())
