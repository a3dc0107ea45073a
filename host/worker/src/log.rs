//! A worker's log, passed on to the host's: cleaned, and no more of it than somebody can read.

use std::{
    io::{BufRead, BufReader, Read},
    time::{Duration, Instant},
};

/// Longest line that is passed on whole, in bytes.
const LINE_BYTES: u64 = 4_096;

/// Most lines in [`WINDOW`]; what is beyond is dropped and counted. Attack: a worker in its guest's hands that fills the host's disk.
const LINES: usize = 1_000;
const WINDOW: Duration = Duration::from_secs(10);

/// Passes on whatever comes until it ends.
pub(crate) fn pass_on(plugin: &str, log: impl Read) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    let mut begun = Instant::now();
    let (mut lines, mut dropped, mut continues) = (0, 0u64, false);
    loop {
        line.clear();
        match log.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        // What goes on with a long line is a guest's words, and has no level.
        let goes_on = std::mem::replace(&mut continues, line.last() != Some(&b'\n'));
        if begun.elapsed() > WINDOW {
            if dropped > 0 {
                tracing::warn!(plugin, dropped, "a worker logged more than it may");
            }
            (begun, lines, dropped) = (Instant::now(), 0, 0);
        }
        lines += 1;
        if lines > LINES {
            dropped += 1;
            continue;
        }
        let (level, line) = read(&line);
        match level.filter(|_| !goes_on) {
            Some("ERROR") => tracing::error!(plugin, line, "worker"),
            Some("WARN") => tracing::warn!(plugin, line, "worker"),
            Some("INFO") => tracing::info!(plugin, line, "worker"),
            _ => tracing::debug!(plugin, line, "worker"),
        }
    }
}

/// A line's level, where it has one, and its text without what rewrites a terminal or forges further lines.
fn read(line: &[u8]) -> (Option<&'static str>, String) {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let level = ["ERROR", "WARN", "INFO", "DEBUG"]
        .into_iter()
        .find(|level| {
            text.strip_prefix(level)
                .is_some_and(|rest| rest.starts_with(' '))
        });
    let rest = text.get(level.map_or(0, |level| level.len() + 1)..);
    (
        level,
        rest.unwrap_or_default().chars().map(visible).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_level_and_nothing_that_rewrites_a_terminal() {
        assert_eq!(read(b"WARN hot\n"), (Some("WARN"), "hot".into()));
        assert_eq!(read(b"WARNING hot\n"), (None, "WARNING hot".into()));
        let (level, text) = read(b"INFO a\x1b[2Jb\xff\n");
        assert_eq!(
            (level, text.as_str()),
            (Some("INFO"), "a\u{fffd}[2Jb\u{fffd}")
        );
    }

    #[test]
    fn a_flood_ends() {
        let flood = "ERROR again\n".repeat(100_000) + &"x".repeat(1 << 20);
        pass_on("sample", flood.as_bytes());
    }
}
