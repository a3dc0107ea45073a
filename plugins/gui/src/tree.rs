//! A page's accessibility tree as lines of text, with numbers that the model uses.
//!
//! Pure: a tree is data here. All text of a page is outside text: it is put on one line, in quotes that it cannot close, and every line
//! of a page begins with its number, so that no page can forge a line of the environment's own. Does not decide what an action does.

use std::ops::Range;

use sdk::browser::Node;

/// Longest name or value that is shown, in characters.
const NAME_CHARS: usize = 120;

/// Longest text of a paragraph, in characters.
const TEXT_CHARS: usize = 300;

/// Longest line of a table's row, in characters: it holds several cells.
const ROW_CHARS: usize = 240;

/// Roles that say nothing by themselves: a node without a name is then left out, and its children move up.
const LAYOUT: [&str; 23] = [
    "generic",
    "none",
    "presentation",
    "labeltext",
    "legend",
    "paragraph",
    "main",
    "form",
    "div",
    "section",
    "list",
    "listitem",
    "rowgroup",
    "cell",
    "gridcell",
    "columnheader",
    "rowheader",
    "layouttable",
    "layouttablerow",
    "layouttablecell",
    "menulistpopup",
    "figure",
    "linebreak",
];

/// Roles of a page as a whole: its name is in the browser's frame, not on it.
const PAGES: [&str; 3] = ["rootwebarea", "webarea", "document"];

/// Roles of cells. Plain ones are in their row's line; of others only what is inside is shown.
const CELLS: [&str; 4] = ["cell", "gridcell", "columnheader", "rowheader"];

/// Controls: a text inside is part of how one looks, and its name says what it is.
const CONTROLS: [&str; 15] = [
    "button",
    "link",
    "tab",
    "menuitem",
    "menuitemcheckbox",
    "menuitemradio",
    "option",
    "checkbox",
    "radio",
    "switch",
    "treeitem",
    "slider",
    "spinbutton",
    "textbox",
    "searchbox",
];

/// Roles of messages: without a name, the text inside is one.
const MESSAGES: [&str; 4] = ["status", "alert", "log", "tooltip"];

/// States that are on nearly everything and help nobody.
const DULL: [&str; 6] = [
    "focusable",
    "editable",
    "settable",
    "multiline",
    "readonly-text",
    "visible",
];

/// A node as it is shown. Its number is its place in [`Tree::lines`], from 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// The node's own id.
    pub id: u32,
    /// Its role, for example `button`.
    pub role: String,
    /// Its name, cleaned.
    pub name: String,
    /// What it holds, cleaned.
    pub value: String,
    /// For example `checked`.
    pub states: Vec<String>,
    /// Ancestors that are shown.
    pub indent: usize,
    /// Its middle on the page; none where it is not drawn.
    pub middle: Option<(f64, f64)>,
}

impl Line {
    /// Role and name, for example `button "Save"`.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            return self.role.clone();
        }
        format!("{} \"{}\"", self.role, self.name)
    }

    /// Whether it holds text that can be replaced.
    pub fn is_field(&self) -> bool {
        matches!(
            self.role.as_str(),
            "textbox" | "searchbox" | "spinbutton" | "combobox" | "textarea" | "date" | "slider"
        )
    }

    fn text(&self, number: usize) -> String {
        let indent = "  ".repeat(self.indent.min(12));
        let value = if self.value.is_empty() || self.value == self.name {
            String::new()
        } else {
            format!(" = \"{}\"", self.value)
        };
        let states = if self.states.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.states.join(", "))
        };
        format!("{indent}[{number}] {}{value}{states}", self.label())
    }
}

/// A page as it is shown.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tree {
    /// The nodes, in document order.
    pub lines: Vec<Line>,
}

/// A part of a tree in text.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// The lines, and what was left out.
    pub text: String,
    /// Which places of the tree are in it.
    pub shown: Range<usize>,
}

impl Tree {
    /// Takes what is worth showing from a page's nodes.
    pub fn new(nodes: &[Node]) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        // The shown ancestors of the node at hand: depth and place.
        let mut path: Vec<(u32, usize)> = Vec::new();
        let mut skip_below: Option<u32> = None;
        for (at, node) in nodes.iter().enumerate() {
            if skip_below.is_some_and(|depth| node.depth > depth) {
                continue;
            }
            skip_below = None;
            while path.last().is_some_and(|(depth, _)| *depth >= node.depth) {
                path.pop();
            }
            let parent = path.last().map(|(_, place)| *place);
            let mut line = line_of(node, path.len());
            let from_here = &nodes[at..];
            if line.role == "row" {
                line.name = plain_cells(from_here);
            } else if CELLS.contains(&line.role.as_str()) {
                let in_a_row = parent.is_some_and(|place| lines[place].role == "row");
                if in_a_row && is_plain_cell(from_here) {
                    skip_below = Some(node.depth);
                    continue;
                }
                line.name.clear();
            } else if MESSAGES.contains(&line.role.as_str()) && line.name.is_empty() {
                line.name = text_inside(from_here);
                skip_below = Some(node.depth);
            }
            let parent = parent.map(|place| &lines[place]);
            if is_dull(&line) || says_it_again(&line, parent, lines.last(), from_here) {
                continue;
            }
            path.push((node.depth, lines.len()));
            lines.push(line);
        }
        Self { lines }
    }

    /// The line of this number.
    pub fn line(&self, number: usize) -> Option<&Line> {
        self.lines.get(number.checked_sub(1)?)
    }

    /// The text of at most `chars` characters that begins at place `first`, or a little before it where the page ends too soon.
    pub fn view(&self, first: usize, chars: usize) -> View {
        let texts: Vec<_> = self
            .lines
            .iter()
            .enumerate()
            .map(|(place, line)| line.text(place + 1))
            .collect();
        let cost = |text: &String| text.chars().count() + 1;
        let fits = |texts: &mut dyn Iterator<Item = &String>| {
            let mut left = chars;
            texts
                .take_while(|text| {
                    let fits = cost(text) <= left;
                    left = left.saturating_sub(cost(text));
                    fits
                })
                .count()
        };
        let last_page = texts.len() - fits(&mut texts.iter().rev());
        let first = first.min(last_page);
        // One line is always shown, however long it is.
        let count = fits(&mut texts[first..].iter()).max(usize::from(first < texts.len()));
        let shown = first..first + count;
        let mut parts = texts[shown.clone()].to_vec();
        if first > 0 {
            parts.insert(0, format!("({first} lines above: scroll up)"));
        }
        let below = texts.len() - shown.end;
        if below > 0 {
            parts.push(format!("({below} lines below: scroll down)"));
        }
        let text = parts.join("\n");
        View { text, shown }
    }

    /// What tells this page from another. Focus counts only where text can be typed: every click moves it.
    pub fn fingerprint(&self) -> String {
        let text = |(place, line): (usize, &Line)| {
            let mut line = line.clone();
            if !line.is_field() {
                line.states.retain(|state| state != "focused");
            }
            line.text(place)
        };
        let texts: Vec<_> = self.lines.iter().enumerate().map(text).collect();
        texts.join("\n")
    }

    /// Where everything is, in whole pixels: what tells a page that was scrolled from one that was not.
    pub fn places(&self) -> Vec<Option<(i64, i64)>> {
        let whole = |(x, y): (f64, f64)| (x.round() as i64, y.round() as i64);
        self.lines
            .iter()
            .map(|line| line.middle.map(whole))
            .collect()
    }
}

