//! Medians, spreads and ratios, as a table and as JSON.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::contender::{About, Answer, Contender, Distances};
use super::rows::Row;

/// How much longer the 99th percentile of the distance between two tokens may be while training.
const GROWTH: f64 = 2.0;

/// Everything of one run. `--json` writes it: a contract.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Processor, cores, instruction set.
    pub(super) machine: String,
    /// As it was asked for.
    pub(super) model: String,
    /// Of everybody.
    pub(super) threads: u16,
    /// Timed runs of each contender in each row.
    pub(super) rounds: u16,
    /// Load average before and after.
    pub(super) load: (f64, f64),
    /// What each says of itself, by name.
    pub(super) contenders: BTreeMap<String, About>,
    /// Who took no part, and why.
    pub(super) notes: Vec<String>,
    /// The table.
    pub(super) rows: Vec<Measured>,
}

/// A row's figures, ours first.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// As `--only` names it.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// One for each who took part.
    pub(super) results: Vec<Figures>,
}

/// One contender in one row.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Whose.
    pub(super) contender: Contender,
    /// Tokens a second: median, least, most.
    pub(super) speed: [f64; 3],
    /// Our speed by its speed: median of the rounds' ratios, least, most; none for ourselves.
    pub(super) ratio: Option<[f64; 3]>,
    /// The least ratio that is aimed at.
    pub(super) target: Option<f64>,
    /// Most memory that the process held while it ran.
    pub(super) peak_bytes: u64,
    /// Distances between the tokens of streams: the round whose growth of the 99th percentile is the median.
    pub(super) distances: Option<Distances>,
    /// Beginning of the first sequence that is as ours, of how many tokens; a check that both run the same model.
    pub(super) agrees: Option<(usize, usize)>,
}

/// One contender's runs in one row, in the order of rounds.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) contender: Contender,
    speeds: Vec<f64>,
    peak_bytes: u64,
    first: Vec<u32>,
    distances: Vec<Distances>,
}

impl Distances {
    /// How many times the 99th percentile is as large while training.
    pub(super) fn growth(&self) -> f64 {
        self.training[2] / self.idle[2]
    }
}

