//! What stands behind the capabilities `shell`, `browser`, `http`, `model` and `store`: the sandbox's jail, browser and client, as the
//! plugin host wants them, the engine ([`crate::named_models`]), and what an episode's archive has.
//!
//! The first three are made when the first guest asks: a host whose plugins need none starts no program, reads no secret and misses
//! nothing.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use plugin::outside::{
    ChangeKind, Client, Ending, Gesture, Machine, Machines, Method, Models, Network, Node, Output,
    Outside, Page, Pages, Refusal, Request, Response, Sessions,
};
use sandbox::{browser, http, shell};

use crate::{config::Config, plugins::crossings::noting};

/// What a host with this configuration offers its guests. Files of machines and pages lie under `folder`. What an episode that is
/// recorded asks for is noted.
pub fn outside(config: &Config, folder: PathBuf) -> Outside {
    noting(unnoted(config, folder))
}

/// The same, of which nothing is noted yet.
pub(crate) fn unnoted(config: &Config, folder: PathBuf) -> Outside {
    Outside {
        shell: Some(Arc::new(Jails {
            config: config.shell.clone(),
            folder: folder.join("machines"),
            made: OnceLock::new(),
        })),
        browser: Some(Arc::new(Browsers {
            config: config.browser.clone(),
            folder: folder.join("browser"),
            made: OnceLock::new(),
        })),
        // Only a host that runs a model has one.
        model: None,
        http: Some(Arc::new(Hosts {
            config: config.http.clone(),
            made: OnceLock::new(),
        })),
        // What an episode finds in it is its archive's to say: a host's is its ledger, elsewhere there is nothing.
        store: Some(Arc::new(Sessions)),
    }
}

/// What the commands for authors offer, on any machine: a store in which nothing was stored before, and of which nothing is kept.
pub(crate) fn for_authors() -> Outside {
    Outside {
        store: Some(Arc::new(Sessions)),
        ..Outside::default()
    }
}

/// The same as [`outside`], and models.
pub(crate) fn with_models(offers: Outside, models: Arc<dyn Models>) -> Outside {
    let noted = noting(Outside {
        model: Some(models),
        ..Outside::default()
    });
    Outside {
        model: noted.model,
        ..offers
    }
}

fn refusal(error: sandbox::Error) -> Refusal {
    match error {
        sandbox::Error::Unavailable { .. } => Refusal::Unsupported(error.to_string()),
        error if error.is_refusal() => Refusal::Invalid(error.to_string()),
        error => Refusal::Failed(error.to_string()),
    }
}

struct Jails {
    config: shell::Config,
    folder: PathBuf,
    made: OnceLock<Result<shell::Machines, Refusal>>,
}

impl Machines for Jails {
    fn create(&self, image: &str) -> Result<Box<dyn Machine>, Refusal> {
        let machines = self.made.get_or_init(|| {
            shell::Machines::new(self.config.clone(), &self.folder).map_err(refusal)
        });
        let machine = machines.as_ref().map_err(Clone::clone)?.create(image);
        Ok(Box::new(Jail(machine.map_err(refusal)?)))
    }
}

struct Jail(shell::Machine);

impl Machine for Jail {
    fn run(&mut self, command: &str, folder: &str, timeout: Duration) -> Result<Output, Refusal> {
        let output = self.0.run(command, folder, timeout).map_err(refusal)?;
        Ok(Output {
            ending: match output.ending {
                shell::Ending::Exited(code) => Ending::Exited(code),
                shell::Ending::Killed(signal) => Ending::Killed(signal),
                shell::Ending::TimedOut => Ending::TimedOut,
            },
            stdout: output.stdout,
            stderr: output.stderr,
            cut: output.cut,
        })
    }

    fn write_file(&mut self, path: &str, content: &[u8], executable: bool) -> Result<(), Refusal> {
        self.0
            .write_file(path, content, executable)
            .map_err(refusal)
    }

    fn read_file(&mut self, path: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.0.read_file(path).map_err(refusal)
    }

    fn snapshot(&mut self) -> Result<u32, Refusal> {
        self.0.snapshot().map_err(refusal)
    }

