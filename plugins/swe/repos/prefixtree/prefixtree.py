"""A trie of words with counts."""


class Node:
    """One character; `count` is how often a word ends here."""

    def __init__(self):
        self.children = {}
        self.count = 0


class PrefixTree:
    """Words, each as often as it was added."""

    def __init__(self, words=()):
        self._root = Node()
        self._distinct = 0
        for word in words:
            self.add(word)

    def __len__(self):
        return self._distinct

    def _find(self, prefix):
        node = self._root
        for char in prefix:
            node = node.children.get(char)
            if node is None:
                return None
        return node

    def add(self, word, times=1):
        """Adds a word."""
        if not word or times < 1:
            raise ValueError("a word must not be empty, and is added at least once")
        node = self._root
        for char in word:
            node = node.children.setdefault(char, Node())
        if node.count == 0:
            self._distinct += 1
        node.count += times

    def count(self, word):
        """How often a word was added."""
        node = self._find(word)
        return node.count if node is not None else 0

    def remove(self, word):
        """Forgets a word, however often it was added, and says whether it was there."""
        if self.count(word) == 0:
            return False
        path = [self._root]
        for char in word:
            path.append(path[-1].children[char])
        path[-1].count = 0
        self._distinct -= 1
        for parent, char in zip(reversed(path[:-1]), reversed(word)):
            child = parent.children[char]
            if child.children or child.count > 0:
                break
            del parent.children[char]
        return True

    def _walk(self, node, prefix):
        if node.count > 0:
            yield prefix, node.count
        for char in sorted(node.children):
            yield from self._walk(node.children[char], prefix + char)

    def with_prefix(self, prefix):
        """The words that begin with a prefix, sorted."""
        node = self._find(prefix)
        if node is None:
            return []
        return [word for word, _ in self._walk(node, prefix)]

    def suggest(self, prefix, limit=3):
        """The most frequent words that begin with a prefix, then by the alphabet; the prefix itself included."""
        node = self._find(prefix)
        if node is None:
            return []
        ranked = sorted(self._walk(node, prefix), key=lambda entry: (-entry[1], entry[0]))
        return [word for word, _ in ranked[:limit]]

    def longest_prefix(self, text):
        """The longest word that a text begins with; empty where there is none."""
        node = self._root
        best = 0
        for at, char in enumerate(text, start=1):
            node = node.children.get(char)
            if node is None:
                break
            if node.count > 0:
                best = at
        return text[:best]
