//! Where a history is asked: a running host, or a folder; how far it is, and how the answer is printed.
//!
//! What is asked is [`super::history`]'s.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::remote::Remote;
use crate::history::{self, Event, Progress, Request, Response, Tell, Workbench, render};

/// Where the history is, and how it is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct Place {
    /// Work on this data folder itself, while no host runs on it, instead of asking the running host
    #[arg(long, value_name = "DIR", help_heading = "Where")]
    pub data: Option<PathBuf>,
    /// With --data: the base model, when it is not where the folder's host had it
    #[arg(
        long,
        value_name = "PATH|NAME",
        requires = "data",
        help_heading = "Where"
    )]
    pub model: Option<String>,
    /// JSON on standard output and no progress, for programs
    #[arg(long)]
    pub json: bool,
    /// The host
    #[command(flatten, next_help_heading = "Where")]
    pub remote: Remote,
}

impl Place {
    /// Asks the host, or answers on the folder.
    ///
    /// # Errors
    /// What went wrong there, in its words.
    pub(super) fn ask(&self, request: Request) -> anyhow::Result<Response> {
        let shown = Shown::new(self.json);
        let mut tell = |progress: Progress| {
            shown.tell(&progress);
            Ok(())
        };
        let answer = match &self.data {
            Some(data) => {
                let bench = Workbench::offline(data, self.model.as_deref())?;
                history::run(&bench, request, &mut tell)
            }
            None => self.ask_host(&request, &mut tell),
        };
        shown.end();
        answer
    }

    fn ask_host(&self, request: &Request, tell: &mut Tell<'_>) -> anyhow::Result<Response> {
        let name = request.name();
        let body = self.remote.stream("/v1/history", request)?;
        for line in BufReader::new(body).lines() {
            let line = line.with_context(|| format!("the host went away during `{name}`"))?;
            let event: Event = serde_json::from_str(&line).context(
                "the host's answer has another shape: are host and command of one version?",
            )?;
            match event {
                Event::Progress(progress) => tell(progress)?,
                Event::Done(response) => return Ok(*response),
                Event::Error(failure) => anyhow::bail!("{}", failure.message),
            }
        }
        anyhow::bail!(
            "the host ended before `{name}` was done; what it had begun goes on when it starts again"
        )
    }

    /// Asks and prints the answer.
    pub(super) fn print(&self, request: Request) -> anyhow::Result<()> {
        let response = self.ask(request)?;
        self.show(&response)
    }

    pub(super) fn show(&self, response: &Response) -> anyhow::Result<()> {
        if self.json {
            say(&format!("{}\n", json(response)?))
        } else {
            say(&render::text(response))
        }
    }
}

/// Prints. A reader that has seen enough (`| head`) is no error.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to standard output")
        }
        _ => Ok(()),
    }
}

/// The answer itself, without the word that says which it is.
fn json(response: &Response) -> anyhow::Result<String> {
    let value = serde_json::to_value(response)?;
    let inner = match value {
        serde_json::Value::Object(map) => map.into_iter().next().map(|(_, inner)| inner),
        other => Some(other),
    };
    Ok(inner.unwrap_or_default().to_string())
}

/// Progress on standard error: a line that moves on a terminal, one line a change elsewhere, nothing with `--json`.
struct Shown {
    bar: Option<ProgressBar>,
    plain: bool,
    last: std::cell::RefCell<String>,
}

impl Shown {
    fn new(json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (!json && terminal).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            plain: !json && !terminal,
            last: std::cell::RefCell::default(),
        }
    }

    fn tell(&self, progress: &Progress) {
        let text = match progress.total {
            0 => progress.what.clone(),
            total => format!("{}: {} of {total}", progress.what, progress.done),
        };
        if let Some(bar) = &self.bar {
            bar.set_message(text.clone());
            bar.tick();
        }
        if self.plain && *self.last.borrow() != text {
            eprintln!("{text}");
        }
        self.last.replace(text);
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