    fn roll_back(&mut self, snapshot: u32) -> Result<(), Refusal> {
        self.0.roll_back(snapshot).map_err(refusal)
    }

    fn changes(&mut self, since: u32) -> Result<Vec<(String, ChangeKind)>, Refusal> {
        let changes = self.0.changes(since).map_err(refusal)?;
        let kind = |kind| match kind {
            shell::ChangeKind::Added => ChangeKind::Added,
            shell::ChangeKind::Modified => ChangeKind::Modified,
            shell::ChangeKind::Removed => ChangeKind::Removed,
        };
        let change = |change: shell::Change| (change.path, kind(change.kind));
        Ok(changes.into_iter().map(change).collect())
    }
}

struct Browsers {
    config: browser::Config,
    folder: PathBuf,
    made: OnceLock<Result<browser::Browser, Refusal>>,
}

impl Pages for Browsers {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        let browser = self.made.get_or_init(|| {
            browser::Browser::new(self.config.clone(), &self.folder).map_err(refusal)
        });
        let page = browser.as_ref().map_err(Clone::clone)?.page();
        Ok(Box::new(Tab(page.map_err(refusal)?)))
    }
}

struct Tab(browser::Page);

impl Page for Tab {
    fn show(&mut self, html: &str) -> Result<(), Refusal> {
        self.0.show(html).map_err(refusal)
    }

    fn open(&mut self, site: &str, path: &str) -> Result<(), Refusal> {
        self.0.open(site, path).map_err(refusal)
    }

    fn tree(&mut self) -> Result<Vec<Node>, Refusal> {
        let node = |node: browser::Node| Node {
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
        let nodes = self.0.tree().map_err(refusal)?;
        Ok(nodes.into_iter().map(node).collect())
    }

    fn act(&mut self, gesture: Gesture) -> Result<(), Refusal> {
        match gesture {
            Gesture::Click(node) => self.0.click(node),
            Gesture::ClickAt(x, y) => self.0.click_at(x, y),
            Gesture::Drag((from_x, from_y), (to_x, to_y)) => {
                self.0.drag(from_x, from_y, to_x, to_y)
            }
            Gesture::Fill(node, text) => self.0.fill(node, &text),
            Gesture::Type(text) => self.0.type_text(&text),
            Gesture::Press(key) => self.0.press(&key),
            Gesture::Scroll(x, y) => self.0.scroll(x, y),
        }
        .map_err(refusal)
    }

    fn evaluate_json(&mut self, script: &str) -> Result<String, Refusal> {
        self.0.evaluate_json(script).map_err(refusal)
    }

    fn screenshot_png(&mut self) -> Result<Vec<u8>, Refusal> {
        self.0.screenshot_png().map_err(refusal)
    }
}

struct Hosts {
    config: http::Config,
    made: OnceLock<Result<http::Client, Refusal>>,
}

impl Network for Hosts {
    fn client(&self) -> Box<dyn Client> {
        let made = self.made.get_or_init(|| {
            http::Client::new(&self.config, http::Surroundings::default()).map_err(refusal)
        });
        Box::new(Requests(made.clone().map(|client| client.session())))
    }
}

/// Why there is none is said when something is asked for: a guest that only could ask misses nothing.
struct Requests(Result<http::Session, Refusal>);

impl Client for Requests {
    fn fetch(&mut self, request: Request) -> Result<Response, Refusal> {
        let session = self.0.as_mut().map_err(|refusal| refusal.clone())?;
        let request = http::Request {
            method: match request.method {
                Method::Get => http::Method::Get,
                Method::Head => http::Method::Head,
                Method::Post => http::Method::Post,
                Method::Put => http::Method::Put,
                Method::Patch => http::Method::Patch,
                Method::Delete => http::Method::Delete,
            },
            url: request.url,
            headers: request.headers,
            body: request.body,
        };
        let response = session.fetch(&request).map_err(refusal)?;
        Ok(Response {
            status: response.status,
            headers: response.headers,
            body: response.body,
        })
    }
}

#[cfg(test)]
mod tests;
