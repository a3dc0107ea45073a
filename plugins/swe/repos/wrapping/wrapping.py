"""Breaks text into lines, and lays lines out."""


def wrap(text, width, indent=""):
    """The lines of one paragraph, none longer than `width`. `indent` begins every line but the first."""
    if width <= len(indent):
        raise ValueError("the width leaves no room for a word")
    lines = []
    line = ""
    for word in text.split():
        while word:
            room = width - len(line)
            if line and line != indent:
                if len(word) + 1 <= room:
                    line += " " + word
                    break
                lines.append(line)
                line = indent
            elif len(word) <= room:
                line += word
                break
            else:
                lines.append(line + word[:room])
                word = word[room:]
                line = indent
    if line and line != indent:
        lines.append(line)
    return lines


def fill(text, width):
    """All paragraphs wrapped, with one blank line between two of them."""
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    return "\n\n".join("\n".join(wrap(part, width)) for part in paragraphs)


def justify(line, width):
    """A line of exactly `width`: the spaces that are left over go to the first gaps."""
    words = line.split()
    if len(words) < 2:
        return line.strip().ljust(width)
    spaces = width - sum(len(word) for word in words)
    gaps = len(words) - 1
    if spaces < gaps:
        raise ValueError("the line is longer than the width")
    each, extra = divmod(spaces, gaps)
    parts = []
    for number, word in enumerate(words[:-1]):
        parts.append(word + " " * (each + (1 if number < extra else 0)))
    return "".join(parts) + words[-1]


def shorten(text, width, mark="..."):
    """The text on one line, cut at a word with a mark behind it where it is longer than `width`."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    kept = ""
    for word in line.split(" "):
        longer = word if not kept else kept + " " + word
        if len(longer) + len(mark) > width:
            break
        kept = longer
    return kept + mark
