//! `nextstate demo`: a real model grows to suit a user by talking with them, with proof on questions that it
//! never trained on.
//!
//! One run: exam → conversations over the real HTTP gateway while the loops judge and train → exam. The scripted
//! user is a guest; its rule marks the exams and is never shown to the policy or the judge. `session.rs` is the run,
//! [`story`] what it leaves behind, [`report`] what people read.

pub mod curve;
pub mod exam;
pub mod report;
mod session;
pub mod stats;
pub mod story;
mod view;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use rl::algorithm::Method;

use crate::config::Config;
use crate::host::Loaded;
use crate::memory::Size;
use story::Story;

/// Watch a real model grow to suit a user by talking with them, in minutes, on this machine.
///
/// A scripted user with a hidden preference talks through the real HTTP gateway. What it says next is the only
/// signal: a judge (the same base model) reads it, hints are taken from it, and every few replies become the next
/// version, live at once. Held-out questions before and after prove what was learned.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user's hidden preference: brief, warm or metric; of arithmetic homework: student, ta or teacher
    #[arg(long, default_value = "brief")]
    pub persona: String,
    /// What is learned from: the verdict (binary), the hint (opd), or both (combined)
    #[arg(long, default_value = "combined", value_parser = method)]
    pub method: Method,
    /// Messages of the user
    #[arg(long, default_value_t = 36, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub interactions: u16,
    /// The run's seed: the same seed asks the same questions
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs, with this many consecutive seeds; the table gives the mean
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub seeds: u16,
    /// Held-out questions in each exam
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub questions: u16,
    /// The base model: a name known to `nextstate model`, or a path
    #[arg(long, default_value = "smollm2-135m-instruct")]
    pub model: String,
    /// A recipe (TOML) instead of the demo's own; --persona, --method and --seed still apply
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Most memory that this process may hold, 3GiB for example, instead of the configuration's `memory`
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// The run folder; by default a new one under runs/
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The demo's own recipe: what differs from the defaults of a host, and why.
const RECIPE: &str = include_str!("recipe.toml");

fn method(name: &str) -> Result<Method, String> {
    serde_json::from_value(serde_json::Value::from(name))
        .map_err(|_| format!("there is no method `{name}`: binary, opd or combined"))
}

fn name(method: Method) -> &'static str {
    match method {
        Method::Binary => "binary",
        Method::Opd => "opd",
        Method::Combined => "combined",
    }
}

/// Runs the command.
///
/// # Errors
/// What could not be started or asked, with its causes; the run folder keeps what was recorded.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut config = match &args.recipe {
        Some(path) => Config::read(path)?,
        None => Config::parse(RECIPE).context("the demo's own recipe")?,
    };
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => run_folder(&args)?,
    };
    anyhow::ensure!(
        !folder.join("story.json").exists(),
        "{} holds a finished run already; give another --out",
        folder.display()
    );
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create the run folder {}", folder.display()))?;
    config.model.name.clone_from(&args.model);
    config.memory = args.memory.or(config.memory);
    let loaded = Loaded::for_host(&mut config)?;
    let runtime = crate::commands::serve::runtime()?;
    let mut stories = Vec::new();
    for index in 0..u64::from(args.seeds) {
        let plan = session::Plan {
            config: config.clone(),
            folder: if args.seeds == 1 {
                folder.clone()
            } else {
                folder.join(format!("seed-{}", args.seed + index))
            },
            persona: args.persona.clone(),
            method: args.method,
            interactions: usize::from(args.interactions),
            questions: usize::from(args.questions),
            seed: args.seed + index,
        };
        let story = runtime.block_on(session::play(plan, loaded.clone()))?;
        println!("{}", table(&story));
        stories.push(story);
    }
    report::write(&folder, &stories)?;
    conclude(&stories, &folder);
    Ok(())
}

fn run_folder(args: &Args) -> anyhow::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let stamp = jiff::Timestamp::from_second(i64::try_from(seconds)?)?.strftime("%Y%m%d-%H%M%S");
    Ok(PathBuf::from("runs").join(format!("{stamp}-{}-{}", args.persona, name(args.method))))
}

