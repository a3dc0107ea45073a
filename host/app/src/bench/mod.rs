//! `nextstate bench`: this engine against llama.cpp and PyTorch, on this machine, in one run.
//!
//! What is measured is in `rows`; who takes part, and how it is spoken to, in `contender`; our own side in `ours`; the
//! words in `report`, the picture in `plot`; streams beside training in `beside`. Every contender is a process of its own that answers one JSON object a line, so
//! that nobody's threads, memory or warm caches help or hinder another.

mod beside;
mod contender;
mod machine;
mod ours;
mod plot;
mod report;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use contender::{Contender, Running};
use report::{Measured, Report, Run};
use rows::{ROWS, Row};

use crate::config::Dtype;

/// What `--help` says at its end.
const HELP: &str = "\
What is compared:
  ours       bf16 weights, against F32; bf16-pairs, where inputs of products are rounded to bf16, too, against llama.cpp's
             BF16, which does so; weights of eight bits against its Q8_0; all exact: the same bits in any batch and on
             any thread
  llama.cpp  the same weights as BF16, F32 and Q8_0, called as its own benchmarks call it
  PyTorch    transformers in f32, eager with SDPA; PEFT for training

  Everybody gets the same token ids and the same number of threads, and takes the most likely token in each step.
  Loading, taking prompts in (where decoding is measured) and one warm-up run of each are not timed. Runs are
  interleaved: one of ours, one of each peer, again and again, in turned order every other round. A ratio is the
  median of the rounds' own ratios, so that what the machine does beside hits both sides. The spread is shown;
  `--rounds` narrows it.

  The rows `beside` have no peer: streams of the whole engine, alone and while a learner steps on 4 × 256 tokens without
  a pause. What is told is how far apart a stream's tokens are; the 99th percentile may be twice what it is alone.

  The peers are not part of this program. host/app/peers/install (in the source) puts them into target/peers; without
  them only our own figures are shown.

  nextstate bench
  nextstate bench --only decode-1,train --rounds 9 --plot bench.svg --json > bench.json";

/// The arguments of `nextstate bench`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// A name in the model cache, a .gguf file or a Hugging Face folder; llama.cpp takes part only with a .gguf
    #[arg(
        long,
        value_name = "PATH|NAME",
        default_value = "smollm2-135m-instruct"
    )]
    model: String,
    /// Compute threads of everybody
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// The Python environment that host/app/peers/install made
    #[arg(long, value_name = "DIR", default_value = "target/peers")]
    peers: PathBuf,
    /// Timed runs of each contender in each row
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Rows to measure: decode-1, decode-8, decode-32, adapters-32, prefill-256, train, beside-1, beside-4
    #[arg(long, value_name = "ROW,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "nextstate-bench.svg")]
    plot: PathBuf,
    /// One JSON object on standard output instead of the table
    #[arg(long)]
    json: bool,
    /// Be our own contender and answer standard input
    #[arg(long, hide = true, value_name = "DTYPE")]
    contend: Option<Dtype>,
}

/// Runs the command.
///
/// # Errors
/// When the model cannot be opened, a row is unknown, or our own side fails. A peer that fails is reported and left out.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(dtype) = args.contend {
        return ours::answer(&args.model, dtype.into(), args.threads.into());
    }
    let rows = chosen(&args.only)?;
    let model = crate::models::resolve(&args.model)?;
    let text = ours::text(&model)?;
    let before = machine::load();
    let peers = contender::Peers::find(&args.peers, &model, args.threads);
    let mut report = Report {
        machine: machine::describe(),
        model: args.model.clone(),
        threads: args.threads,
        rounds: args.rounds,
        load: (before, 0.0),
        contenders: BTreeMap::new(),
        notes: peers.notes(),
        rows: Vec::new(),
    };
    for row in rows {
        eprintln!("{}: {}", row.name, row.title);
        let measured = measure(row, &peers, &text, args.rounds, &mut report)?;
        // Minutes pass until the table: whoever stops it early has these.
        eprint!("{}", report::lines(&measured));
        report.rows.push(measured);
    }
    report.load.1 = machine::load();
    plot::draw(&args.plot, &report)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report::page(&report));
        println!("the picture is in {}", args.plot.display());
    }
    Ok(())
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    if only.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    only.iter()
        .map(|name| {
            let found = ROWS.iter().find(|row| row.name == name);
            found.with_context(|| {
                let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
                format!("there is no row {name}; there are {}", known.join(", "))
            })
        })
        .collect()
}

/// All runs of one row. Processes live for one row only: what training leaves in memory is not counted for decoding.
fn measure(
    row: &Row,
    peers: &contender::Peers,
    text: &[u32],
    rounds: u16,
    report: &mut Report,
) -> anyhow::Result<Measured> {
    let work = row.work.ask(text);
    let mut running: Vec<(Contender, Running)> = Vec::new();
    for &contender in row.contenders {
        let warm = peers.start(contender).and_then(|started| {
            let Some(mut process) = started else {
                return Ok(None);
            };
            process.run(&work)?;
            Ok(Some(process))
        });
        match warm {
            Ok(Some(process)) => {
                (report.contenders).insert(contender.name().into(), process.about.clone());
                running.push((contender, process));
            }
            Ok(None) => {}
            Err(error) if contender.rival().is_none() => return Err(error),
            Err(error) => report.note(format!("{} took no part: {error:#}", contender.name())),
        }
    }
    let mut runs: Vec<Run> = (running.iter())
        .map(|(contender, _)| Run::of(*contender))
        .collect();
    let mut out = BTreeSet::new();
    for round in 0..rounds {
        let places: Vec<usize> = match round % 2 {
            0 => (0..running.len()).collect(),
            _ => (0..running.len()).rev().collect(),
        };
        for place in places {
            machine::settle();
            let (contender, process) = &mut running[place];
            let answer = process
                .run(&work)
                .with_context(|| format!("run {} in round {round}", contender.name()));
            match answer {
                Ok(answer) => runs[place].add(answer),
                Err(error) if contender.rival().is_none() => return Err(error),
                Err(error) => {
                    report.note(format!("{} was left out: {error:#}", contender.name()));
                    out.insert(*contender);
                }
            }
        }
        let stays = |contender: &Contender| !out.contains(contender);
        running.retain(|(contender, _)| stays(contender));
        runs.retain(|run| stays(&run.contender));
    }
    if runs.iter().all(|run| run.contender != Contender::Ours) {
        bail!("nothing of ours was measured in {}", row.name);
    }
    Ok(Measured::of(row, runs))
}
