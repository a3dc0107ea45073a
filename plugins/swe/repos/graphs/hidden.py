from graphs import Graph

ROADS = [("a", "b", 4), ("a", "c", 1), ("c", "b", 2), ("b", "d", 5), ("c", "d", 8), ("d", "e", 3)]
TASKS = [("wake", "dress", 1), ("wake", "eat", 1), ("dress", "leave", 1), ("eat", "leave", 1), ("pack", "leave", 1)]


def case_nodes():
    """All nodes are listed in order, those without outgoing edges too."""
    return Graph(ROADS).nodes()


def case_neighbours():
    """The neighbours are where edges lead to."""
    g = Graph(ROADS)
    return [g.neighbours("a"), g.neighbours("e")]


def case_detour():
    """A detour that is shorter is taken."""
    return Graph(ROADS).shortest_path("a", "b")


def case_long_path():
    """The whole path is reported, with its length."""
    return Graph(ROADS).shortest_path("a", "e")


def case_to_itself():
    """The path from a node to itself has length 0."""
    return Graph(ROADS).shortest_path("c", "c")


def case_no_path():
    """Against the direction of the edges there is no path."""
    return Graph(ROADS).shortest_path("e", "a")


def case_cycle():
    """Cycles do no harm."""
    return Graph([("a", "b", 1), ("b", "a", 1), ("b", "c", 1)]).shortest_path("a", "c")


def case_zero_weight():
    """Edges may weigh nothing."""
    return Graph([("a", "b", 0), ("b", "c", 0), ("a", "c", 1)]).shortest_path("a", "c")


def case_negative():
    """Negative weights are refused."""
    return Graph([("a", "b", -1)]).nodes()


def case_parallel_lighter():
    """Of two parallel edges the lighter one counts, when it comes second."""
    return Graph([("a", "b", 5), ("a", "b", 2)]).shortest_path("a", "b")


def case_parallel_heavier():
    """Of two parallel edges the lighter one counts, when it comes first."""
    return Graph([("a", "b", 2), ("a", "b", 5)]).shortest_path("a", "b")


def case_default_weight():
    """An edge weighs 1 unless told otherwise."""
    g = Graph()
    g.add_edge("a", "b")
    g.add_edge("b", "c")
    return g.shortest_path("a", "c")


def case_reachable():
    """All nodes that can be reached are found."""
    return Graph(ROADS).reachable("c")


def case_reachable_end():
    """From a node without edges only itself is reached."""
    return Graph(ROADS).reachable("e")


def case_reachable_cycle():
    """A cycle is followed once."""
    return Graph([("a", "b", 1), ("b", "c", 1), ("c", "a", 1), ("x", "a", 1)]).reachable("b")


def case_reachable_one_step():
    """One step reaches the neighbours."""
    return Graph(ROADS).reachable("a", 1)


def case_reachable_two_steps():
    """Two steps reach the neighbours' neighbours."""
    return Graph([("a", "b", 1), ("b", "c", 1), ("c", "d", 1)]).reachable("a", 2)


def case_reachable_no_step():
    """No step reaches the start only."""
    return Graph(ROADS).reachable("a", 0)


def case_order():
    """Every task comes after what it needs."""
    return Graph(TASKS).topological_order()


def case_order_alphabetical():
    """Where there is a choice, the order is alphabetical."""
    return Graph([("b", "z", 1), ("a", "y", 1), ("c", "x", 1)]).topological_order()


def case_order_late():
    """A task that becomes possible later is still sorted in."""
    return Graph([("b", "a", 1), ("c", "d", 1)]).topological_order()


def case_order_cycle():
    """A cycle has no order."""
    return Graph([("a", "b", 1), ("b", "a", 1)]).topological_order()


def case_order_partial_cycle():
    """A cycle behind other tasks is noticed, too."""
    return Graph([("s", "a", 1), ("a", "b", 1), ("b", "a", 1)]).topological_order()


def case_order_empty():
    """An empty graph has an empty order."""
    return Graph().topological_order()
