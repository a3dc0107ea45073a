//! Other people's tool-call tasks, and a code interpreter, on a jailed machine.
//!
//! Hosts the multi-turn tasks of BFCL and the tasks of tau2-bench from an image of the operator's: their APIs are Python classes, which run in
//! the machine under a driver of ours, and the state that they end in is compared with that of the right calls. A third kind of task gives the
//! model a tool that runs Python.
//!
//! A plugin of its own, beside `tool-call`: a capability in a manifest is granted or the plugin is not loaded, and who practises with the APIs
//! that `tool-call` simulates should not have to grant `shell`. What both read and write is in `calls`; live traffic of agents that call tools is
//! `tool-call`'s. Start at [`session`]; [`imported`] and [`interpreter`] are the two sides that it plays against.

pub mod driver;
pub mod imported;
pub mod interpreter;
pub mod jail;
pub mod problems;
pub mod session;
pub mod text;
pub mod wire;
pub mod world;

use sdk::{
    ActionKind, Capabilities, Environment, Fault, ModalityCard, ObservationKind, Split,
    config::{self, Value},
    shell::Machine,
};

use crate::{
    driver::{Driver, Format},
    imported::Imported,
    interpreter::Interpreter,
    jail::Jail,
    problems::Choice,
    session::{Rules, Session},
    wire::ToolsIn,
};

/// The plugin.
#[derive(Debug)]
pub struct Plugin;

impl Environment for Plugin {
    type Episode = Session;

    fn describe() -> ModalityCard {
        ModalityCard {
            name: "tool-import".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            action: ActionKind::Text,
            observation: ObservationKind::Text,
            tools: Vec::new(),
            capabilities: Capabilities::CONFIG | Capabilities::SHELL,
        }
    }

    fn tasks(split: Split) -> Result<Vec<String>, Fault> {
        let families = config::texts("families")?;
        match source()? {
            Source::Code => problems::ids(
                &Choice {
                    families,
                    difficulty: u32::try_from(config::count("difficulty")?).unwrap_or(u32::MAX),
                    train: config::count("tasks-per-family")?,
                    held_out: config::count("held-out-tasks")?,
                },
                split,
            ),
            Source::Image(image, format) => listed::<Machine>(&image, format, &families, split),
        }
    }

    fn start(task: String, seed: u32) -> Result<Session, Fault> {
        // Nothing is drawn: all attempts at a task meet the same requests, and differ by what the model does.
        let _ = seed;
        begin::<Machine>(&source()?, &task, timeout_ms()?, rules()?)
    }
}

/// Where tasks come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Generated, for the code interpreter.
    Code,
    /// An image of the operator's.
    Image(String, Format),
}

/// Begins a task.
///
/// # Errors
/// `invalid-input` for a task that does not exist, `invalid-config` for an image that cannot be used.
pub fn begin<J: Jail>(
    source: &Source,
    task: &str,
    timeout_ms: u32,
    rules: Rules,
) -> Result<Session, Fault> {
    match source {
        Source::Code => {
            let problem = problems::problem(task)?;
            let (script, world) = Interpreter::<J>::start(problem, timeout_ms, rules.output_chars)?;
            Ok(Session::new(script, Box::new(world), rules))
        }
        Source::Image(image, format) => {
            let (script, world) = Imported::<J>::start(image, *format, task, timeout_ms)?;
            Ok(Session::new(script, Box::new(world), rules))
        }
    }
}

/// The ids of an image's tasks of some families.
///
/// # Errors
/// `invalid-config` for an image that cannot be used, or a family that it does not have.
pub fn listed<J: Jail>(
    image: &str,
    format: Format,
    families: &[String],
    split: Split,
) -> Result<Vec<String>, Fault> {
    let all = Driver::<J>::create(image, format)?.tasks()?;
    if let Some(unknown) = families
        .iter()
        .find(|name| !all.iter().any(|task| task.1 == **name))
    {
        return Err(Fault::InvalidConfig(format!(
            "`families` names `{unknown}`, and the image `{image}` has no task of it"
        )));
    }
    let wanted = |task: &driver::Listed| {
        (families.is_empty() || families.contains(&task.1)) && task.2 == (split == Split::HeldOut)
    };
    Ok(all.into_iter().filter(wanted).map(|task| task.0).collect())
}

fn source() -> Result<Source, Fault> {
    let image = || match config::get("image") {
        Some(Value::Text(image)) => Ok(image),
        _ => Err(Fault::InvalidConfig(
            "`tasks-from` wants an image: set `image` to the name of one under `[shell.images]`"
                .into(),
        )),
    };
    match config::text("tasks-from")?.as_str() {
        "code" => Ok(Source::Code),
        "bfcl" => Ok(Source::Image(image()?, Format::Bfcl)),
        "tau2" => Ok(Source::Image(image()?, Format::Tau2)),
        other => Err(unusable("tasks-from", other, "code, bfcl or tau2")),
    }
}

fn timeout_ms() -> Result<u32, Fault> {
    let seconds = u32::try_from(config::count("call-seconds")?).unwrap_or(u32::MAX);
    Ok(seconds.saturating_mul(1000).clamp(1000, 60_000))
}

fn rules() -> Result<Rules, Fault> {
    let tools_in = match config::text("tools-in")?.as_str() {
        "message" => ToolsIn::Message,
        "system" => ToolsIn::System,
        other => return Err(unusable("tools-in", other, "message or system")),
    };
    Ok(Rules {
        tools_in,
        max_turns: config::count("max-turns")?.max(1),
        max_calls: config::count("max-calls")?.max(1),
        calls_per_reply: config::count("calls-per-reply")?.max(1),
        patience: config::count("patience")?.max(1),
        output_chars: config::count("output-chars")?,
    })
}

fn unusable(key: &str, value: &str, allowed: &str) -> Fault {
    Fault::InvalidConfig(format!("`{key}` is `{value}`, and it can be {allowed}"))
}

sdk::export_environment!(Plugin);
