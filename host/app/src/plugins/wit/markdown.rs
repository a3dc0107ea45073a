//! The contract as `wit/README.md`.

use super::contract::{Contract, Interface, Item, Part, World};
use super::text::first;

/// The whole file.
pub(super) fn write(contract: &Contract) -> String {
    let mut out = vec![
        "<!-- Made from wit/*.wit by `nextstate plugin wit --markdown`; a test says when it is stale. -->"
            .to_owned(),
        format!("# The plugin contract: `{}`", contract.package),
        escaped(&contract.doc),
        "`nextstate plugin wit` shows the same in a terminal.".to_owned(),
        "## Worlds".to_owned(),
        worlds(&contract.worlds),
        "## Interfaces".to_owned(),
        index(&contract.interfaces),
    ];
    for interface in &contract.interfaces {
        out.push(format!("## `{}`", interface.name));
        out.push(escaped(&interface.doc));
        if !interface.uses.is_empty() {
            let uses: Vec<String> = interface.uses.iter().map(|one| code(one)).collect();
            out.push(format!("Uses {}.", uses.join(", ")));
        }
        out.extend(interface.items().flat_map(item));
    }
    out.retain(|block| !block.is_empty());
    out.join("\n\n") + "\n"
}

fn worlds(worlds: &[World]) -> String {
    let mut rows = vec!["| world | exports | may import | |".to_owned()];
    rows.push("|---|---|---|---|".to_owned());
    for world in worlds {
        let names = |names: &[String]| {
            let links: Vec<String> = names.iter().map(|name| link(name)).collect();
            links.join(", ")
        };
        rows.push(format!(
            "| `{}` | {} | {} | {} |",
            world.name,
            names(&world.exports),
            names(&world.imports),
            cell(&world.doc)
        ));
    }
    rows.join("\n")
}

fn index(interfaces: &[Interface]) -> String {
    let row = |one: &Interface| format!("- {}: {}", link(&one.name), escaped(&first(&one.doc)));
    let rows: Vec<String> = interfaces.iter().map(row).collect();
    rows.join("\n")
}

fn link(name: &str) -> String {
    format!("[`{name}`](#{name})")
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn item(item: &Item) -> Vec<String> {
    let mut out = vec![format!("### `{}`", item.head), escaped(&item.doc)];
    if item.parts.is_empty() {
        return out;
    }
    if item.is_plain() {
        let names: Vec<String> = item.parts.iter().map(|part| code(&part.name)).collect();
        out.push(names.join(" · "));
        return out;
    }
    let mut rows = vec!["| | | |".to_owned(), "|---|---|---|".to_owned()];
    rows.extend(item.parts.iter().map(|part: &Part| {
        let kind = part.kind.as_deref().map_or_else(String::new, code);
        format!("| `{}` | {kind} | {} |", part.name, cell(&part.doc))
    }));
    out.push(rows.join("\n"));
    out
}

fn cell(doc: &str) -> String {
    escaped(doc).replace('|', "\\|").replace('\n', " ")
}

/// A comment as it is; only what Markdown would take for HTML is made visible.
fn escaped(doc: &str) -> String {
    let mut in_code = false;
    let mut out = String::new();
    for c in doc.chars() {
        if c == '`' {
            in_code = !in_code;
        }
        if c == '<' && !in_code {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
