//! `nextstate plugin play`: an episode of an environment with a person as the policy, who is shown what the policy would be shown.
//!
//! No model and no host: for an author who wants to know what an environment is like, before anything is trained on it. What crosses
//! the border can be recorded, and what a page looks like kept as pictures.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use plugin::GuestEnvironment;
use plugin::outside::{Gesture, Node, Outside, Page, Pages, Refusal};
use rl::{Action, Environment, Message, Role, Seed, TaskId, ToolCall};

use super::crossings::{Recorder, noting};
use super::source::{Source, section};
use crate::compiled;
use crate::config::Config;
use crate::guests::plugin_name;
use crate::outside::unnoted;
use crate::transcript::{Cut, ended, field, message, outcome};
use crate::visible;

/// What begins a line that is a call.
const CALL: &str = "/call ";
/// Tasks of a split that are listed.
const LISTED: usize = 50;

/// `nextstate plugin play`
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
A reply is what you type up to an empty line outside of a ``` block; Ctrl-D gives up. A line `/call NAME {\"key\": 1}` is a call of a tool.
Examples: nextstate plugin play my-environment
          nextstate plugin play terminal --list --set difficulty=1
          nextstate plugin play gui --task click-button/1/3 --pictures shots --record recordings
A recording can be played again to another build: nextstate plugin replay")]
pub struct PlayArgs {
    /// A folder, or the name of a shipped or installed environment
    pub plugin: String,
    /// The task; the first one without it
    #[arg(long, value_name = "ID")]
    pub task: Option<String>,
    /// List the tasks instead
    #[arg(long, conflicts_with_all = ["task", "record", "pictures"])]
    pub list: bool,
    /// The episode's seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A key of its config, as in a recipe: --set difficulty=2, --set mode='\"slow\"'
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A recipe, for its config and for what stands behind `shell`, `browser` and `http`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show texts whole: by default 12 lines of each
    #[arg(long)]
    pub full: bool,
    /// Write down what crosses between host and environment, for `nextstate plugin replay`
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Keep a picture of the page each time that the environment looks at it
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
}

pub(super) fn run(args: &PlayArgs) -> anyhow::Result<()> {
    let config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    let source = Source::find(&args.plugin)?;
    source.warn_when_stale();
    let own = config.plugins.config.get(&plugin_name(&args.plugin));
    let mut own = own.cloned().unwrap_or_default();
    own.extend(section(&args.set)?);
    let folder = tempfile::tempdir().context("failed to make a folder for machines and pages")?;
    let mut offers = unnoted(&config, folder.path().to_owned());
    if let Some(pictures) = &args.pictures {
        offers = pictured(offers, pictures)?;
    }
    // Outermost: a picture is nothing that the environment asked for.
    let host = compiled::host(noting(offers))?;
    // Its author, who trusts it, is who plays.
    let plugin = source.load(&host, &source.wishes()?, &own)?;
    let guest = Arc::new(GuestEnvironment::new(&plugin, Seed::new(args.seed))?);
    let environment: Arc<dyn Environment> = match &args.record {
        Some(folder) => Arc::new(Recorder::new(guest, folder.clone())?),
        None => guest,
    };
    if args.list {
        return list(&*environment);
    }
    let task = match &args.task {
        Some(task) => TaskId::new(task.as_str()),
        None => {
            let all = environment.tasks("train")?;
            let first = all.into_iter().next();
            first.with_context(|| format!("{} hosts no task with this config", plugin.name()))?
        }
    };
    let cut = match args.full {
        true => Cut::NOTHING,
        false => Cut::default(),
    };
    let stdin = std::io::stdin();
    let table = Table {
        cut,
        is_typed: stdin.is_terminal(),
    };
    table.play(
        &*environment,
        &task,
        Seed::new(args.seed),
        &mut stdin.lock(),
    )
}

fn list(environment: &dyn Environment) -> anyhow::Result<()> {
    let mut out = String::new();
    for split in ["train", "held-out"] {
        let tasks = environment.tasks(split)?;
        let most = tasks.len().min(LISTED);
        let shown = match tasks.len() > LISTED {
            true => format!(", {LISTED} of them"),
            false => String::new(),
        };
        let _ = writeln!(out, "{split}: {} tasks{shown}", tasks.len());
        // Spread over all of them: tasks of one family stand together.
        for at in 0..most {
            let task = &tasks[at * tasks.len() / most];
            let _ = writeln!(out, "  {}", visible::word(task.as_str()));
        }
    }
    show(&out);
    Ok(())
}

/// Where it is played.
struct Table {
    cut: Cut,
    /// A person's own words are on the screen already.
    is_typed: bool,
}

impl Table {
    fn play(
        &self,
        environment: &dyn Environment,
        task: &TaskId,
        seed: Seed,
        replies: &mut dyn BufRead,
    ) -> anyhow::Result<()> {
        let card = environment.card();
        let mut episode = environment.start(task, seed).with_context(|| {
            format!("failed to start the task `{task}`; --list says which there are")
        })?;
        let mut out = String::new();
        let head = format!(
            "{} {} · task {task} · seed {}",
            card.name,
            card.version,
            seed.get()
        );
        let _ = writeln!(out, "{}\n", visible::word(&head));
        for tool in &card.tools {
            let said = format!("{} {}: {}", tool.name, tool.parameters, tool.description);
            field(&mut out, "tool", &said, self.cut);
        }
        for one in &episode.observe()?.messages {
            message(&mut out, one.role.as_str(), one, self.cut);
        }
        show(&out);
        let mut turn = 0;
        let mut over = None;
        while over.is_none() {
            turn += 1;
            if self.is_typed {
                eprintln!("\nreply {turn}, up to an empty line:");
            }
            let Some(reply) = read(replies)? else { break };
            let mut out = "\n".to_owned();
            if !self.is_typed {
                message(&mut out, "reply", &reply, self.cut);
            }
            let action = Action {
                message: reply,
                truncated: false,
            };
            let step = episode.act(&action)?;
            if step.observation.messages.is_empty() {
                field(&mut out, "next", "(nothing was said)", self.cut);
            }
            for one in &step.observation.messages {
                message(&mut out, "next", one, self.cut);
            }
            show(&out);
            over = step.done;
        }
        let ended = match over {
            Some(_) => ended(over),
            None => "given up",
        };
        let found = outcome(episode.outcome()?.as_ref());
        show(&format!("\n{found} · {ended}\n"));
        Ok(())
    }
}

fn show(text: &str) {
    // Whoever reads along through a pipe sees each turn when it is over; one that has seen enough (`| head`) is no error.
    let mut stdout = std::io::stdout();
    let _gone = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}

/// The next reply: lines up to an empty one that is not inside of a fence; none at the end.
fn read(replies: &mut dyn BufRead) -> anyhow::Result<Option<Message>> {
    let mut reply = Message::new(Role::Assistant, "");
    let mut lines = Vec::new();
    let mut is_fenced = false;
    loop {
        let mut line = String::new();
        let count = replies
            .read_line(&mut line)
            .context("failed to read a reply")?;
        let line = line.trim_end_matches(['\n', '\r']);
        let is_begun = !lines.is_empty() || !reply.tool_calls.is_empty();
        if count == 0 && !is_begun {
            return Ok(None);
        }
        if count == 0 || (line.is_empty() && is_begun && !is_fenced) {
            reply.content = lines.join("\n");
            return Ok(Some(reply));
        }
        is_fenced ^= line.starts_with("```");
        if let Some(call) = line.strip_prefix(CALL).filter(|_| !is_fenced) {
            let (name, arguments) = call.trim().split_once(' ').unwrap_or((call.trim(), "{}"));
            reply.tool_calls.push(ToolCall {
                id: format!("call_{}", reply.tool_calls.len() + 1),
                name: name.to_owned(),
                arguments: arguments.trim().to_owned(),
            });
        } else if is_begun || !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
}

/// The same capabilities, with a picture of a page kept each time that its tree is read.
fn pictured(offers: Outside, folder: &Path) -> anyhow::Result<Outside> {
    fs::create_dir_all(folder)
        .with_context(|| format!("failed to make the folder {}", folder.display()))?;
    ensure!(
        offers.browser.is_some(),
        "there is no browser to take pictures of"
    );
    let album = Arc::new(Album {
        folder: folder.to_owned(),
        taken: AtomicUsize::new(0),
    });
    Ok(Outside {
        browser: offers
            .browser
            .map(|inner| Arc::new(Pictured { inner, album }) as Arc<dyn Pages>),
        ..offers
    })
}

struct Album {
    folder: PathBuf,
    taken: AtomicUsize,
}

struct Pictured {
    inner: Arc<dyn Pages>,
    album: Arc<Album>,
}

impl Pages for Pictured {
    fn create(&self) -> Result<Box<dyn Page>, Refusal> {
        Ok(Box::new(PicturedPage {
            inner: self.inner.create()?,
            album: Arc::clone(&self.album),
        }))
    }
}

struct PicturedPage {
    inner: Box<dyn Page>,
    album: Arc<Album>,
}

impl Page for PicturedPage {
    fn show(&mut self, html: &str) -> Result<(), Refusal> {
        self.inner.show(html)
    }

    fn open(&mut self, site: &str, path: &str) -> Result<(), Refusal> {
        self.inner.open(site, path)
    }

    fn tree(&mut self) -> Result<Vec<Node>, Refusal> {
        let tree = self.inner.tree()?;
        let number = self.album.taken.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.album.folder.join(format!("{number}.png"));
        match self.inner.screenshot_png().map(|png| fs::write(&path, png)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("failed to write {}: {error}", path.display()),
            Err(refusal) => eprintln!("no picture {}: {refusal:?}", path.display()),
        }
        Ok(tree)
    }

    fn act(&mut self, gesture: Gesture) -> Result<(), Refusal> {
        self.inner.act(gesture)
    }

    fn evaluate_json(&mut self, script: &str) -> Result<String, Refusal> {
        self.inner.evaluate_json(script)
    }

    fn screenshot_png(&mut self) -> Result<Vec<u8>, Refusal> {
        self.inner.screenshot_png()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_what_stands_before_an_empty_line_and_its_calls_are_calls() {
        let text = "\n\nwc -l a\n/call find {\"a\": 1}\n/call list\n\n\nyes\n";
        let mut replies = text.as_bytes();
        let first = read(&mut replies).unwrap().unwrap();
        assert_eq!(first.content, "wc -l a");
        let calls = first.tool_calls.iter();
        let calls: Vec<_> = calls
            .map(|call| {
                (
                    call.id.as_str(),
                    call.name.as_str(),
                    call.arguments.as_str(),
                )
            })
            .collect();
        assert_eq!(
            calls,
            [("call_1", "find", "{\"a\": 1}"), ("call_2", "list", "{}")]
        );
        assert_eq!(read(&mut replies).unwrap().unwrap().content, "yes");
        assert_eq!(read(&mut replies).unwrap(), None);
        let fenced = "```bash\na\n\n/call b\n```\nc\n\nd";
        let mut replies = fenced.as_bytes();
        let first = read(&mut replies).unwrap().unwrap();
        assert_eq!(first.content, fenced.strip_suffix("\n\nd").unwrap());
        assert_eq!(read(&mut replies).unwrap().unwrap().content, "d");
    }
}