/// The table of one run.
fn table(story: &Story) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        format!("{} · {} · seed {}", story.persona, story.method, story.seed),
        "before".into(),
        "after".into(),
    ]);
    let cell = |e: stats::Estimate| format!("{:.2} ({:.2}–{:.2})", e.value, e.low, e.high);
    table.add_row([
        format!(
            "satisfaction on {} held-out questions",
            story.after.answers.len()
        ),
        cell(story.before.satisfaction()),
        cell(story.after.satisfaction()),
    ]);
    for guard in story.after.guard_names() {
        let broken = if story.broken_guards().contains(&guard) {
            "  BROKEN"
        } else {
            ""
        };
        table.add_row([
            format!("guard: {guard}{broken}"),
            format!("{:.2}", story.before.guard(&guard)),
            format!("{:.2}", story.after.guard(&guard)),
        ]);
    }
    table.add_row([
        "tokens per reply".to_owned(),
        format!("{:.0}", story.before.tokens()),
        format!("{:.0}", story.after.tokens()),
    ]);
    table.add_row([
        "KL to the base, nats per token".to_owned(),
        format!("{:.3}", story.before.kl_to_base),
        format!("{:.3}", story.after.kl_to_base),
    ]);
    for (name, value) in figure_rows(story) {
        table.add_row([name, String::new(), value]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The figures of a run as names and values.
pub(crate) fn figure_rows(story: &Story) -> Vec<(String, String)> {
    let f = &story.figures;
    let [positive, negative, ambiguous, none] = f.verdicts;
    let mut rows = vec![
        (
            "interactions, versions".to_owned(),
            format!("{}, {}", story.interactions.len(), story.versions.len()),
        ),
        (
            "verdicts + / − / 0 / none".to_owned(),
            format!("{positive} / {negative} / {ambiguous} / {none}"),
        ),
        ("hints accepted".to_owned(), f.hints.to_string()),
        (
            "judge agrees with the rule".to_owned(),
            f.judge_agreement
                .map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
        ),
        (
            "tokens judged, trained".to_owned(),
            format!(
                "{}, {} ({} unlike served)",
                f.tokens_judged, f.tokens_trained, f.mismatched
            ),
        ),
        (
            "seconds: talking, of it in optimizer steps".to_owned(),
            format!("{:.0}, {:.0}", f.seconds_talking, f.seconds_training),
        ),
        (
            "mean seconds from reaction to verdict".to_owned(),
            format!("{:.1}", f.seconds_to_verdict),
        ),
        (
            "token rows/s through the engine while talking".to_owned(),
            format!("{:.0}", f.tokens_per_second),
        ),
        (
            "seconds in all, exams included".to_owned(),
            format!("{:.0}", f.seconds_total),
        ),
    ];
    if let Some(bytes) = f.peak_memory {
        rows.push((
            "peak memory".to_owned(),
            format!("{:.2} GB", bytes as f64 / 1e9),
        ));
    }
    rows
}

fn conclude(stories: &[Story], folder: &std::path::Path) {
    if let Some((before, after)) = stories.first().and_then(Story::showpiece) {
        println!(
            "\nthe same held-out question, never trained: {}",
            before.question
        );
        println!(
            "\n  before (v{}):\n{}",
            before.version,
            indent(&before.reply)
        );
        println!(
            "\n  after (v{}):\n{}\n",
            after.version,
            indent(&after.reply)
        );
    }
    let gains: Vec<f64> = stories.iter().map(Story::gain).collect();
    if let Some(gain) = stats::mean(&gains) {
        let spread = if gains.len() > 1 {
            format!(
                " (95 % interval {:+.2} to {:+.2} over {} seeds)",
                gain.low,
                gain.high,
                gains.len()
            )
        } else {
            String::new()
        };
        println!("satisfaction {:+.2}{spread}", gain.value);
    }
    println!("report      {}", folder.join("report.html").display());
    println!("curve       {}", folder.join("curve.svg").display());
    let data = if stories.len() == 1 {
        folder.to_owned()
    } else {
        folder.join(format!("seed-{}", stories[0].seed))
    };
    println!("versions    nextstate log --data {}", data.display());
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
