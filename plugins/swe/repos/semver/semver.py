"""Semantic versions."""


def parse(text):
    """A version as (major, minor, patch, pre-release identifiers). Build metadata is ignored."""
    core, _, _ = text.partition("+")
    core, dash, pre = core.partition("-")
    numbers = core.split(".")
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        raise ValueError(f"{text!r} is no version")
    if any(len(number) > 1 and number.startswith("0") for number in numbers):
        raise ValueError(f"{text!r} has a number that begins with 0")
    identifiers = pre.split(".") if dash else []
    if any(not identifier for identifier in identifiers):
        raise ValueError(f"{text!r} has an empty identifier")
    major, minor, patch = (int(number) for number in numbers)
    return major, minor, patch, identifiers


def _compare(left, right):
    return (left > right) - (left < right)


def _compare_pre(left, right):
    if not left or not right:
        return _compare(not left, not right)
    for a, b in zip(left, right):
        if a.isdigit() and b.isdigit():
            order = _compare(int(a), int(b))
        elif a.isdigit() or b.isdigit():
            order = -1 if a.isdigit() else 1
        else:
            order = _compare(a, b)
        if order != 0:
            return order
    return _compare(len(left), len(right))


def compare(left, right):
    """-1, 0 or 1 as the first version is before, equal to or after the second."""
    *first, first_pre = parse(left)
    *second, second_pre = parse(right)
    order = _compare(first, second)
    return order if order != 0 else _compare_pre(first_pre, second_pre)


def bump(text, part):
    """The next version; what is below the part becomes 0, and a pre-release ends."""
    major, minor, patch, pre = parse(text)
    if part == "major":
        return f"{major + 1}.0.0"
    if part == "minor":
        return f"{major}.{minor + 1}.0"
    if part == "patch":
        return f"{major}.{minor}.{patch if pre else patch + 1}"
    raise ValueError(f"{part!r} is no part of a version")


def satisfies(text, wanted):
    """Whether a version is in a range: `^1.2.3`, `~1.2.3`, `>=1.2.3`, `<1.2.3` or the version itself; several are joined by spaces."""
    return all(_satisfies(text, one) for one in wanted.split())


def _satisfies(text, wanted):
    if wanted.startswith(">="):
        return compare(text, wanted[2:]) >= 0
    if wanted.startswith("<"):
        return compare(text, wanted[1:]) < 0
    if wanted[0] not in "^~":
        return compare(text, wanted) == 0
    least = wanted[1:]
    major, minor, _, _ = parse(least)
    if wanted[0] == "~" or (major == 0 and minor > 0):
        end = f"{major}.{minor + 1}.0"
    else:
        end = f"{major + 1}.0.0"
    return compare(text, least) >= 0 and compare(text, end) < 0
