//! The contract for a terminal: what is written first, its comment below, indented.

use super::contract::{Contract, Interface, Item, World};

/// Columns; comments are wrapped at words.
const WIDTH: usize = 100;

/// What there is, in a line each.
pub(super) fn overview(contract: &Contract) -> String {
    let line = |name: &str, doc: &str| format!("  {name:<20}  {}", first(doc));
    let worlds = contract.worlds.iter();
    let interfaces = contract.interfaces.iter();
    let mut lines = vec![contract.package.clone(), String::new()];
    lines.extend(wrapped("", &contract.doc));
    lines.extend([String::new(), "worlds".to_owned()]);
    lines.extend(worlds.map(|world| line(&world.name, &world.doc)));
    lines.extend([String::new(), "interfaces".to_owned()]);
    lines.extend(interfaces.map(|one| line(&one.name, &one.doc)));
    lines.extend([String::new(), "next: nextstate plugin wit NAME".to_owned()]);
    joined(&lines)
}

/// The first sentence of a comment.
pub(super) fn first(doc: &str) -> String {
    let paragraph = doc.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    let end = words.iter().position(|word| word.ends_with('.'));
    words[..end.map_or(words.len(), |end| end + 1)].join(" ")
}

/// What a plugin of a kind exports and may import.
pub(super) fn world(world: &World) -> String {
    let mut lines = vec![format!("world {}", world.name)];
    lines.extend(wrapped("    ", &world.doc));
    lines.push(format!("\nexports  {}", world.exports.join(", ")));
    lines.push(format!("imports  {}", world.imports.join(", ")));
    joined(&lines)
}

/// An interface, with all that is in it.
pub(super) fn interface(interface: &Interface) -> String {
    let mut lines = vec![format!("interface {}", interface.name)];
    lines.extend(wrapped("    ", &interface.doc));
    if !interface.uses.is_empty() {
        lines.push(String::new());
        lines.extend(wrapped("", &format!("uses {}", interface.uses.join(", "))));
    }
    let items = interface.items().map(|one| format!("\n{}", item(one)));
    joined(&lines) + &items.collect::<String>()
}

/// A type or a function.
pub(super) fn item(item: &Item) -> String {
    let plain = item.is_plain() && !item.parts.is_empty();
    let names: Vec<&str> = item.parts.iter().map(|part| part.name.as_str()).collect();
    let mut lines = vec![if plain {
        format!("{} {{ {} }}", item.head, names.join(", "))
    } else {
        item.head.clone()
    }];
    lines.extend(wrapped("    ", &item.doc));
    for part in item.parts.iter().filter(|_| !plain) {
        let kind = part.kind.as_ref();
        let kind = kind.map_or_else(String::new, |kind| format!(": {kind}"));
        lines.push(format!("    {}{kind}", part.name));
        lines.extend(wrapped("        ", &part.doc));
    }
    joined(&lines)
}

fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// Paragraphs, wrapped at words; a list's points begin lines of their own.
pub(in crate::plugins) fn wrapped(indent: &str, doc: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for source in doc.lines() {
        if source.trim().is_empty() || source.starts_with(['-', '|']) {
            lines.extend(Some(std::mem::take(&mut line)).filter(|line| !line.is_empty()));
        }
        if source.trim().is_empty() {
            lines.push(String::new());
        }
        for word in source.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            line.push_str(if line.is_empty() { indent } else { " " });
            line.push_str(word);
        }
    }
    lines.extend(Some(line).filter(|line| !line.is_empty()));
    lines
}
