//! GUI: tasks on a web page that the model sees as an accessibility tree in text.
//!
//! The page's own state is the oracle: a script of ours reads it, and [`oracle`] compares it with what the task asks for. Pictures are
//! not shown: the contract's messages are text. Start at [`episode`]; what is on the pages is in [`families`] and `pages/`, the
//! model's grammar in [`action`], its view of a page in [`tree`]; live traffic is in [`traffic`].

pub mod action;
pub mod draft;
pub mod episode;
pub mod families;
pub mod miniwob;
pub mod oracle;
pub mod page;
pub mod surface;
pub mod task;
pub mod traffic;
pub mod tree;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, Line, Message, ModalityCard, Observation,
    ObservationKind, Request, Split, Turn, browser::Page, config,
};

use crate::{
    episode::{Rules, Visit},
    task::{Choice, Task},
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Environment for Plugin {
    type Episode = Visit<Page>;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "gui".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            action: ActionKind::Text,
            observation: ObservationKind::Tree,
            // Text is enough; an agent that has tools of its own may call them by the names of the grammar's verbs.
            tools: Vec::new(),
            capabilities: Capabilities::CONFIG | Capabilities::BROWSER,
        }
    }

    fn classify(request: Request) -> Result<Line, Fault> {
        Ok(traffic::classify(&request))
    }

    fn next_state(turn: Turn, new_messages: Vec<Message>) -> Result<Option<Observation>, Fault> {
        Ok(traffic::next_state(&turn, new_messages))
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        let small = |key: &str, number: usize| {
            u32::try_from(number)
                .map_err(|_| Fault::InvalidConfig(format!("`{key}` is {number}: too large")))
        };
        let difficulty = config::count("difficulty")?;
        let choice = Choice {
            families: config::texts("families")?,
            difficulty: u8::try_from(difficulty)
                .ok()
                .filter(|difficulty| *difficulty <= 3)
                .ok_or_else(|| {
                    Fault::InvalidConfig(format!("`difficulty` is {difficulty}: 0 to 3 are there"))
                })?,
            tasks: small("tasks", config::count("tasks")?)?,
            miniwob: config::boolean("miniwob")?,
        };
        task::ids(&choice, split)
    }

    fn start(task: String, seed: u32) -> Result<Visit<Page>, Fault> {
        // The task alone makes the page, so that all attempts at it can be compared.
        let _ = seed;
        let rules = Rules {
            max_turns: config::count("max-turns")?.max(1),
            tree_chars: config::count("tree-chars")?,
            end_when_solved: config::boolean("end-when-solved")?,
        };
        open(Task::read(&task)?, rules)
    }
}

fn open(task: Task, rules: Rules) -> Result<Visit<Page>, Fault> {
    match task {
        Task::Ours {
            family,
            difficulty,
            number,
        } => {
            let draft = family.draft(difficulty, number);
            let page = Page::create()?;
            page.show(&page::document(family.body, &draft.parameters))?;
            Visit::ours(page, draft, rules)
        }
        Task::MiniWob { page: name, number } => {
            if !config::boolean("miniwob")? {
                let why = "set `miniwob = true` in the plugin's section of the recipe";
                return Err(Fault::InvalidInput(format!(
                    "MiniWoB++ tasks are switched off: {why}"
                )));
            }
            let page = Page::create()?;
            page.open(miniwob::SITE, &miniwob::path(name))?;
            Visit::miniwob(page, name, number, rules)
        }
    }
}

sdk::export_environment!(Plugin);
