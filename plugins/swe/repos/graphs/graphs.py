"""Weighted directed graphs."""

import heapq


class Graph:
    """Nodes are texts; between two nodes there is at most one edge in each direction."""

    def __init__(self, edges=()):
        self._edges = {}
        for start, end, weight in edges:
            self.add_edge(start, end, weight)

    def add_edge(self, start, end, weight=1):
        """Adds an edge and its nodes; of two parallel edges, the lighter one stays."""
        if weight < 0:
            raise ValueError("weights must not be negative")
        out = self._edges.setdefault(start, {})
        self._edges.setdefault(end, {})
        if end not in out or weight < out[end]:
            out[end] = weight

    def nodes(self):
        """All nodes, sorted."""
        return sorted(self._edges)

    def neighbours(self, node):
        """The nodes that an edge leads to, sorted."""
        return sorted(self._edges[node])

    def shortest_path(self, start, goal):
        """The length of the shortest path and its nodes; None where there is none."""
        queue = [(0, [start])]
        done = set()
        while queue:
            length, path = heapq.heappop(queue)
            node = path[-1]
            if node == goal:
                return length, path
            if node in done:
                continue
            done.add(node)
            for after, weight in self._edges[node].items():
                if after not in done:
                    heapq.heappush(queue, (length + weight, path + [after]))
        return None

    def reachable(self, start, steps=None):
        """The nodes that can be reached, the start included; with `steps`, over at most that many edges."""
        seen = {start}
        edge = [start]
        while edge and (steps is None or steps > 0):
            edge = [after for node in edge for after in self._edges[node] if after not in seen]
            seen.update(edge)
            if steps is not None:
                steps -= 1
        return sorted(seen)

    def topological_order(self):
        """Every node before those that its edges lead to; alphabetical where there is a choice."""
        incoming = {node: 0 for node in self._edges}
        for out in self._edges.values():
            for after in out:
                incoming[after] += 1
        ready = sorted(node for node, count in incoming.items() if count == 0)
        order = []
        while ready:
            node = heapq.heappop(ready)
            order.append(node)
            for after in self._edges[node]:
                incoming[after] -= 1
                if incoming[after] == 0:
                    heapq.heappush(ready, after)
        if len(order) < len(self._edges):
            raise ValueError("the graph has a cycle")
        return order