impl Run {
    pub(super) fn of(contender: Contender) -> Self {
        Self {
            contender,
            speeds: Vec::new(),
            peak_bytes: 0,
            first: Vec::new(),
            distances: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, answer: Answer) {
        self.speeds.push(answer.tokens as f64 / answer.seconds);
        self.peak_bytes = self.peak_bytes.max(answer.peak_bytes);
        self.first = answer.first;
        self.distances.extend(answer.distances);
    }

    fn distances(&self) -> Option<Distances> {
        let mut rounds = self.distances.clone();
        rounds.sort_by(|a, b| a.growth().total_cmp(&b.growth()));
        rounds.get(rounds.len() / 2).copied()
    }
}

impl Measured {
    pub(super) fn of(row: &Row, runs: Vec<Run>) -> Self {
        let results = (runs.iter())
            .map(|run| {
                let rival = run.contender.rival();
                let other = rival.and_then(|rival| runs.iter().find(|run| run.contender == rival));
                let ratio = other.map(|ours| {
                    let pairs = ours.speeds.iter().zip(&run.speeds);
                    middle(pairs.map(|(ours, theirs)| ours / theirs).collect())
                });
                let target = row.targets.iter().find(|(of, _)| *of == run.contender);
                Figures {
                    contender: run.contender,
                    speed: middle(run.speeds.clone()),
                    ratio,
                    target: target.map(|(_, ratio)| *ratio),
                    peak_bytes: run.peak_bytes,
                    distances: run.distances(),
                    agrees: other
                        .filter(|ours| !ours.first.is_empty() && row.name != "adapters-32")
                        .map(|ours| (alike(&ours.first, &run.first), ours.first.len())),
                }
            })
            .collect();
        Self {
            name: row.name,
            title: row.title,
            results,
        }
    }
}

impl Report {
    /// Something to know, once.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

fn alike(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// Median, least and most.
fn middle(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else {
        return [f64::NAN; 3];
    };
    let half = values.len() / 2;
    let median = match values.len() % 2 {
        0 => f64::midpoint(values[half - 1], values[half]),
        _ => values[half],
    };
    [median, *least, *most]
}

/// For people.
pub(super) fn page(report: &Report) -> String {
    let mut lines = vec![
        report.machine.clone(),
        format!(
            "{}, {} threads, {} rounds; load average {:.1} before, {:.1} after",
            report.model, report.threads, report.rounds, report.load.0, report.load.1
        ),
        String::new(),
    ];
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "",
        "tok/s",
        "(spread)",
        "ours is",
        "(spread)",
        "aim",
        "peak MB",
        "same tokens",
    ]);
    for row in &report.rows {
        for (place, result) in row.results.iter().enumerate() {
            let title = if place == 0 { row.title } else { "" };
            let digits = if result.speed[0] < 100.0 { 1 } else { 0 };
            let [speed, least, most] = result.speed.map(|s| format!("{s:.digits$}"));
            let ratio = result.ratio.map(|[ratio, least, most]| {
                [format!("{ratio:.2} ×"), format!("({least:.2}–{most:.2})")]
            });
            let [ratio, spread] = ratio.unwrap_or_default();
            table.add_row([
                title.to_owned(),
                result.contender.name().to_owned(),
                speed,
                format!("({least}–{most})"),
                ratio,
                spread,
                result.target.map_or(String::new(), |t| format!("{t} ×")),
                (result.peak_bytes >> 20).to_string(),
                result
                    .agrees
                    .map_or(String::new(), |(n, of)| format!("{n} of {of}")),
            ]);
        }
    }
    for column in 2..9 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines.extend(
        table
            .to_string()
            .lines()
            .map(|line| line.trim_end().to_owned()),
    );
    lines.push(String::new());
    lines.extend(report.rows.iter().flat_map(distances));
    for (name, about) in &report.contenders {
        lines.push(format!("{name}: {}; {}", about.version, about.mode));
    }
    lines.extend(report.notes.iter().cloned());
    lines.join("\n") + "\n"
}

/// A row in short, while others are still to come.
pub(super) fn lines(row: &Measured) -> String {
    let line = |result: &Figures| {
        let (name, speed) = (result.contender.name(), result.speed[0]);
        let ratio = result
            .ratio
            .map(|[ratio, ..]| format!(": ours is {ratio:.2} ×"));
        format!(
            "  {name}, {speed:.0} tokens/s{}\n",
            ratio.unwrap_or_default()
        )
    };
    row.results.iter().map(line).collect()
}

/// A line for each whose streams were measured.
fn distances(row: &Measured) -> impl Iterator<Item = String> {
    row.results.iter().filter_map(|result| {
        let found = result.distances?;
        let Distances {
            idle,
            training,
            trained,
        } = found;
        let figures = |[p50, p95, p99]: [f64; 3]| format!("{p50:.1}, {p95:.1}, {p99:.1}");
        Some(format!(
            "{}, {}: inter-token p50, p95, p99 {} ms idle, {} while training {trained:.0} tokens/s: p99 {:.2} × (at most {GROWTH} ×)",
            row.title,
            result.contender.name(),
            figures(idle),
            figures(training),
            found.growth()
        ))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::rows::ROWS;
    use super::*;

    fn run(contender: Contender, seconds: &[f64], first: &[u32]) -> Run {
        let mut run = Run::of(contender);
        for &seconds in seconds {
            run.add(Answer {
                seconds,
                tokens: 10,
                first: first.to_vec(),
                peak_bytes: 3 << 20,
                distances: None,
            });
        }
        run
    }

    /// Ours against one peer in one row.
    pub(crate) fn report() -> Report {
        let ours = run(Contender::OursPairs, &[1.0, 2.0, 1.0], &[5, 6, 7]);
        // The machine was busy in the second round, for both.
        let theirs = run(Contender::LlamaBf16, &[1.5, 3.0, 2.0], &[5, 6, 9]);
        Report {
            machine: "a machine".into(),
            model: "tiny".into(),
            threads: 2,
            rounds: 3,
            load: (0.5, 1.0),
            contenders: BTreeMap::new(),
            notes: vec!["PyTorch is not here".into()],
            rows: vec![Measured::of(&ROWS[0], vec![ours, theirs])],
        }
    }

    #[test]
    fn ratios_are_of_runs_side_by_side_and_medians_have_their_spread() {
        let report = report();
        let [ours, theirs] = &report.rows[0].results[..] else {
            panic!("two took part")
        };
        assert_eq!((ours.speed, ours.ratio), ([10.0, 5.0, 10.0], None));
        assert_eq!(theirs.ratio, Some([1.5, 1.5, 2.0]));
        assert_eq!((theirs.target, theirs.agrees), (Some(1.2), Some((2, 3))));
        assert_eq!(middle(vec![4.0, 1.0]), [2.5, 1.0, 4.0]);
        let page = page(&report);
        for part in [
            "1.50 ×",
            "(1.50–2.00)",
            "1.2 ×",
            "2 of 3",
            "PyTorch is not here",
            "load average 0.5",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn the_distances_of_the_round_in_the_middle_are_told() {
        let mut streams = Run::of(Contender::Ours);
        for beside in [30.0, 18.0, 15.0] {
            streams.add(Answer {
                seconds: 1.0,
                tokens: 10,
                first: Vec::new(),
                peak_bytes: 1,
                distances: Some(Distances {
                    idle: [8.0, 9.0, 10.0],
                    training: [12.0, 14.0, beside],
                    trained: 250.0,
                }),
            });
        }
        let row = Measured::of(&ROWS[ROWS.len() - 1], vec![streams]);
        let said: Vec<String> = distances(&row).collect();
        let [line] = &said[..] else {
            panic!("{said:?}")
        };
        for part in [
            "8.0, 9.0, 10.0 ms idle",
            "18.0 while training",
            "p99 1.80 ×",
            "at most 2 ×",
            "training 250 tokens/s",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn the_note_of_a_peer_that_fails_in_every_row_is_told_once() {
        let mut report = report();
        report.note("x".into());
        report.note("x".into());
        assert_eq!(report.notes.len(), 2);
    }
}
