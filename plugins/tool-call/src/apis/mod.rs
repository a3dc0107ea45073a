//! The simulated APIs: state machines behind typed functions, and the hash of their state.
//!
//! An API knows its own preconditions and nothing of tasks, users or scores. A call that fails changes nothing. To add one: a file here, an
//! entry in [`World`] and [`NAMES`], and families that use it ([`crate::families`]).

use serde_json::{Map, Value, json};

use crate::schema::{Arguments, Function};

pub mod bank;
pub mod calendar;
pub mod contacts;
pub mod files;
pub mod home;
pub mod shop;
pub mod todo;
pub mod units;

/// A state machine behind functions.
pub trait Api {
    /// What can be called.
    fn functions(&self) -> &'static [Function];

    /// Runs a function whose arguments were checked. The answer is a JSON object.
    ///
    /// # Errors
    /// The precondition that does not hold, in words for the model.
    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String>;

    /// The state as far as it matters: two states with the same value are the same. Ids and the order in which things were done are
    /// left out, so that every way to the same end counts.
    fn canonical(&self) -> Value;
}

/// The state of one API.
#[derive(Clone, Debug)]
pub enum World {
    /// Accounts and bills.
    Bank(bank::Bank),
    /// Events of a week.
    Calendar(calendar::Calendar),
    /// People and messages.
    Contacts(contacts::Contacts),
    /// A tree of text files.
    Files(files::Files),
    /// Lights, heating and locks.
    Home(home::Home),
    /// Products, a cart and orders.
    Shop(shop::Shop),
    /// Lists of things to do.
    Todo(todo::Todo),
    /// Arithmetic, units and saved numbers.
    Units(units::Units),
}

/// The APIs' names, and their functions.
pub const NAMES: [(&str, &[Function]); 8] = [
    ("bank", &bank::FUNCTIONS),
    ("calendar", &calendar::FUNCTIONS),
    ("contacts", &contacts::FUNCTIONS),
    ("files", &files::FUNCTIONS),
    ("home", &home::FUNCTIONS),
    ("shop", &shop::FUNCTIONS),
    ("todo", &todo::FUNCTIONS),
    ("units", &units::FUNCTIONS),
];

/// What came of a call.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// What the model is given: a JSON object. Its `error` says why nothing was done; its `changed` says whether the state is another one,
    /// where the call was to change it.
    pub result: Value,
    /// Whether there is such a tool.
    pub known: bool,
    /// Whether it failed.
    pub failed: bool,
    /// Whether the state is another one.
    pub changed: bool,
}

impl Answer {
    /// A call that could not be made.
    pub fn error(why: &str, known: bool) -> Self {
        Self {
            result: json!({"error": why, "changed": false}),
            known,
            failed: true,
            changed: false,
        }
    }
}

impl World {
    fn api(&self) -> &dyn Api {
        match self {
            World::Bank(api) => api,
            World::Calendar(api) => api,
            World::Contacts(api) => api,
            World::Files(api) => api,
            World::Home(api) => api,
            World::Shop(api) => api,
            World::Todo(api) => api,
            World::Units(api) => api,
        }
    }

    fn api_mut(&mut self) -> &mut dyn Api {
        match self {
            World::Bank(api) => api,
            World::Calendar(api) => api,
            World::Contacts(api) => api,
            World::Files(api) => api,
            World::Home(api) => api,
            World::Shop(api) => api,
            World::Todo(api) => api,
            World::Units(api) => api,
        }
    }

    /// What can be called.
    pub fn functions(&self) -> &'static [Function] {
        self.api().functions()
    }

    /// Makes a call. The new state is taken over only when the call succeeds.
    pub fn call(&mut self, name: &str, arguments: &Map<String, Value>) -> Answer {
        let functions = self.functions();
        let Some(function) = functions.iter().find(|function| function.name == name) else {
            let names: Vec<_> = functions.iter().map(|function| function.name).collect();
            let name: String = name.chars().take(40).collect();
            let names = names.join(", ");
            let why = format!("unknown-tool: there is no tool `{name}`; the tools are {names}");
            return Answer::error(&why, false);
        };
        let mut after = self.clone();
        let ran = function.check(arguments).and_then(|given| {
            let ran = after.api_mut().run(name, &given);
            ran.map_err(|why| format!("precondition: {why}"))
        });
        let mut result = match ran {
            Err(why) => return Answer::error(&why, true),
            Ok(result) => result,
        };
        let changed = after.hash() != self.hash();
        if let Value::Object(result) = &mut result
            && function.changes
        {
            result.insert("changed".into(), changed.into());
        }
        *self = after;
        Answer {
            result,
            known: true,
            failed: false,
            changed,
        }
    }

    /// The hash of the state as far as it matters: what the oracle compares. FNV-1a of 64 bits, which is enough where nobody can choose
    /// a state freely.
    pub fn hash(&self) -> u64 {
        fnv(self.api().canonical().to_string().as_bytes())
    }
}

/// FNV-1a.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A text as far as it matters: letter case, white space and a full stop at the end do not.
pub(crate) fn plain(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words
        .join(" ")
        .trim_end_matches('.')
        .trim_end()
        .to_lowercase()
}

/// A list whose order does not matter.
pub(crate) fn unordered(items: impl Iterator<Item = Value>) -> Value {
    let mut items: Vec<_> = items.map(|item| (item.to_string(), item)).collect();
    items.sort_by(|one, other| one.0.cmp(&other.0));
    items.into_iter().map(|(_, item)| item).collect()
}

/// A number as JSON writes it best: without a fraction where there is none, and with at most six places otherwise.
pub(crate) fn number(value: f64) -> Value {
    let rounded = format!("{value:.6}");
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    match short.parse::<i64>() {
        Ok(whole) => whole.into(),
        Err(_) => short.parse::<f64>().map_or(Value::Null, Value::from),
    }
}

#[cfg(test)]
mod tests;
