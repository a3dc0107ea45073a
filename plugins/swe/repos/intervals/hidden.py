from intervals import IntervalSet


def case_overlap():
    """Overlapping intervals become one."""
    busy = IntervalSet([(1, 5), (3, 8)])
    return busy.spans()


def case_touch_right():
    """An interval that begins where another ends is joined to it."""
    busy = IntervalSet([(1, 3)])
    busy.add(3, 5)
    return busy.spans()


def case_touch_left():
    """An interval that ends where another begins is joined to it."""
    busy = IntervalSet([(3, 5)])
    busy.add(1, 3)
    return busy.spans()


def case_bridge():
    """An interval that fills a gap joins both neighbours."""
    busy = IntervalSet([(1, 3), (6, 9)])
    busy.add(2, 7)
    return busy.spans()


def case_inside():
    """Adding what is there already changes nothing."""
    busy = IntervalSet([(1, 9)])
    busy.add(3, 4)
    return busy.spans()


def case_sorted():
    """Intervals are listed in order, however they were added."""
    return IntervalSet([(10, 12), (1, 2), (5, 6)]).spans()


def case_one_apart():
    """Intervals with one free integer between them stay apart."""
    return IntervalSet([(1, 3), (4, 6)]).spans()


def case_empty_interval():
    """Adding an empty interval changes nothing."""
    busy = IntervalSet([(1, 2)])
    busy.add(5, 5)
    return busy.spans()


def case_backwards():
    """An interval that ends before it starts is refused."""
    return IntervalSet([(4, 2)]).spans()


def case_contains_start():
    """The start of an interval belongs to it."""
    return [IntervalSet([(2, 5)]).contains(point) for point in (1, 2, 3)]


def case_contains_end():
    """The end of an interval does not belong to it."""
    return [IntervalSet([(2, 5)]).contains(point) for point in (4, 5, 6)]


def case_contains_second():
    """Points of every interval are found, not only of the first."""
    return [IntervalSet([(1, 2), (8, 10)]).contains(point) for point in (1, 5, 9)]


def case_total():
    """The total counts the integers of all intervals."""
    return IntervalSet([(0, 4), (10, 13)]).total()


def case_total_empty():
    """An empty set holds nothing."""
    return IntervalSet().total()


def case_remove_middle():
    """Taking out the middle leaves both ends."""
    busy = IntervalSet([(0, 10)])
    busy.remove(3, 6)
    return busy.spans()


def case_remove_left():
    """Taking out the beginning leaves the rest."""
    busy = IntervalSet([(2, 8)])
    busy.remove(0, 4)
    return busy.spans()


def case_remove_right():
    """Taking out the end leaves the beginning."""
    busy = IntervalSet([(2, 8)])
    busy.remove(6, 12)
    return busy.spans()


def case_remove_all():
    """Taking out everything leaves nothing."""
    busy = IntervalSet([(2, 4), (6, 8)])
    busy.remove(0, 9)
    return busy.spans()


def case_remove_nothing():
    """Taking out what is not there changes nothing."""
    busy = IntervalSet([(2, 4), (8, 9)])
    busy.remove(4, 8)
    return busy.spans()


def case_remove_across():
    """Taking out a stretch over several intervals cuts the first and the last."""
    busy = IntervalSet([(0, 4), (5, 6), (8, 12)])
    busy.remove(2, 10)
    return busy.spans()


def case_gaps():
    """The gaps are what lies between the intervals."""
    return IntervalSet([(2, 4), (6, 8)]).gaps(0, 10)


def case_gaps_inside():
    """No gap is reported within an interval."""
    return IntervalSet([(0, 10)]).gaps(2, 5)


def case_gaps_cut():
    """Gaps are cut to the range that was asked for."""
    return IntervalSet([(0, 3), (5, 9), (12, 15)]).gaps(2, 13)


def case_gaps_of_nothing():
    """An empty set is one gap."""
    return IntervalSet().gaps(1, 4)


def case_spans_is_a_copy():
    """Changing the returned list does not change the set."""
    busy = IntervalSet([(1, 2)])
    busy.spans().append((3, 4))
    return busy.spans()
