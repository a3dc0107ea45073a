from pqueue import PriorityQueue


def queue(*pairs):
    q = PriorityQueue()
    for item, priority in pairs:
        q.push(item, priority)
    return q


def numbers(count, step):
    return queue(*[(number, number * step % count) for number in range(count)])


def case_order():
    """Items come out by priority."""
    return queue(("c", 3), ("a", 1), ("d", 4), ("b", 2)).drain()


def case_reverse_order():
    """Items that were pushed in reverse come out by priority."""
    return queue(*[(name, 9 - place) for place, name in enumerate("abcdefgh")]).drain()


def case_many():
    """Many items come out by priority."""
    return numbers(31, 12).drain()


def case_more():
    """Very many items come out by priority."""
    return numbers(64, 27).drain()


def case_equal():
    """Equal priorities come out in the order in which they went in."""
    return queue(("z", 1), ("m", 1), ("a", 1), ("k", 1), ("b", 1)).drain()


def case_equal_mixed():
    """Equal priorities keep their order among others."""
    return queue(("x", 2), ("b", 1), ("y", 2), ("a", 1), ("z", 2), ("c", 0)).drain()


def case_peek():
    """`peek` shows the next item and leaves it."""
    q = queue(("b", 2), ("a", 1))
    return [q.peek(), len(q), q.pop()]


def case_peek_empty():
    """`peek` on an empty queue is an error."""
    return PriorityQueue().peek()


def case_contains():
    """An item is in the queue from `push` to `pop`."""
    q = queue(("a", 1), ("b", 2))
    q.pop()
    return ["a" in q, "b" in q]


def case_push_again():
    """Pushing an item again changes its priority."""
    q = queue(("a", 1), ("b", 2))
    q.push("a", 3)
    return [len(q), q.drain()]


def case_lower():
    """A smaller priority moves an item to the front."""
    q = queue(("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5))
    q.change("e", 0)
    return q.drain()


def case_raise():
    """A larger priority moves an item to the back."""
    q = queue(("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5))
    q.change("a", 9)
    return q.drain()


def case_change_keeps_age():
    """Among equals, a changed item keeps its age."""
    q = queue(("a", 5), ("b", 1), ("c", 1))
    q.change("a", 1)
    return q.drain()


def case_change_many():
    """The order is right after many changes."""
    q = numbers(20, 7)
    for number in range(0, 20, 3):
        q.change(number, 100 - number)
    return q.drain()


def case_change_missing():
    """Changing an item that is not there is an error."""
    return queue(("a", 1)).change("b", 2)


def case_remove_first():
    """The next item can be removed."""
    q = queue(("a", 1), ("b", 2), ("c", 3))
    q.remove("a")
    return q.drain()


def case_remove_last():
    """The last item can be removed."""
    q = queue(("a", 1), ("b", 2), ("c", 3))
    q.remove("c")
    return q.drain()


def case_remove_middle():
    """An item in the middle can be removed, and the order stays right."""
    q = numbers(25, 9)
    for number in (3, 11, 17, 24, 8):
        q.remove(number)
    return q.drain()


def case_remove_moves_up():
    """What takes a removed item's place moves up where it must."""
    q = queue(("r", 0), ("a", 10), ("b", 1), ("c", 20), ("d", 30), ("e", 2), ("f", 3))
    q.remove("c")
    return q.drain()


def case_remove_missing():
    """Removing an item that is not there is an error."""
    return queue(("a", 1)).remove("b")


def case_push_after_pop():
    """Pushing and popping can be mixed."""
    q = queue(("a", 3), ("b", 1))
    first = q.pop()
    q.push("c", 2)
    q.push("d", 4)
    return [first, q.drain()]


def case_negative():
    """Priorities may be negative."""
    return queue(("a", 0), ("b", -5), ("c", 5)).drain()
