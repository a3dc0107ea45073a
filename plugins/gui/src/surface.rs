//! What an episode needs of a page, so that its rules can be tested without a browser.

use sdk::{
    Fault,
    browser::{Node, Page},
};

/// A page that is looked at and acted on; see `wit/capabilities.wit`, interface `browser`.
pub trait Surface {
    /// The accessibility tree.
    fn tree(&self) -> Result<Vec<Node>, Fault>;
    /// Clicks the middle of a node.
    fn click(&self, node: u32) -> Result<(), Fault>;
    /// Clicks a point.
    fn click_at(&self, x: f64, y: f64) -> Result<(), Fault>;
    /// Drags from a point to another.
    fn drag(&self, from: (f64, f64), to: (f64, f64)) -> Result<(), Fault>;
    /// Replaces what a field holds, or chooses from a list of choices.
    fn fill(&self, node: u32, text: &str) -> Result<(), Fault>;
    /// Types where the focus is.
    fn type_text(&self, text: &str) -> Result<(), Fault>;
    /// Presses a key.
    fn press(&self, key: &str) -> Result<(), Fault>;
    /// Scrolls by pixels.
    fn scroll(&self, x: f64, y: f64) -> Result<(), Fault>;
    /// Evaluates a script of ours.
    fn evaluate(&self, script: &str) -> Result<String, Fault>;
}

impl Surface for Page {
    fn tree(&self) -> Result<Vec<Node>, Fault> {
        self.tree()
    }

    fn click(&self, node: u32) -> Result<(), Fault> {
        self.click(node)
    }

    fn click_at(&self, x: f64, y: f64) -> Result<(), Fault> {
        self.click_at(x, y)
    }

    fn drag(&self, from: (f64, f64), to: (f64, f64)) -> Result<(), Fault> {
        self.drag(from.0, from.1, to.0, to.1)
    }

    fn fill(&self, node: u32, text: &str) -> Result<(), Fault> {
        self.fill(node, text)
    }

    fn type_text(&self, text: &str) -> Result<(), Fault> {
        self.type_text(text)
    }

    fn press(&self, key: &str) -> Result<(), Fault> {
        self.press(key)
    }

    fn scroll(&self, x: f64, y: f64) -> Result<(), Fault> {
        self.scroll(x, y)
    }

    fn evaluate(&self, script: &str) -> Result<String, Fault> {
        self.evaluate_json(script)
    }
}
