//! A page: created, given something to show, asked, closed.
//!
//! Each operation has one deadline. A page that does not answer in time is asked for a sign of life, and closed without one; the
//! next `show` or `open` begins anew, in a fresh profile. Gestures are in `gesture`, the tree is in `tree`.

use std::{
    sync::{Arc, mpsc::sync_channel},
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{Error, Result};

use super::{
    Node,
    chromium::Chromium,
    connection::{Deadline, Outcome, Trouble},
    evaluate,
    gesture::{self, Pointer},
    handle::Seat,
    nodes::Nodes,
    operation::Operation,
    request::{self, Given, SHOWN},
    session::{REQUESTS, Session},
    site, tree,
};

/// The size of a page in CSS pixels, by contract.
pub(super) const WIDTH: f64 = 640.0;
/// See [`WIDTH`].
pub(super) const HEIGHT: f64 = 480.0;

/// Largest HTML to show, and largest screenshot, by contract.
const MEBIBYTE: usize = 1 << 20;

/// How long a page that missed its deadline has for a sign of life.
const SIGN: Duration = Duration::from_secs(1);

/// A headless page with a profile of its own; closed, and its profile gone, when it is dropped.
///
/// Every operation blocks, at most for about [`super::Config::timeout`]. An error leaves the page as it is, unless it says
/// that the page was closed.
#[derive(Debug)]
pub struct Page {
    open: Open,
    nodes: Nodes,
    pointer: Pointer,
    seat: Seat,
}

/// A page as chromium has it.
#[derive(Debug)]
struct Open {
    chromium: Arc<Chromium>,
    session: Arc<Session>,
    given: Arc<Mutex<Given>>,
}

impl Page {
    pub(super) fn create(seat: Seat) -> Result<Self> {
        Ok(Self {
            open: Open::begin(&seat)?,
            nodes: Nodes::default(),
            pointer: Pointer::default(),
            seat,
        })
    }

    /// Shows this HTML, at most 1 MiB, and waits until it is loaded. The page reaches nothing else.
    ///
    /// # Errors
    /// [`Error::Refused`] for too much of it; [`Error::Failed`] when the page hangs or crashes.
    pub fn show(&mut self, html: &str) -> Result<()> {
        if html.len() > MEBIBYTE {
            let size = html.len();
            return Err(refused(
                "show HTML",
                format!("it has {size} bytes, more than 1 MiB"),
            ));
        }
        self.load("show HTML", Given::Html(html.into()), SHOWN)
    }

    /// Opens a file of a site, and waits until it is loaded. The page reaches the other files of that site, and nothing else.
    ///
    /// # Errors
    /// [`Error::Refused`] for a site or file that is not there; [`Error::Failed`] when the page hangs or crashes.
    pub fn open(&mut self, site: &str, path: &str) -> Result<()> {
        let action = format!("open {} of the site {}", shown(path), shown(site));
        let sites = &self.seat.shared.config.sites;
        let Some(folder) = sites.get(site) else {
            let known: Vec<&str> = sites.keys().map(String::as_str).collect();
            let why = format!("there is no such site; there are: {}", known.join(", "));
            return Err(refused(&action, why));
        };
        site::find(folder, path).map_err(|why| refused(&action, why))?;
        let given = Given::Site {
            name: site.to_owned(),
            folder: folder.clone(),
        };
        self.load(&action, given, &site::url(site, path))
    }

    /// The accessibility tree in document order, at most 2,000 nodes; what is only layout is left out. Text is cut to 1,000
    /// characters a name or value.
    ///
    /// # Errors
    /// [`Error::Refused`] when the document is too large to be read; [`Error::Failed`] when the page hangs or is gone.
    pub fn tree(&mut self) -> Result<Vec<Node>> {
        let mut nodes = std::mem::take(&mut self.nodes);
        let outcome = self.run("read the tree", |on| tree::read(on, &mut nodes));
        self.nodes = nodes;
        outcome
    }

    /// Clicks the middle of a node, which is scrolled into view before. Waits for what it leads to.
    ///
    /// # Errors
    /// [`Error::Refused`] for a node that is not there any more, is not drawn, or leads out of what the page may reach;
    /// [`Error::Failed`] when the page hangs or is gone. So it is for every gesture.
    pub fn click(&mut self, node: u32) -> Result<()> {
        let mut pointer = self.pointer;
        self.on_node(&format!("click node {node}"), node, |on, target| {
            gesture::click(on, target, &mut pointer)
        })?;
        self.pointer = pointer;
        Ok(())
    }

    /// Clicks a point of the page.
    ///
    /// # Errors
    /// [`Error::Refused`] for a point that is not on the page; see [`Page::click`].
    pub fn click_at(&mut self, x: f64, y: f64) -> Result<()> {
        let mut pointer = self.pointer;
        self.run(&format!("click at {x}, {y}"), |on| {
            gesture::click_at(on, (x, y), &mut pointer)
        })?;
        self.pointer = pointer;
        Ok(())
    }

    /// Drags from one point to another; also what the page lets drag by itself.
    ///
    /// # Errors
    /// [`Error::Refused`] for a point that is not on the page; see [`Page::click`].
    pub fn drag(&mut self, from_x: f64, from_y: f64, to_x: f64, to_y: f64) -> Result<()> {
        let action = format!("drag from {from_x}, {from_y} to {to_x}, {to_y}");
        let (from, to) = ((from_x, from_y), (to_x, to_y));
        let mut pointer = self.pointer;
        self.run(&action, |on| gesture::drag(on, from, to, &mut pointer))?;
        self.pointer = pointer;
        Ok(())
    }

    /// Focuses a field and replaces what it holds. Of a list of choices it chooses the one with this text.
    ///
    /// # Errors
    /// [`Error::Refused`] for a node that is no field, or does not take this text; see [`Page::click`].
    pub fn fill(&mut self, node: u32, text: &str) -> Result<()> {
        self.on_node(&format!("fill node {node}"), node, |on, target| {
            gesture::fill(on, target, text)
        })
    }

    /// Types text where the focus is, key by key; a line break is Enter. At most 10,000 characters.
    ///
    /// # Errors
    /// [`Error::Refused`] for too much text; see [`Page::click`].
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.run("type text", |on| gesture::type_text(on, text))
    }

    /// Presses a key by its DOM name.
    ///
    /// # Errors
    /// [`Error::Refused`] for a key that is not known; see [`Page::click`].
    pub fn press(&mut self, key: &str) -> Result<()> {
        self.run(&format!("press {}", shown(key)), |on| {
            gesture::press(on, key)
        })
    }

    /// Turns the wheel where the pointer is, which at first is the middle of the page.
    ///
    /// # Errors
    /// See [`Page::click`].
    pub fn scroll(&mut self, x: f64, y: f64) -> Result<()> {
        let pointer = self.pointer;
        self.run(&format!("scroll by {x}, {y}"), |on| {
            gesture::scroll(on, (x, y), pointer)
        })
    }

    /// The value of a script as JSON, at most 64 KiB; a promise is waited for. What JSON has no word for is `null`.
    ///
    /// # Errors
    /// [`Error::Refused`] when the script throws, or its value is too large; [`Error::Failed`] when it, or the page, hangs.
    pub fn evaluate_json(&mut self, script: &str) -> Result<String> {
        self.run("evaluate a script", |on| evaluate::json(on, script))
    }

    /// The page as PNG.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has more than 1 MiB; [`Error::Failed`] when the page hangs or is gone.
    pub fn screenshot_png(&mut self) -> Result<Vec<u8>> {
        self.run("take a screenshot", |on| {
            let answer = on.call("Page.captureScreenshot", json!({ "format": "png" }))?;
            let data = answer["data"].as_str().unwrap_or_default();
            let png = STANDARD
                .decode(data)
                .map_err(|error| Trouble::Said(format!("no screenshot: {error}")))?;
            if png.len() > MEBIBYTE {
                let size = png.len();
                let why = format!("it has {size} bytes, more than 1 MiB");
                return Err(Trouble::Refused(why));
            }
            Ok(png)
        })
    }

    fn load(&mut self, action: &str, given: Given, url: &str) -> Result<()> {
        // What is shown until now may hang, and is to be replaced anyway.
        if !self.open.lives() {
            self.open.close("it hung", self.seat.shared.config.timeout);
            self.open = Open::begin(&self.seat)?;
        }
        let before = std::mem::replace(&mut *self.open.given.lock(), given);
        self.pointer = Pointer::default();
        let outcome = self.run(action, |on| {
            on.session.expect();
            let answer = on.call("Page.navigate", json!({ "url": url }))?;
            if let Some(why) = answer["errorText"].as_str() {
                on.session.expect_nothing();
                let why = format!("it is not something that a page can show ({why})");
                return Err(Trouble::Refused(why));
            }
            let loader = answer["loaderId"].as_str().unwrap_or_default();
            on.session.until_loaded(loader, on.deadline)?;
            // There is no way back to what was shown before.
            on.call("Page.resetNavigationHistory", json!({}))?;
            Ok(())
        });
        if outcome.as_ref().is_err_and(Error::is_refusal) {
            *self.open.given.lock() = before;
        }
        outcome
    }

    fn on_node<T>(
        &mut self,
        action: &str,
        node: u32,
        work: impl FnOnce(&Operation<'_>, i64) -> Outcome<T>,
    ) -> Result<T> {
        let found = self.nodes.find(node, self.open.session.document());
        self.run(action, |on| work(on, found.map_err(Trouble::Refused)?))
    }

    fn run<T>(
        &mut self,
        action: &str,
        work: impl FnOnce(&Operation<'_>) -> Outcome<T>,
    ) -> Result<T> {
        let timeout = self.seat.shared.config.timeout;
        let on = Operation {
            connection: &self.open.chromium.connection,
            session: &self.open.session,
            deadline: Deadline::after(timeout),
        };
        self.open.session.begin();
        let failed = |why: String| Error::Failed {
            action: action.to_owned(),
            why,
        };
        let trouble = match work(&on) {
            Ok(value) => return Ok(value),
            Err(trouble) => trouble,
        };
        Err(match trouble {
            Trouble::Refused(why) => refused(action, why),
            Trouble::TooLarge => refused(action, "there is more than can be read".to_owned()),
            Trouble::Said(why) => failed(why),
            Trouble::Gone(why) => failed(format!(
                "the page is closed ({why}); show or open something to begin anew"
            )),
            Trouble::Late if self.open.lives() => {
                failed(format!("it took longer than {timeout:?}"))
            }
            Trouble::Late => {
                self.open.close("it hung", timeout);
                failed(format!(
                    "the page hung for {timeout:?} and was closed; show or open something to begin anew"
                ))
            }
        })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let timeout = self.seat.shared.config.timeout;
        self.open.close("it was dropped", timeout);
    }
}

impl Open {
    fn begin(seat: &Seat) -> Result<Self> {
        let chromium = seat.shared.chromium()?;
        let timeout = seat.shared.config.timeout;
        Self::within(&chromium, timeout).map_err(|trouble| {
            let why = match trouble {
                Trouble::Late => {
                    // Nothing of a page's runs yet: it is chromium that hangs.
                    chromium.kill();
                    format!("chromium hung for {timeout:?} and was killed; try again")
                }
                Trouble::Said(why) | Trouble::Gone(why) | Trouble::Refused(why) => why,
                Trouble::TooLarge => "chromium's answer is too large".to_owned(),
            };
            let action = "create a page".to_owned();
            Error::Failed { action, why }
        })
    }

    fn within(chromium: &Arc<Chromium>, timeout: Duration) -> Outcome<Self> {
        let deadline = Deadline::after(timeout);
        let connection = &chromium.connection;
        let make = |method: &str, params: Value, key: &str| {
            let answer = connection.call(None, method, params, deadline)?;
            Ok::<_, Trouble>(answer[key].as_str().unwrap_or_default().to_owned())
        };
        let context = make(
            "Target.createBrowserContext",
            json!({ "disposeOnDetach": true }),
            "browserContextId",
        )?;
        let target = make(
            "Target.createTarget",
            json!({ "url": "about:blank", "browserContextId": context, "width": WIDTH, "height": HEIGHT }),
            "targetId",
        )?;
        let id = make(
            "Target.attachToTarget",
            json!({ "targetId": target, "flatten": true }),
            "sessionId",
        )?;
        let (sender, requests) = sync_channel(REQUESTS);
        let session = Arc::new(Session::new(id, target, context, sender));
        connection.register(session.clone());
        let open = Self {
            chromium: chromium.clone(),
            session,
            given: Arc::default(),
        };
        let (given, connection) = (open.given.clone(), connection.clone());
        let weak = Arc::downgrade(&open.session);
        // Each page has its own, so that one that asks for a lot keeps only itself waiting.
        let answering = thread::Builder::new()
            .name("page".to_owned())
            .spawn(move || {
                for paused in requests {
                    let Some(session) = weak.upgrade() else {
                        return;
                    };
                    request::serve(&paused, &given, &session, &connection);
                }
            });
        answering.map_err(|error| Trouble::Said(format!("no thread: {error}")))?;
        open.prepare(deadline)?;
        Ok(open)
    }

    /// What a page may not do, and how large it is: before anything of its own runs.
    fn prepare(&self, deadline: Deadline) -> Outcome<()> {
        let on = Operation {
            connection: &self.chromium.connection,
            session: &self.session,
            deadline,
        };
        let context = &self.session.context;
        let screen =
            json!({ "width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": false });
        let mut asked: Vec<_> = [
            ("Page.enable", json!({})),
            (
                "Fetch.enable",
                json!({ "patterns": [{ "urlPattern": "*" }] }),
            ),
            ("Emulation.setDeviceMetricsOverride", screen),
            (
                "Emulation.setFocusEmulationEnabled",
                json!({ "enabled": true }),
            ),
            (
                "Page.setInterceptFileChooserDialog",
                json!({ "enabled": true, "cancel": true }),
            ),
            ("Input.setInterceptDrags", json!({ "enabled": true })),
        ]
        .into_iter()
        .map(|(method, params)| on.begin(method, params))
        .collect();
        for (method, params) in [
            (
                "Browser.grantPermissions",
                json!({ "permissions": [], "browserContextId": context }),
            ),
            (
                "Browser.setDownloadBehavior",
                json!({ "behavior": "deny", "browserContextId": context }),
            ),
        ] {
            asked.push(on.connection.begin(None, method, params));
        }
        asked
            .into_iter()
            .try_for_each(|waiting| on.wait(waiting).map(drop))
    }

    /// Whether the page gives a sign of life.
    fn lives(&self) -> bool {
        let on = Operation {
            connection: &self.chromium.connection,
            session: &self.session,
            deadline: Deadline::after(SIGN),
        };
        on.evaluate("0").is_ok()
    }

    /// Closes the page and destroys its profile. A page that hangs is killed.
    fn close(&self, why: &str, timeout: Duration) {
        let connection = &self.chromium.connection;
        connection.forget(&self.session.id, why);
        let context = json!({ "browserContextId": self.session.context });
        let deadline = Deadline::after(timeout);
        let closed = connection.call(None, "Target.disposeBrowserContext", context, deadline);
        if matches!(closed, Err(Trouble::Late)) {
            tracing::warn!("chromium hung and is killed: it did not close a page in time");
            self.chromium.kill();
        }
    }
}

pub(super) fn refused(action: &str, why: String) -> Error {
    let action = action.to_owned();
    Error::Refused { action, why }
}

/// What a caller passed, as an error shows it.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(100).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("`{shown}`")
}
