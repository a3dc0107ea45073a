"""A priority queue on a binary heap, with priorities that can change."""


class PriorityQueue:
    """Items are unique; the heap holds `(priority, number, item)`, and `_places` says where each item is."""

    def __init__(self):
        self._heap = []
        self._places = {}
        self._pushed = 0

    def __len__(self):
        return len(self._heap)

    def __contains__(self, item):
        return item in self._places

    def push(self, item, priority):
        """Adds an item, or changes the priority of one that waits already."""
        if item in self._places:
            self.change(item, priority)
            return
        self._heap.append((priority, self._pushed, item))
        self._pushed += 1
        self._places[item] = len(self._heap) - 1
        self._up(len(self._heap) - 1)

    def peek(self):
        """The item that is next."""
        if not self._heap:
            raise IndexError("the queue is empty")
        return self._heap[0][2]

    def pop(self):
        """Takes out the item that is next."""
        item = self.peek()
        self.remove(item)
        return item

    def remove(self, item):
        """Takes out an item, wherever it is."""
        place = self._places.pop(item)
        last = self._heap.pop()
        if place < len(self._heap):
            self._put(place, last)
            self._up(place)
            self._down(self._places[last[2]])

    def change(self, item, priority):
        """Gives an item another priority; among equals it keeps its age."""
        place = self._places[item]
        self._heap[place] = (priority, self._heap[place][1], item)
        self._up(place)
        self._down(self._places[item])

    def drain(self):
        """Takes out all items, in order."""
        return [self.pop() for _ in range(len(self))]

    def _put(self, place, entry):
        self._heap[place] = entry
        self._places[entry[2]] = place

    def _swap(self, a, b):
        first, second = self._heap[a], self._heap[b]
        self._put(a, second)
        self._put(b, first)

    def _up(self, place):
        while place > 0:
            parent = (place - 1) // 2
            if self._heap[parent] <= self._heap[place]:
                break
            self._swap(parent, place)
            place = parent

    def _down(self, place):
        while True:
            least = place
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(self._heap) and self._heap[child] < self._heap[least]:
                    least = child
            if least == place:
                return
            self._swap(least, place)
            place = least
