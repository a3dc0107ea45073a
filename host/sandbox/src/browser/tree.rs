//! The accessibility tree as a caller gets it: chromium's, without what is only layout, with places.
//!
//! Frames within the page are grafted where they are. Nothing here recurses: how deep a page nests is the page's choice.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    connection::{Outcome, Trouble},
    nodes::Nodes,
    operation::Operation,
};

/// Most nodes, by contract.
const MOST: usize = 2_000;

/// Most elements of a document that chromium is asked about: it answers for all of them, with about 2 KB each.
const MOST_ELEMENTS: u64 = 10_000;

/// Most frames that are looked into.
const MOST_FRAMES: usize = 32;

/// Longest name and value, in characters.
const MOST_TEXT: usize = 1_000;

/// A node of the accessibility tree.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Names the node until the page changes: the same node has the same id in every tree of a document.
    pub id: u32,
    /// How deep it is; the root has 0. The list is in document order, so that depth makes it a tree.
    pub depth: u32,
    /// The ARIA role, for example `button`, `textbox`, `heading`, `text`.
    pub role: String,
    /// What it is called.
    pub name: String,
    /// What a field holds.
    pub value: String,
    /// `checked`, `mixed`, `disabled`, `focused`, `selected`, `expanded`, `collapsed`, `pressed`, `readonly`, `required`, `invalid`,
    /// `busy`, `modal`.
    pub states: Vec<String>,
    /// Its left edge, in CSS pixels from the left edge of what is seen of the page: where [`super::Page::click_at`] clicks. All four
    /// numbers are 0 where it is not drawn.
    pub x: f64,
    /// Its upper edge.
    pub y: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ax {
    node_id: String,
    #[serde(default)]
    ignored: bool,
    #[serde(default)]
    role: Held,
    #[serde(default)]
    name: Held,
    #[serde(default)]
    value: Held,
    #[serde(default)]
    properties: Vec<Property>,
    #[serde(default)]
    child_ids: Vec<String>,
    #[serde(rename = "backendDOMNodeId")]
    backend: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
struct Held {
    #[serde(default)]
    value: Value,
}

#[derive(Debug, Deserialize)]
struct Property {
    name: String,
    value: Held,
}

/// The nodes of one frame; the first is its root.
#[derive(Debug)]
struct Frame {
    nodes: Vec<Ax>,
    by_id: HashMap<String, usize>,
}

/// See [`super::Page::tree`].
pub(super) fn read(on: &Operation<'_>, nodes: &mut Nodes) -> Outcome<Vec<Node>> {
    let elements = on.evaluate("document.getElementsByTagName('*').length")?;
    if let Some(elements) = elements.as_u64().filter(|&count| count > MOST_ELEMENTS) {
        return Err(Trouble::Refused(format!(
            "the page has {elements} elements, more than {MOST_ELEMENTS}"
        )));
    }
    let document = on.session.document();
    let main = Frame::fetch(on, None)?;
    let inner = if main.nodes.iter().any(|ax| ax.role() == "Iframe") {
        inner_frames(on)?
    } else {
        HashMap::new()
    };
    let mut kept = flatten(&main, &inner);
    nodes.begin(document);
    for (node, backend) in &mut kept {
        node.id = nodes.name(*backend);
    }
    place(on, &mut kept)?;
    Ok(kept.into_iter().map(|(node, _)| node).collect())
}

impl Frame {
    fn fetch(on: &Operation<'_>, id: Option<&str>) -> Outcome<Self> {
        let asked = id.map_or_else(|| json!({}), |id| json!({ "frameId": id }));
        let mut answer = on.call("Accessibility.getFullAXTree", asked)?;
        let nodes: Vec<Ax> = serde_json::from_value(answer["nodes"].take())
            .map_err(|error| Trouble::Said(format!("chromium's tree is unreadable: {error}")))?;
        let by_id = nodes
            .iter()
            .enumerate()
            .map(|(at, ax)| (ax.node_id.clone(), at))
            .collect();
        Ok(Self { nodes, by_id })
    }

    fn children(&self, ax: &Ax) -> impl DoubleEndedIterator<Item = &Ax> {
        ax.child_ids
            .iter()
            .filter_map(|id| Some(&self.nodes[*self.by_id.get(id)?]))
    }

    /// The text below a node.
    fn text(&self, top: &Ax) -> String {
        let mut text = String::new();
        let mut open = vec![top];
        while let Some(ax) = open.pop() {
            match ax.role() {
                "StaticText" => text.push_str(ax.name.as_str()),
                _ => open.extend(self.children(ax).rev()),
            }
            if text.len() > 4 * MOST_TEXT {
                break;
            }
        }
        text
    }
}

/// The frames within the page, by the element that holds each.
fn inner_frames(on: &Operation<'_>) -> Outcome<HashMap<i64, Frame>> {
    let tree = on.call("Page.getFrameTree", json!({}))?;
    let mut ids = Vec::new();
    let mut open = vec![&tree["frameTree"]];
    while let Some(frame) = open.pop() {
        for child in frame["childFrames"].as_array().into_iter().flatten() {
            ids.extend(child["frame"]["id"].as_str());
            open.push(child);
        }
    }
    let mut frames = HashMap::new();
    for id in ids.into_iter().take(MOST_FRAMES) {
        let owner = on.call("DOM.getFrameOwner", json!({ "frameId": id }));
        let frame = Frame::fetch(on, Some(id));
        match (owner, frame) {
            (Ok(owner), Ok(frame)) => {
                frames.extend(owner["backendNodeId"].as_i64().map(|owner| (owner, frame)));
            }
            // A frame may go away at any time.
            (Err(Trouble::Said(_)), _) | (_, Err(Trouble::Said(_))) => {}
            (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
        }
    }
    Ok(frames)
}

/// What of a node is shown.
enum Shown {
    /// Nothing of it, and nothing below it.
    Nothing,
    /// Only what is below it.
    Below,
    Alone(Node),
    WithBelow(Node),
}

/// The nodes that are more than layout, in document order, with their names in chromium.
fn flatten(main: &Frame, inner: &HashMap<i64, Frame>) -> Vec<(Node, i64)> {
    let mut kept: Vec<(Node, i64)> = Vec::new();
    // A node, its frame, its depth, and which of the kept ones is above it.
    let mut open: Vec<(&Ax, &Frame, u32, Option<usize>)> = Vec::new();
    open.extend(main.nodes.first().map(|root| (root, main, 0, None)));
    while let Some((ax, frame, depth, parent)) = open.pop() {
        if kept.len() == MOST {
            break;
        }
        let above = parent.map_or("", |at: usize| kept[at].0.name.as_str());
        let (below, depth, parent) = match shown(ax, frame, above) {
            Shown::Nothing => continue,
            Shown::Below => (true, depth, parent),
            Shown::Alone(node) => (false, depth, keep(&mut kept, ax, node, depth).or(parent)),
            Shown::WithBelow(node) => match keep(&mut kept, ax, node, depth) {
                Some(at) => (true, depth + 1, Some(at)),
                None => (true, depth, parent),
            },
        };
        if below {
            let grafted = ax.backend.and_then(|owner| inner.get(&owner));
            let children = frame.children(ax).map(|child| (child, frame));
            open.extend(children.rev().map(|(ax, frame)| (ax, frame, depth, parent)));
            if let Some((inner, root)) =
                grafted.and_then(|inner| Some((inner, inner.nodes.first()?)))
            {
                let children = inner.children(root).rev();
                open.extend(children.map(|ax| (ax, inner, depth, parent)));
            }
        }
    }
    kept
}

/// What is not an element's has no name in chromium, and cannot be kept.
fn keep(kept: &mut Vec<(Node, i64)>, ax: &Ax, mut node: Node, depth: u32) -> Option<usize> {
    node.depth = depth;
    kept.push((node, ax.backend?));
    Some(kept.len() - 1)
}

fn shown(ax: &Ax, frame: &Frame, above: &str) -> Shown {
    let role = ax.role();
    match role {
        "InlineTextBox" | "LineBreak" | "ListMarker" => return Shown::Nothing,
        "none" | "MenuListPopup" | "LabelText" | "LayoutTable" | "LayoutTableRow"
        | "LayoutTableCell" => return Shown::Below,
        _ if ax.ignored => return Shown::Below,
        // What its parent is called already says it.
        "StaticText" if above.contains(ax.name.as_str().trim()) => return Shown::Nothing,
        "StaticText" => return Shown::Alone(ax.node("text")),
        _ => {}
    }
    let editable = ax.property("editable").map(|held| held.as_str());
    let is_focusable = ax.is("focusable");
    match editable {
        Some("plaintext") if is_focusable => Shown::Alone(ax.node(role)),
        Some("richtext") if is_focusable => {
            let mut node = ax.node(if role == "generic" { "textbox" } else { role });
            node.value = cut(&frame.text(ax));
            if node.name == node.value {
                node.name.clear();
            }
            Shown::Alone(node)
        }
        _ if role == "generic" && !is_focusable && ax.name.as_str().is_empty() => Shown::Below,
        _ => Shown::WithBelow(ax.node(role)),
    }
}

impl Ax {
    fn role(&self) -> &str {
        self.role.as_str()
    }

    fn property(&self, name: &str) -> Option<&Held> {
        let found = self.properties.iter().find(|found| found.name == name)?;
        Some(&found.value)
    }

    fn is(&self, name: &str) -> bool {
        self.property(name).is_some_and(Held::is_true)
    }

    fn node(&self, role: &str) -> Node {
        let value = match &self.value.value {
            Value::Null => String::new(),
            Value::String(text) => cut(text),
            other => other.to_string(),
        };
        Node {
            role: aria(role),
            name: cut(self.name.as_str()),
            value,
            states: self.states(),
            ..Node::default()
        }
    }

    fn states(&self) -> Vec<String> {
        let is_root = self.role() == "RootWebArea";
        let state = |property: &Property| -> Option<String> {
            let (name, value) = (property.name.as_str(), &property.value);
            let state = match name {
                "checked" | "pressed" if value.as_str() == "mixed" => "mixed",
                "expanded" if !value.is_true() => "collapsed",
                _ if !value.is_true() => return None,
                // Where the focus is when it is nowhere else.
                "focused" if is_root => return None,
                "checked" | "pressed" | "expanded" | "disabled" | "focused" | "selected"
                | "readonly" | "required" | "invalid" | "busy" | "modal" => name,
                _ => return None,
            };
            Some(state.to_owned())
        };
        self.properties.iter().filter_map(state).collect()
    }
}

impl Held {
    fn as_str(&self) -> &str {
        self.value.as_str().unwrap_or_default()
    }

    fn is_true(&self) -> bool {
        self.value == true || self.value == "true"
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().take(MOST_TEXT).collect()
}

/// A role as ARIA writes it; chromium's own, which begin with a capital, are written the same way.
fn aria(role: &str) -> String {
    match role {
        "RootWebArea" => return "document".to_owned(),
        "image" => return "img".to_owned(),
        _ => {}
    }
    let mut written = String::new();
    for character in role.chars() {
        if character.is_uppercase() && !written.is_empty() {
            written.push('-');
        }
        written.extend(character.to_lowercase());
    }
    written
}

/// Asks where each node is, all in one round trip.
fn place(on: &Operation<'_>, kept: &mut [(Node, i64)]) -> Outcome<()> {
    let asked: Vec<_> = kept
        .iter()
        .map(|(_, backend)| on.begin("DOM.getContentQuads", json!({ "backendNodeId": backend })))
        .collect();
    for ((node, _), waiting) in kept.iter_mut().zip(asked) {
        let quads = match on.wait(waiting) {
            // Not drawn.
            Err(Trouble::Said(_)) => continue,
            quads => quads?,
        };
        let corners: Vec<f64> = quads["quads"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(Value::as_f64)
            .collect();
        if corners.is_empty() {
            continue;
        }
        let edges = |first: usize| {
            let all = corners.iter().skip(first).step_by(2);
            all.fold((f64::MAX, f64::MIN), |(low, high), &at| {
                (low.min(at), high.max(at))
            })
        };
        let ((left, right), (top, bottom)) = (edges(0), edges(1));
        (node.x, node.y) = (left, top);
        (node.width, node.height) = (right - left, bottom - top);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(nodes: &Value) -> Frame {
        let nodes: Vec<Ax> = serde_json::from_value(nodes.clone()).unwrap();
        let by_id = nodes
            .iter()
            .enumerate()
            .map(|(at, ax)| (ax.node_id.clone(), at))
            .collect();
        Frame { nodes, by_id }
    }

    fn ax(id: usize, role: &str, name: &str, children: &[usize]) -> Value {
        let children: Vec<String> = children.iter().map(usize::to_string).collect();
        json!({
            "nodeId": id.to_string(), "backendDOMNodeId": id, "ignored": false,
            "role": { "value": role }, "name": { "value": name }, "childIds": children,
        })
    }

    fn drawn(frame: &Frame) -> Vec<String> {
        let kept = flatten(frame, &HashMap::new());
        let line = |(node, _): &(Node, i64)| format!("{} {} {}", node.depth, node.role, node.name);
        kept.iter().map(line).collect()
    }

    #[test]
    fn layout_is_left_out_and_depth_closes_up() {
        let tree = frame(&json!([
            ax(1, "RootWebArea", "Page", &[2, 6]),
            ax(2, "generic", "", &[3]),
            ax(3, "none", "", &[4, 5]),
            ax(4, "button", "Go on", &[7]),
            ax(5, "ColorWell", "", &[]),
            ax(6, "StaticText", "loose", &[]),
            ax(7, "StaticText", "Go ", &[]),
        ]));
        let expected = [
            "0 document Page",
            "1 button Go on",
            "1 color-well ",
            "1 text loose",
        ];
        assert_eq!(drawn(&tree), expected);
    }

    #[test]
    fn a_tree_that_is_deep_wide_or_names_nothing_ends() {
        let deep: Vec<Value> = (0..50_000)
            .map(|id| ax(id, "generic", "", &[id + 1]))
            .collect();
        assert!(drawn(&frame(&deep.into())).is_empty());
        let mut wide = vec![ax(0, "RootWebArea", "", &(1..5_000).collect::<Vec<_>>())];
        wide.extend((1..5_000).map(|id| ax(id, "button", "b", &[])));
        assert_eq!(drawn(&frame(&wide.into())).len(), MOST);
        assert!(drawn(&frame(&json!([]))).is_empty());
    }
}
