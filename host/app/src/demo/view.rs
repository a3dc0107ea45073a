//! What a person sees while the demo runs: a live panel on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use loops::Status;

use super::stats;
use super::story::Interaction;

/// Replies that the current score looks back on.
const RECENT: usize = 12;

/// The panel.
#[derive(Debug)]
pub(super) struct View {
    live: Option<Live>,
    started: Instant,
    scores: Vec<f64>,
    versions_said: u64,
}

#[derive(Debug)]
struct Live {
    bars: MultiProgress,
    main: ProgressBar,
    score: ProgressBar,
    exchange: ProgressBar,
    judged: ProgressBar,
    loops: ProgressBar,
}

impl View {
    /// A panel for a stage of `length` steps.
    pub(super) fn new() -> Self {
        let live = std::io::stderr().is_terminal().then(|| {
            let bars = MultiProgress::new();
            let line = |template: &str| {
                let bar = bars.add(ProgressBar::new(1));
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("━╸─"));
                }
                bar
            };
            Live {
                main: line("{prefix:>10} {bar:40.cyan} {pos}/{len} {elapsed}"),
                score: line("     score {wide_msg}"),
                exchange: line("      talk {wide_msg:.dim}"),
                judged: line("    judged {wide_msg:.dim}"),
                loops: line("     loops {wide_msg:.dim}"),
                bars,
            }
        });
        Self {
            live,
            started: Instant::now(),
            scores: Vec::new(),
            versions_said: 0,
        }
    }

    /// Says a line that stays.
    pub(super) fn say(&self, line: &str) {
        match &self.live {
            Some(live) => {
                if live.bars.println(line).is_err() {
                    eprintln!("{line}");
                }
            }
            None => eprintln!("[{:>5.0} s] {line}", self.started.elapsed().as_secs_f64()),
        }
    }

    /// Begins a stage.
    pub(super) fn stage(&self, name: &str, length: usize) {
        match &self.live {
            Some(live) => {
                live.main.set_prefix(name.to_owned());
                live.main.set_length(length as u64);
                live.main.set_position(0);
                live.main.reset_elapsed();
                live.main.enable_steady_tick(Duration::from_millis(200));
            }
            None => self.say(&format!("{name}: {length} to go")),
        }
    }

    /// Moves the stage's bar.
    pub(super) fn at(&self, position: usize) {
        if let Some(live) = &self.live {
            live.main.set_position(position as u64);
        }
    }

    /// Shows one exchange and the current score with its interval.
    pub(super) fn interaction(&mut self, interaction: &Interaction, total: usize) {
        self.scores.push(interaction.score);
        let recent = &self.scores[self.scores.len().saturating_sub(RECENT)..];
        let score = stats::share(recent.iter().sum(), recent.len()).map_or_else(String::new, |e| {
            format!(
                "{:.2} ({:.2} to {:.2}) over the last {}",
                e.value,
                e.low,
                e.high,
                recent.len()
            )
        });
        let exchange = format!(
            "“{}” → “{}” → “{}”",
            short(&interaction.said, 60),
            short(&interaction.reply, 70),
            short(&interaction.reaction, 60)
        );
        match &self.live {
            Some(live) => {
                live.main.set_position(interaction.number as u64);
                live.score.set_message(score);
                live.exchange.set_message(exchange);
            }
            None => self.say(&format!(
                "{}/{total} v{} {} {:>3} tokens · score {score} · {exchange}",
                interaction.number,
                interaction.version,
                if interaction.score >= 0.5 {
                    "kept "
                } else {
                    "broke"
                },
                interaction.tokens
            )),
        }
    }

    /// Shows what the judge said last.
    pub(super) fn judged(&self, line: &str) {
        match &self.live {
            Some(live) => live.judged.set_message(line.to_owned()),
            None => self.say(&format!("  judged: {line}")),
        }
    }

    /// Shows versions and queues.
    pub(super) fn status(&mut self, status: &Status, tokens_per_second: f64) {
        let depth = |name: &str| status.queues.get(name).map_or(0, |queue| queue.depth);
        let line = format!(
            "live {} · {} to judge · {} to train · {} trained · {tokens_per_second:.0} tokens/s",
            status.live,
            depth("judge"),
            depth("train"),
            status.trained
        );
        match &self.live {
            Some(live) => live.loops.set_message(line),
            None if status.live.get() != self.versions_said => {
                self.versions_said = status.live.get();
                self.say(&format!("  published: {line}"));
            }
            None => {}
        }
    }

    /// Takes the panel away.
    pub(super) fn close(&self) {
        if let Some(live) = &self.live {
            let _gone = live.bars.clear();
        }
    }
}

/// The beginning of a text on one line.
pub(super) fn short(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_becomes_one_short_line() {
        assert_eq!(short("a\n  b", 10), "a b");
        assert_eq!(short("abcdefgh", 5), "abcd…");
        assert_eq!(short("äöüßäöü", 4), "äöü…");
    }
}
