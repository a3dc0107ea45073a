//! What people read after a run: a table, a sentence, a curve.

use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use plotters::prelude::*;

use super::play::{Exam, Story};

/// Rounds that the running mean looks back on.
const WINDOW: usize = 5;

/// Writes `rollout.json` and `curve.svg` into the run folder.
///
/// # Errors
/// The file that could not be written.
pub fn write(folder: &Path, story: &Story) -> anyhow::Result<()> {
    let path = folder.join("rollout.json");
    std::fs::write(&path, serde_json::to_string_pretty(story)?)
        .with_context(|| format!("failed to write {}", path.display()))?;
    draw(&folder.join("curve.svg"), story)
}

/// Before and after, number by number.
pub fn table(story: &Story) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["exam (never trained)", "before", "after", "change"]);
    let (Some(before), Some(after)) = (&story.before, &story.after) else {
        table.add_row(["no exam", "", "", ""]);
        return table;
    };
    let (b, a) = (before.score(), after.score());
    let shown =
        |e: crate::demo::stats::Estimate| format!("{:.2} ({:.2}–{:.2})", e.value, e.low, e.high);
    table.add_row([
        "outcome".to_owned(),
        shown(b),
        shown(a),
        format!("{:+.2}", a.value - b.value),
    ]);
    let names = before.metrics.keys().chain(after.metrics.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    for name in names {
        let of = |exam: &Exam| exam.metrics.get(name).copied();
        let number = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.2}"));
        let change = match (of(before), of(after)) {
            (Some(before), Some(after)) => format!("{:+.2}", after - before),
            _ => String::new(),
        };
        table.add_row([name.clone(), number(of(before)), number(of(after)), change]);
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The run in a sentence.
pub fn conclusion(story: &Story) -> String {
    let text = format!(
        "{} rounds · {} versions · {} samples trained · {:.0} s · {:.1} replies/s",
        story.rounds.len(),
        story.versions,
        story.trained,
        story.seconds,
        story.turns_per_second
    );
    let reasons = story.not_trainable.iter();
    let reasons: String = reasons
        .map(|(why, count)| format!(" · {count} {why}"))
        .collect();
    let failed = story.failed.first().map_or_else(String::new, |first| {
        let count = story.failed.len();
        format!("\n{count} episodes failed, the first: {first}")
    });
    text + &reasons + &failed
}

/// The mean of the last [`WINDOW`] rounds at each round.
fn running_mean(outcomes: &[f64]) -> Vec<f64> {
    let mean = |i: usize| {
        let last = &outcomes[(i + 1).saturating_sub(WINDOW)..=i];
        last.iter().sum::<f64>() / last.len() as f64
    };
    (0..outcomes.len()).map(mean).collect()
}

fn draw(path: &Path, story: &Story) -> anyhow::Result<()> {
    let blue = RGBColor(31, 98, 171);
    let grey = RGBColor(150, 150, 150);
    let green = RGBColor(34, 139, 84);
    let outcomes: Vec<f64> = story.rounds.iter().map(|round| round.outcome).collect();
    let points = |values: Vec<f64>| (1u32..).map(f64::from).zip(values).collect::<Vec<_>>();
    let last = outcomes.len() as f64 + 1.0;
    let title = format!(
        "{} · {} · seed {}",
        story.environment, story.reward, story.seed
    );
    let area = SVGBackend::new(path, (860, 400)).into_drawing_area();
    (|| -> Result<(), DrawingAreaErrorKind<_>> {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(0f64..last, -0.02f64..1.02f64)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("round")
            .y_desc("mean outcome")
            .draw()?;
        let dots = points(outcomes.clone());
        chart.draw_series(dots.into_iter().map(|at| Circle::new(at, 3, grey.filled())))?;
        chart.draw_series(LineSeries::new(
            points(running_mean(&outcomes)),
            blue.stroke_width(2),
        ))?;
        for (at, exam) in [(0.0, &story.before), (last - 0.02, &story.after)] {
            if let Some(exam) = exam {
                let score = exam.score();
                let line = [(at, score.low), (at, score.high)];
                chart.draw_series(LineSeries::new(line, green.stroke_width(2)))?;
                let dot = Circle::new((at, score.value), 5, green.filled());
                chart.draw_series([dot])?;
            }
        }
        area.present()
    })()
    .map_err(|error| anyhow::anyhow!("{error}"))
    .with_context(|| format!("failed to draw {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn exam(scores: &[f64]) -> Option<Exam> {
        Some(Exam {
            scores: scores.to_vec(),
            metrics: BTreeMap::from([("format-valid".to_owned(), scores[0])]),
            transcript: Vec::new(),
        })
    }

    fn story() -> Story {
        Story {
            environment: "tool-call 0.1.0".into(),
            reward: "grpo-reward".into(),
            model: "tiny".into(),
            seed: 1,
            before: exam(&[0.0, 0.5]),
            after: exam(&[1.0, 0.5]),
            rounds: Vec::new(),
            versions: 3,
            trained: 24,
            not_trainable: BTreeMap::from([("no-advantage".to_owned(), 2)]),
            failed: vec!["practice-1: broke".into()],
            seconds: 1.0,
            turns_per_second: 2.0,
        }
    }

    #[test]
    fn the_table_shows_every_number_before_and_after() {
        let text = table(&story()).to_string();
        let row = text.lines().find(|line| line.contains("format-valid"));
        let words: Vec<_> = row.unwrap().split_whitespace().collect();
        assert_eq!(words, ["format-valid", "0.00", "1.00", "+1.00"]);
        assert!(text.contains("0.75 (") && text.contains("+0.50"), "{text}");
    }

    #[test]
    fn what_was_not_trained_and_what_failed_is_said() {
        let text = conclusion(&story());
        assert!(text.contains("2 no-advantage"), "{text}");
        assert!(
            text.contains("1 episodes failed, the first: practice-1"),
            "{text}"
        );
    }

    #[test]
    fn a_running_mean_looks_back_and_never_ahead() {
        assert_eq!(
            running_mean(&[1.0, 0.0, 1.0, 0.0, 1.0, 1.0]),
            [1.0, 0.5, 2.0 / 3.0, 0.5, 0.6, 0.6]
        );
        assert!(running_mean(&[]).is_empty());
    }
}
