from prefixtree import PrefixTree

WORDS = ["car", "card", "care", "cat", "car", "dog", "cat", "car", "do"]


def case_count():
    """Words are counted as often as they were added."""
    tree = PrefixTree(WORDS)
    return [tree.count(word) for word in ("car", "cat", "card", "dog")]


def case_count_missing():
    """A word that was never added counts 0, a prefix of one too."""
    tree = PrefixTree(WORDS)
    return [tree.count("bird"), tree.count("ca"), tree.count("cards"), tree.count("")]


def case_length():
    """The length is the number of different words."""
    return len(PrefixTree(WORDS))


def case_length_after_remove():
    """A removed word no longer counts towards the length."""
    tree = PrefixTree(WORDS)
    tree.remove("car")
    return len(tree)


def case_length_empty():
    """An empty tree has length 0."""
    return len(PrefixTree())


def case_add_times():
    """A word can be added several times at once."""
    tree = PrefixTree()
    tree.add("a", 5)
    tree.add("a")
    return [tree.count("a"), len(tree)]


def case_add_empty():
    """An empty word is refused."""
    return PrefixTree().add("")


def case_add_no_times():
    """A word cannot be added 0 times."""
    return PrefixTree().add("a", 0)


def case_with_prefix():
    """Words that begin with the prefix are listed in order."""
    return PrefixTree(WORDS).with_prefix("ca")


def case_with_prefix_itself():
    """The prefix itself is listed when it is a word."""
    return PrefixTree(WORDS).with_prefix("car")


def case_with_prefix_none():
    """An unknown prefix has no words."""
    return [PrefixTree(WORDS).with_prefix("x"), PrefixTree(WORDS).with_prefix("cards")]


def case_with_prefix_all():
    """An empty prefix lists all words."""
    return PrefixTree(WORDS).with_prefix("")


def case_suggest():
    """The most frequent words come first."""
    return PrefixTree(WORDS).suggest("c")


def case_suggest_limit():
    """No more words than the limit are suggested."""
    return [PrefixTree(WORDS).suggest("c", 1), PrefixTree(WORDS).suggest("c", 2)]


def case_suggest_few():
    """Fewer words than the limit are fine."""
    return PrefixTree(WORDS).suggest("d", 10)


def case_suggest_alphabet():
    """Equally frequent words come by the alphabet."""
    return PrefixTree(["bc", "ba", "bb", "bd"]).suggest("b", 4)


def case_suggest_none():
    """An unknown prefix has no suggestions."""
    return PrefixTree(WORDS).suggest("zz")


def case_remove():
    """A removed word is gone, its neighbours stay."""
    tree = PrefixTree(WORDS)
    return [tree.remove("car"), tree.count("car"), tree.with_prefix("car")]


def case_remove_leaf():
    """Removing a longer word keeps its prefix."""
    tree = PrefixTree(WORDS)
    return [tree.remove("card"), tree.with_prefix("car")]


def case_remove_missing():
    """Removing a word that is not there says so."""
    tree = PrefixTree(WORDS)
    return [tree.remove("ca"), tree.remove("bird"), len(tree)]


def case_remove_twice():
    """A word can be removed once."""
    tree = PrefixTree(WORDS)
    return [tree.remove("dog"), tree.remove("dog"), len(tree)]


def case_remove_last():
    """Removing the only word leaves an empty tree."""
    tree = PrefixTree(["abc"])
    tree.remove("abc")
    return [len(tree), tree.with_prefix(""), tree.suggest("")]


def case_add_again():
    """A removed word can be added again and counts anew."""
    tree = PrefixTree(WORDS)
    tree.remove("car")
    tree.add("car")
    return [tree.count("car"), len(tree)]


def case_longest_prefix():
    """The longest word that the text begins with is found."""
    tree = PrefixTree(WORDS)
    return [tree.longest_prefix(text) for text in ("cards", "cartoon", "dogma", "do")]


def case_longest_prefix_none():
    """A text that begins with no word has an empty prefix."""
    tree = PrefixTree(WORDS)
    return [tree.longest_prefix(text) for text in ("ca", "bird", "")]
