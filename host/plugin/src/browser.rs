//! The capability `browser`, as a guest calls it: counts, limits, and hands over to [`crate::outside::Pages`].

use wasmtime::component::Resource;

use crate::{
    bindings::{browser as wit, types::Fault},
    capabilities::{Answer, State},
    outside::{Gesture, Page, Refusal},
};

/// A page that an instance holds.
#[expect(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Held(Box<dyn Page>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(page)")
    }
}

impl State {
    fn on_page<T>(
        &mut self,
        page: &Resource<Held>,
        passed: usize,
        call: impl FnOnce(&mut dyn Page) -> Result<T, Refusal>,
    ) -> Answer<T> {
        self.outside(passed, |table| Ok(call(&mut *table.get_mut(page)?.0)))
    }

    fn gesture(&mut self, page: &Resource<Held>, gesture: Gesture) -> Answer<()> {
        let passed = match &gesture {
            Gesture::Fill(_, text) | Gesture::Type(text) | Gesture::Press(text) => text.len(),
            _ => 0,
        };
        self.on_page(page, passed, |page| page.act(gesture))
    }
}

impl wit::Host for State {}

impl wit::HostPage for State {
    fn create(&mut self) -> Answer<Resource<Held>> {
        let Some(pages) = self.offers().browser.clone() else {
            let why = "this host offers no browser".to_owned();
            return Ok(Err(Fault::Unsupported(why)));
        };
        self.outside(0, |table| match pages.create() {
            Ok(page) => Ok(Ok(table.push(Held(page))?)),
            Err(refusal) => Ok(Err(refusal)),
        })
    }

    fn show(&mut self, page: Resource<Held>, html: String) -> Answer<()> {
        self.on_page(&page, html.len(), |page| page.show(&html))
    }

    fn open(&mut self, page: Resource<Held>, site: String, path: String) -> Answer<()> {
        self.on_page(&page, site.len() + path.len(), |page| {
            page.open(&site, &path)
        })
    }

    fn tree(&mut self, page: Resource<Held>) -> Answer<Vec<wit::Node>> {
        let nodes = self.on_page(&page, 0, |page| page.tree())?;
        let node = |node: crate::outside::Node| wit::Node {
            id: node.id,
            depth: node.depth,
            role: node.role,
            name: node.name,
            value: node.value,
            states: node.states,
            x: node.x,
            y: node.y,
            width: node.width,
            height: node.height,
        };
        Ok(nodes.map(|nodes| nodes.into_iter().map(node).collect()))
    }

    fn click(&mut self, page: Resource<Held>, node: u32) -> Answer<()> {
        self.gesture(&page, Gesture::Click(node))
    }

    fn click_at(&mut self, page: Resource<Held>, x: f64, y: f64) -> Answer<()> {
        self.gesture(&page, Gesture::ClickAt(x, y))
    }

    fn drag(
        &mut self,
        page: Resource<Held>,
        from_x: f64,
        from_y: f64,
        to_x: f64,
        to_y: f64,
    ) -> Answer<()> {
        self.gesture(&page, Gesture::Drag((from_x, from_y), (to_x, to_y)))
    }

    fn fill(&mut self, page: Resource<Held>, node: u32, text: String) -> Answer<()> {
        self.gesture(&page, Gesture::Fill(node, text))
    }

    fn type_text(&mut self, page: Resource<Held>, text: String) -> Answer<()> {
        self.gesture(&page, Gesture::Type(text))
    }

    fn press(&mut self, page: Resource<Held>, key: String) -> Answer<()> {
        self.gesture(&page, Gesture::Press(key))
    }

    fn scroll(&mut self, page: Resource<Held>, x: f64, y: f64) -> Answer<()> {
        self.gesture(&page, Gesture::Scroll(x, y))
    }

    fn evaluate_json(&mut self, page: Resource<Held>, script: String) -> Answer<String> {
        self.on_page(&page, script.len(), |page| page.evaluate_json(&script))
    }

    fn screenshot_png(&mut self, page: Resource<Held>) -> Answer<Vec<u8>> {
        self.on_page(&page, 0, |page| page.screenshot_png())
    }

    fn drop(&mut self, page: Resource<Held>) -> wasmtime::Result<()> {
        self.let_go(page)
    }
}
