from bank import Ledger


def ledger():
    accounts = Ledger()
    accounts.open("ada", 50_000)
    accounts.open("alan", 1_000, overdraft=500)
    return accounts


def balances(accounts):
    return [accounts.balance("ada"), accounts.balance("alan")]


def attempt(action, *arguments):
    try:
        return action(*arguments)
    except Exception as error:
        return type(error).__name__


def case_open_twice():
    """An account is opened once only."""
    return ledger().open("ada")


def case_open_negative():
    """Neither the first deposit nor the overdraft may be negative."""
    accounts = Ledger()
    return [attempt(accounts.open, "a", -1), attempt(accounts.open, "b", 0, -1)]


def case_open_empty():
    """A new account is empty unless told otherwise."""
    accounts = Ledger()
    accounts.open("a")
    return [accounts.balance("a"), accounts.available("a"), accounts.history("a")]


def case_available():
    """The overdraft counts as available."""
    accounts = ledger()
    return [accounts.available("ada"), accounts.available("alan")]


def case_deposit():
    """A deposit is added."""
    accounts = ledger()
    accounts.deposit("alan", 250)
    return balances(accounts)


def case_deposit_nothing():
    """A deposit of nothing is refused."""
    return ledger().deposit("ada", 0)


def case_withdraw():
    """A withdrawal is taken off."""
    accounts = ledger()
    accounts.withdraw("ada", 20_000)
    return balances(accounts)


def case_withdraw_overdraft():
    """A withdrawal may use up the overdraft."""
    accounts = ledger()
    accounts.withdraw("alan", 1_500)
    return balances(accounts)


def case_withdraw_too_much():
    """A withdrawal may not exceed the overdraft, and then changes nothing."""
    accounts = ledger()
    return [attempt(accounts.withdraw, "alan", 1_501), balances(accounts)]


def case_withdraw_nothing():
    """A withdrawal of nothing is refused."""
    return ledger().withdraw("ada", 0)


def case_withdraw_twice():
    """The overdraft does not come back by itself."""
    accounts = ledger()
    accounts.withdraw("alan", 1_200)
    return [accounts.available("alan"), attempt(accounts.withdraw, "alan", 301)]


def case_transfer():
    """A transfer moves money."""
    accounts = ledger()
    accounts.transfer("ada", "alan", 5_000)
    return balances(accounts)


def case_transfer_free():
    """A transfer of exactly 10,000 is free."""
    accounts = ledger()
    return [accounts.transfer("ada", "alan", 10_000), balances(accounts)]


def case_transfer_fee():
    """A larger transfer costs the sender 1 %."""
    accounts = ledger()
    return [accounts.transfer("ada", "alan", 20_000), balances(accounts)]


def case_fee_rounding():
    """The fee is rounded up to whole cents."""
    return [ledger().fee(amount) for amount in (10_000, 10_001, 10_100, 10_101, 25_050)]


def case_transfer_fee_too_much():
    """The fee must be covered, too; nothing moves otherwise."""
    accounts = ledger()
    return [attempt(accounts.transfer, "ada", "alan", 50_000), balances(accounts)]


def case_transfer_all():
    """A transfer may use up everything, the fee included."""
    accounts = Ledger()
    accounts.open("ada", 20_200)
    accounts.open("alan")
    accounts.transfer("ada", "alan", 20_000)
    return balances(accounts)


def case_transfer_overdraft():
    """A transfer may use the overdraft."""
    accounts = ledger()
    accounts.transfer("alan", "ada", 1_500)
    return balances(accounts)


def case_transfer_unknown():
    """A transfer to nobody moves nothing."""
    accounts = ledger()
    return [attempt(accounts.transfer, "ada", "eve", 100), balances(accounts)]


def case_transfer_self():
    """A transfer to oneself is refused."""
    return ledger().transfer("ada", "ada", 100)


def case_transfer_nothing():
    """A transfer of nothing, or of less, is refused."""
    accounts = ledger()
    return [attempt(accounts.transfer, "ada", "alan", 0), attempt(accounts.transfer, "ada", "alan", -5)]


def case_history():
    """The history has signed amounts, the oldest first."""
    accounts = ledger()
    accounts.withdraw("ada", 300)
    accounts.transfer("alan", "ada", 200)
    accounts.deposit("ada", 40)
    return [accounts.history("ada"), accounts.history("alan")]


def case_history_fee():
    """A fee is a movement of the sender."""
    accounts = ledger()
    accounts.transfer("ada", "alan", 30_000)
    return [accounts.history("ada"), accounts.history("alan")]


def case_history_adds_up():
    """The history adds up to the balance."""
    accounts = ledger()
    accounts.transfer("ada", "alan", 15_000)
    accounts.withdraw("alan", 700)
    return [sum(accounts.history(name)) - accounts.balance(name) for name in ("ada", "alan")]


def case_total():
    """Transfers without a fee keep the total."""
    accounts = ledger()
    accounts.transfer("ada", "alan", 4_000)
    return accounts.total()
