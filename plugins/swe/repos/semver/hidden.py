from semver import bump, compare, parse, satisfies


def order(*pairs):
    return [compare(left, right) for left, right in pairs]


def inside(wanted, *versions):
    return [satisfies(version, wanted) for version in versions]


def case_parse():
    """A version has three numbers."""
    return parse("1.20.300")


def case_parse_pre():
    """A pre-release is a list of identifiers."""
    return parse("1.0.0-alpha.1")


def case_parse_build():
    """Build metadata is ignored."""
    return [parse("1.0.0+20240101"), parse("1.0.0-rc.1+exp.sha")]


def case_parse_dash_in_pre():
    """A pre-release may hold dashes."""
    return parse("1.0.0-x-y-z.1")


def case_parse_two_numbers():
    """Two numbers are no version."""
    return parse("1.2")


def case_parse_letters():
    """Letters among the numbers are refused."""
    return parse("1.x.3")


def case_parse_leading_zero():
    """A number that begins with 0 is refused."""
    return parse("1.02.3")


def case_parse_zero():
    """Zeros alone are fine."""
    return parse("0.0.0")


def case_parse_empty_identifier():
    """An empty identifier is refused."""
    return parse("1.0.0-a..b")


def case_parse_empty_pre():
    """A dash with nothing behind it is refused."""
    return parse("1.0.0-")


def case_compare_numbers():
    """Numbers are compared as numbers, the major one first."""
    return order(("1.9.0", "1.10.0"), ("2.0.0", "1.9.9"), ("1.2.3", "1.2.2"), ("1.2.3", "1.2.3"))


def case_compare_pre_before_release():
    """A pre-release comes before its release."""
    return order(("1.0.0-rc.1", "1.0.0"), ("1.0.0", "1.0.0-rc.1"))


def case_compare_pre_after_older():
    """A pre-release comes after the release before it."""
    return order(("1.0.0-rc.1", "0.9.9"), ("1.0.1-a", "1.0.0"))


def case_compare_pre_chain():
    """The chain of semver.org is in order."""
    chain = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0".split()
    return order(*zip(chain, chain[1:]))


def case_compare_pre_numbers():
    """Identifiers of digits are compared as numbers."""
    return order(("1.0.0-2", "1.0.0-11"), ("1.0.0-a.10", "1.0.0-a.9"))


def case_compare_pre_kinds():
    """Identifiers of digits come before others."""
    return order(("1.0.0-9", "1.0.0-a"), ("1.0.0-a", "1.0.0-9"))


def case_compare_build():
    """Build metadata does not count."""
    return order(("1.0.0+a", "1.0.0+b"))


def case_bump():
    """Bumping sets what is below to 0."""
    return [bump("1.4.2", part) for part in ("major", "minor", "patch")]


def case_bump_pre():
    """Bumping the patch of a pre-release gives its release."""
    return [bump("1.4.2-rc.1", part) for part in ("major", "minor", "patch")]


def case_bump_unknown():
    """An unknown part is refused."""
    return bump("1.0.0", "tiny")


def case_caret():
    """`^` allows everything below the next major version."""
    return inside("^1.2.3", "1.2.2", "1.2.3", "1.9.0", "2.0.0")


def case_caret_zero():
    """`^` on a version 0.x allows everything below the next minor version."""
    return inside("^0.2.3", "0.2.2", "0.2.9", "0.3.0", "1.0.0")


def case_caret_zero_zero():
    """`^0.0.x` allows everything below 1.0.0."""
    return inside("^0.0.3", "0.0.2", "0.0.3", "0.5.0", "1.0.0")


def case_tilde():
    """`~` allows everything below the next minor version."""
    return inside("~1.2.3", "1.2.2", "1.2.3", "1.2.9", "1.3.0")


def case_at_least():
    """`>=` includes the version itself."""
    return inside(">=1.2.0", "1.1.9", "1.2.0", "3.0.0")


def case_below():
    """`<` excludes the version itself."""
    return inside("<2.0.0", "1.9.9", "2.0.0", "2.0.0-rc.1")


def case_exact():
    """A version alone allows itself only."""
    return inside("1.2.3", "1.2.3", "1.2.4")


def case_joined():
    """All parts of a range must hold."""
    return inside(">=1.2.0 <1.5.0", "1.1.0", "1.2.0", "1.4.9", "1.5.0")
