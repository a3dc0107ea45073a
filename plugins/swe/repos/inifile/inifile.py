"""Reads and writes INI files."""

TRUE = ("1", "yes", "true", "on")
FALSE = ("0", "no", "false", "off")


def strip_comment(line):
    """A line without its comment; marks within double quotes are no comment."""
    quoted = False
    for at, char in enumerate(line):
        if char == '"':
            quoted = not quoted
        elif char in ";#" and not quoted and (at == 0 or line[at - 1].isspace()):
            return line[:at].rstrip()
    return line.rstrip()


def unquote(value):
    """A value without the quotes around it."""
    if len(value) >= 2 and value[0] == '"' and value[-1] == '"':
        return value[1:-1]
    return value


def parse(text):
    """The sections of a text, each a dictionary of its keys."""
    sections = {}
    section = ""
    key = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = strip_comment(raw)
        if not line.strip():
            continue
        if line[0].isspace() and key is not None:
            sections[section][key] += "\n" + line.strip()
            continue
        line = line.strip()
        if line.startswith("["):
            if not line.endswith("]"):
                raise ValueError(f"line {number}: the section is not closed")
            section = line[1:-1].strip().lower()
            sections.setdefault(section, {})
            key = None
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"line {number}: neither a section nor a key")
        key = name.strip().lower()
        sections.setdefault(section, {})[key] = unquote(value.strip())
    return sections


def dump(sections):
    """The text of some sections; the section `""` comes first and has no title."""
    parts = []
    for section in sorted(sections):
        lines = [f"[{section}]"] if section else []
        for key, value in sections[section].items():
            first, *rest = value.split("\n")
            if rest:
                lines.append(f"{key} = {first}")
                lines.extend("  " + line for line in rest)
            elif value != value.strip() or any(mark in value for mark in ";#"):
                lines.append(f'{key} = "{value}"')
            else:
                lines.append(f"{key} = {value}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def flag(sections, section, key, default=False):
    """A value as yes or no."""
    value = sections.get(section, {}).get(key)
    if value is None:
        return default
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise ValueError(f"{value!r} is neither yes nor no")
