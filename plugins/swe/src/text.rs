//! What the model is shown of a command: its exit code, its output, cut in the middle and the same on every replay.
//!
//! Pure text; see [`crate::episode`] for when it is shown.

use sdk::shell::{Ending, Output};

/// The exit code as a shell has it: 124 for out of time, 128 and the signal for killed.
pub fn exit_code(ending: &Ending) -> u32 {
    match ending {
        Ending::Exited(code) => *code,
        Ending::Killed(signal) => signal.saturating_add(128),
        Ending::TimedOut => 124,
    }
}

/// A command's end and output, in at most about `limit` characters.
pub fn report(output: &Output, limit: usize) -> String {
    let code = exit_code(&output.ending);
    let mut shown = match &output.ending {
        Ending::Exited(_) => format!("exit code: {code}"),
        Ending::Killed(signal) => format!("exit code: {code} (killed by signal {signal})"),
        Ending::TimedOut => format!("exit code: {code} (out of time, killed)"),
    };
    let (stdout, stderr) = (steady(&output.stdout), steady(&output.stderr));
    let (stdout, stderr) = (stdout.trim_end(), stderr.trim_end());
    // What one of them does not need is the other's.
    let half = limit / 2;
    let (out_chars, err_chars) = (stdout.chars().count(), stderr.chars().count());
    let err_limit = half.max(limit.saturating_sub(out_chars));
    let out_limit = half.max(limit.saturating_sub(err_chars));
    if !stdout.is_empty() {
        shown.push('\n');
        shown.push_str(&cut(stdout, out_limit));
    }
    if !stderr.is_empty() {
        shown.push_str("\nstderr:\n");
        shown.push_str(&cut(stderr, err_limit));
    }
    if output.cut {
        shown.push_str("\n(there was more output than the machine keeps)");
    }
    shown
}

/// A text of at most `limit` characters and a mark: its beginning and its end.
pub fn cut(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let head = limit / 2;
    let tail = limit - head;
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!(
        "{begin}\n[... {} characters left out ...]\n{end}",
        count - limit
    )
}

/// Without what differs from run to run: how long tests took, and where objects lie in memory.
pub fn steady(text: &str) -> String {
    let text = rewritten(text, " in ", |rest| {
        let whole = digits(rest);
        let tail = rest.get(whole..)?.strip_prefix('.')?;
        let part = digits(tail);
        let ends = tail.get(part..)?.starts_with('s');
        (whole > 0 && part > 0 && ends).then_some((whole + 1 + part, "0.000"))
    });
    rewritten(&text, " at 0x", |rest| {
        let len = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        (len >= 6).then_some((len, "0"))
    })
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Replaces what follows each `mark`, where `find` says how many bytes by what.
fn rewritten(
    text: &str,
    mark: &str,
    find: impl Fn(&str) -> Option<(usize, &'static str)>,
) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(mark) {
        done.push_str(before);
        done.push_str(mark);
        rest = after;
        if let Some((len, instead)) = find(after) {
            done.push_str(instead);
            rest = after.get(len..).unwrap_or_default();
        }
    }
    done.push_str(rest);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(ending: Ending, stdout: &str, stderr: &str) -> Output {
        Output {
            ending,
            stdout: stdout.into(),
            stderr: stderr.into(),
            cut: false,
        }
    }

    #[test]
    fn the_first_line_is_the_exit_code() {
        let shown = report(&output(Ending::Exited(3), "a\n", "b\n"), 100);
        assert_eq!(shown, "exit code: 3\na\nstderr:\nb");
        assert_eq!(
            report(&output(Ending::Exited(0), "", ""), 100),
            "exit code: 0"
        );
        let killed = report(&output(Ending::Killed(9), "", ""), 100);
        assert_eq!(killed, "exit code: 137 (killed by signal 9)");
        let late = report(&output(Ending::TimedOut, "a", ""), 100);
        assert_eq!(late, "exit code: 124 (out of time, killed)\na");
    }

    #[test]
    fn a_long_output_is_cut_in_the_middle_and_leaves_room_for_the_errors() {
        let shown = report(&output(Ending::Exited(1), &"x".repeat(500), "why"), 100);
        assert!(
            shown.contains("[... 403 characters left out ...]"),
            "{shown}"
        );
        assert!(shown.ends_with("\nstderr:\nwhy"), "{shown}");
        assert_eq!(cut("ä".repeat(10).as_str(), 10), "ä".repeat(10));
        assert_eq!(cut("abcdef", 4), "ab\n[... 2 characters left out ...]\nef");
    }

    #[test]
    fn what_differs_from_run_to_run_is_not_shown() {
        assert_eq!(steady("Ran 4 tests in 0.012s\n"), "Ran 4 tests in 0.000s\n");
        assert_eq!(steady("<A object at 0x7f12ab34cd>"), "<A object at 0x0>");
        assert_eq!(
            steady("found in 3 files at 0x1f"),
            "found in 3 files at 0x1f"
        );
        assert_eq!(steady("made in 1.5 days, in 2."), "made in 1.5 days, in 2.");
    }
}