fn line_of(node: &Node, indent: usize) -> Line {
    let drawn = node.width > 0.0 && node.height > 0.0;
    let role = clean(&node.role, 40).to_lowercase();
    let longest = if role == "text" {
        TEXT_CHARS
    } else {
        NAME_CHARS
    };
    let states = node
        .states
        .iter()
        .map(|state| clean(state, 40))
        .filter(|state| !state.is_empty() && !DULL.contains(&state.as_str()));
    Line {
        id: node.id,
        role,
        name: clean(&node.name, longest),
        value: clean(&node.value, NAME_CHARS),
        states: states.collect(),
        indent,
        middle: drawn.then(|| (node.x + node.width / 2.0, node.y + node.height / 2.0)),
    }
}

fn is_dull(line: &Line) -> bool {
    let role = line.role.as_str();
    let wordless = role == "text" || LAYOUT.contains(&role) || MESSAGES.contains(&role);
    PAGES.contains(&role) || wordless && line.name.is_empty() && line.value.is_empty()
}

/// Whether a text only says again what its parent, or the field before or after it, is named.
fn says_it_again(
    line: &Line,
    parent: Option<&Line>,
    before: Option<&Line>,
    from_here: &[Node],
) -> bool {
    if !matches!(line.role.as_str(), "text" | "labeltext") {
        return false;
    }
    let same = |other: &Line| other.name == line.name || other.value == line.name;
    let looks = |parent: &Line| {
        same(parent) || !parent.name.is_empty() && CONTROLS.contains(&parent.role.as_str())
    };
    let named = |other: &Line| same(other) && other.role != "text";
    let after = from_here.iter().skip(1).find(|node| node.role != "text");
    parent.is_some_and(looks)
        || before.is_some_and(named)
        || after.is_some_and(|node| {
            let other = line_of(node, 0);
            other.is_field() && other.name == line.name
        })
}

/// The nodes inside the first one.
fn inside(from_here: &[Node]) -> impl Iterator<Item = &Node> {
    let depth = from_here.first().map_or(0, |node| node.depth);
    let rest = from_here.iter().skip(1);
    rest.take_while(move |node| node.depth > depth)
}

fn text_inside(from_here: &[Node]) -> String {
    let texts: Vec<_> = inside(from_here)
        .filter(|node| node.role == "text")
        .map(|node| node.name.as_str())
        .collect();
    clean(&texts.join(" "), NAME_CHARS)
}

/// A cell of a table that holds nothing but text.
fn is_plain_cell(from_here: &[Node]) -> bool {
    let is_cell = |node: &Node| CELLS.contains(&node.role.to_lowercase().as_str());
    let plain = |node: &Node| matches!(node.role.to_lowercase().as_str(), "text" | "generic");
    from_here.first().is_some_and(is_cell) && inside(from_here).all(plain)
}

/// The texts of a row's plain cells.
fn plain_cells(from_here: &[Node]) -> String {
    let count = inside(from_here).count();
    let names: Vec<_> = (1..=count)
        .map(|at| &from_here[at..])
        .filter(|cell| is_plain_cell(cell))
        .map(|cell| match cell[0].name.as_str() {
            "" => text_inside(cell),
            name => clean(name, NAME_CHARS),
        })
        .collect();
    clean(&names.join(" | "), ROW_CHARS)
}

/// Outside text on one line: no control characters, no invisible ones, no double quotes, at most `chars` characters.
pub fn clean(text: &str, chars: usize) -> String {
    let invisible = |c: char| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let spaced: String = text
        .chars()
        .filter(|c| !invisible(*c))
        .map(|c| match c {
            '"' | '\u{201c}' | '\u{201d}' => '\'',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    let words: Vec<_> = spaced.split_whitespace().collect();
    let text = words.join(" ");
    if text.chars().count() <= chars {
        return text;
    }
    let kept: String = text.chars().take(chars.saturating_sub(1)).collect();
    format!("{kept}\u{2026}")
}

#[cfg(test)]
mod tests;
