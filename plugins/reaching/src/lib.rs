//! A hostile guest with machines, pages and requests in its hands: every way we know to misuse them, chosen by the task.
//!
//! A fixture of `host/plugin/tests`, never shipped. What a jail, a browser or an HTTP client itself must withstand is tested in `host/sandbox`.

use sdk::{
    Action, ActionKind, Capabilities, Environment, Episode, Fault, Line, Message, ModalityCard,
    Observation, ObservationKind, Split, Step,
    browser::Page,
    http::{self, Request},
    shell::Machine,
};

/// The guest.
#[derive(Debug)]
pub struct Reaching;

/// One attempt at misuse.
#[derive(Debug)]
pub struct Attempt {
    task: String,
    machines: Vec<Machine>,
    pages: Vec<Page>,
}

impl Environment for Reaching {
    type Episode = Attempt;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "reaching".into(),
            version: "0.1.0".into(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: Vec::new(),
            capabilities: Capabilities::SHELL | Capabilities::BROWSER | Capabilities::HTTP,
        }
    }

    fn classify(_: sdk::Request) -> Result<Line, Fault> {
        get("https://a.example/live")?;
        Ok(Line::Main)
    }

    fn tasks(_: Split) -> Result<Vec<String>, Fault> {
        Ok(vec!["sleep".into()])
    }

    fn start(task: String, _: u32) -> Result<Attempt, Fault> {
        Ok(Attempt {
            task,
            machines: Vec::new(),
            pages: Vec::new(),
        })
    }
}

/// Status, headers and body, as the guest sees them.
fn get(url: &str) -> Result<String, Fault> {
    let response = http::fetch(&Request::get(url))?;
    let headers = response.headers.iter();
    let headers: Vec<_> = headers
        .map(|h| format!("{}: {}", h.name, h.value))
        .collect();
    let (status, body) = (response.status, response.text());
    Ok(format!("{status} [{}] {body}", headers.join(", ")))
}

impl Attempt {
    fn sleep(&mut self) -> Result<String, Fault> {
        let machine = Machine::create("empty")?;
        Ok(machine.run("sleep", "/work", 1_000)?.stdout)
    }

    fn misuse(&mut self) -> Result<String, Fault> {
        match self.task.as_str() {
            "sleep" => self.sleep(),
            "sleep-forever" => loop {
                self.sleep()?;
            },
            "sleep-then-spin" => {
                self.sleep()?;
                let mut turns = 0u64;
                loop {
                    turns = std::hint::black_box(turns.wrapping_add(1));
                }
            }
            "hoard" => loop {
                self.machines.push(Machine::create("empty")?);
                self.pages.push(Page::create()?);
            },
            "keep-one" => {
                self.machines.push(Machine::create("empty")?);
                Ok("kept".into())
            }
            "too-long" => {
                let machine = Machine::create("empty")?;
                machine
                    .run("sleep", "/work", u32::MAX)
                    .map(|_| "ran".into())
            }
            "elsewhere" => {
                let machine = Machine::create("empty")?;
                let read = machine.read_file("/etc/shadow")?;
                Ok(format!("{read:?}"))
            }
            "tree" => {
                let page = Page::create()?;
                page.show("<p>hello</p>")?;
                let names: Vec<_> = page.tree()?.into_iter().map(|node| node.name).collect();
                Ok(names.join(" "))
            }
            task => match task.split_once(' ') {
                Some(("get", url)) => get(url),
                Some(("get-forever", url)) => loop {
                    get(url)?;
                },
                Some(("get-large", url)) => get(&url.repeat(100_000)),
                Some(("get-as-admin", url)) => {
                    let request = Request::get(url).header("Authorization", "Bearer mine");
                    http::fetch(&request).map(|response| response.text())
                }
                _ => Err(Fault::InvalidInput(format!("no task `{task}`"))),
            },
        }
    }
}

impl Episode for Attempt {
    fn observe(&mut self) -> Result<Observation, Fault> {
        Ok(Observation::new(vec![Message::user("Go.")]))
    }

    fn act(&mut self, _: Action) -> Result<Step, Fault> {
        let said = self.misuse()?;
        Ok(Step {
            next: Observation::new(vec![Message::user(said)]),
            done: None,
        })
    }
}

sdk::export_environment!(Reaching);
