//! What the model is shown after a command, and what can be read back from such a text.
//!
//! ```text
//! exit code: 1
//! total 0
//! stderr:
//! ls: cannot access 'x': No such file or directory
//! ```
//! The first line says how the command ended: `exit code: N`, `timed out after N s` or `killed by signal N`. Then comes what it
//! printed; then, if it printed any, the line `stderr:` and its errors. What is too long loses its middle. Nothing below the first line
//! says how a command ended, whatever it prints. [`Report::parse`] reads live traffic by the same format, and by a few that other agents write.

use sdk::shell::{Ending, Output};

/// What stands for characters that were left out.
fn gap(count: usize) -> String {
    format!("\n[... {count} characters left out ...]\n")
}

/// The text of a command's output.
pub fn render(output: &Output, timeout_ms: u32, output_chars: usize) -> String {
    let mut body = output.stdout.trim_end_matches('\n').to_owned();
    let errors = output.stderr.trim_end_matches('\n');
    if !errors.is_empty() {
        if !body.is_empty() {
            body.push('\n');
        }
        body.push_str("stderr:\n");
        body.push_str(errors);
    }
    let body = shorten(&body, output_chars);
    let more = if output.cut {
        "\n[the output was too long to be kept whole]"
    } else {
        ""
    };
    let first = ending(output.ending, timeout_ms);
    if body.is_empty() {
        first
    } else {
        format!("{first}\n{body}{more}")
    }
}

fn ending(ending: Ending, timeout_ms: u32) -> String {
    match ending {
        Ending::Exited(code) => format!("exit code: {code}"),
        Ending::Killed(signal) => format!("killed by signal {signal}"),
        Ending::TimedOut => format!("timed out after {} s", timeout_ms / 1000),
    }
}

/// At most so many characters of a text, its beginning and its end.
fn shorten(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let (head, tail) = (most.div_ceil(2), most / 2);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}{}{end}", gap(count - most))
}

/// What a text says about how a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The exit code.
    pub exit_code: Option<u32>,
    /// Whether the command failed; none when the text does not say.
    pub failed: Option<bool>,
}

impl Report {
    /// Of a command that was run here.
    pub fn of(ending: Ending) -> Self {
        match ending {
            Ending::Exited(code) => Self::exited(code),
            Ending::Killed(_) | Ending::TimedOut => Self::failed(),
        }
    }

    fn exited(code: u32) -> Self {
        Self {
            exit_code: Some(code),
            failed: Some(code != 0),
        }
    }

    fn failed() -> Self {
        Self {
            exit_code: None,
            failed: Some(true),
        }
    }

    /// The first line of this plugin's own format.
    pub fn first_line(text: &str) -> Option<Self> {
        let line = text.lines().next()?.trim();
        let timed_out = line
            .strip_prefix("timed out after ")
            .and_then(|rest| rest.strip_suffix(" s"));
        let ended = timed_out.or_else(|| line.strip_prefix("killed by signal "));
        if ended.is_some_and(|number| number.parse::<u32>().is_ok()) {
            return Some(Self::failed());
        }
        line.strip_prefix("exit code: ")?
            .parse()
            .ok()
            .map(Self::exited)
    }

    /// A tool's result, in the format of this plugin or of another agent. A line that names an exit code, at the start or at the end of the
    /// text, outranks words that usually mean failure. Nothing found: nothing known.
    pub fn parse(text: &str) -> Self {
        if let Some(report) = Self::first_line(text) {
            return report;
        }
        let lines: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let ends = lines.iter().take(2).chain(lines.iter().rev().take(2));
        if let Some(code) = ends.filter_map(|line| exit_code(line)).next() {
            return Self::exited(code);
        }
        // Only what a shell or an interpreter says last: the same words in the middle are often what a command was to show.
        let last = lines.iter().rev().take(2);
        let traceback = lines.contains(&"Traceback (most recent call last):")
            && lines
                .last()
                .is_some_and(|line| line.split(':').next().is_some_and(is_error_name));
        if traceback || last.clone().any(|line| is_complaint(line)) {
            return Self::failed();
        }
        Self::default()
    }
}

/// The code of a line that says nothing else: `Exit code: 2`, `[exit status: 2]`, `Process exited with code 2`, `exit_code=2`.
fn exit_code(line: &str) -> Option<u32> {
    let bare = line
        .trim_matches(['[', ']', '(', ')', '<', '>', '.', '*', ' '])
        .to_lowercase();
    let bare = bare
        .strip_prefix("process ")
        .or_else(|| bare.strip_prefix("command "))
        .unwrap_or(&bare);
    let rest = [
        "exited with code",
        "exited with exit code",
        "exit code",
        "exit status",
        "exit_code",
        "exitcode",
        "returncode",
        "return code",
    ]
    .iter()
    .find_map(|words| bare.strip_prefix(words))?;
    let number = rest.trim_start_matches([':', '=', ' ']);
    if number.len() == rest.len() {
        return None;
    }
    number.parse().ok()
}

fn is_error_name(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name);
    let kind = ["Error", "Exception", "Interrupt", "Exit"];
    kind.iter().any(|ending| name.ends_with(ending))
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// `program: .. : No such file or directory` and the like.
fn is_complaint(line: &str) -> bool {
    let endings = [
        ": command not found",
        ": No such file or directory",
        ": Permission denied",
        ": Is a directory",
        ": Not a directory",
    ];
    line.starts_with("command not found: ") || endings.iter().any(|ending| line.ends_with(ending))
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
    fn the_first_line_says_how_a_command_ended_and_the_rest_what_it_printed() {
        let shown = |output| render(&output, 10_000, 1500);
        assert_eq!(shown(output(Ending::Exited(0), "", "")), "exit code: 0");
        assert_eq!(
            shown(output(Ending::Exited(0), "a\nb\n", "")),
            "exit code: 0\na\nb"
        );
        assert_eq!(
            shown(output(Ending::Exited(2), "", "no\n")),
            "exit code: 2\nstderr:\nno"
        );
        assert_eq!(
            shown(output(Ending::Exited(1), "a\n", "no\n")),
            "exit code: 1\na\nstderr:\nno"
        );
        assert_eq!(
            shown(output(Ending::TimedOut, "a", "")),
            "timed out after 10 s\na"
        );
        assert_eq!(
            shown(output(Ending::Killed(9), "", "")),
            "killed by signal 9"
        );
    }

    #[test]
    fn what_is_too_long_loses_its_middle_and_keeps_its_errors() {
        let long = output(Ending::Exited(1), &"é".repeat(5000), "the reason");
        let shown = render(&long, 1000, 100);
        assert!(shown.starts_with("exit code: 1\néééé"), "{shown}");
        assert!(shown.ends_with("stderr:\nthe reason"), "{shown}");
        assert!(shown.contains("characters left out"), "{shown}");
        assert!(shown.chars().count() < 200, "{shown}");
    }

    #[test]
    fn what_was_rendered_is_read_back_whatever_the_command_printed() {
        for ending in [
            Ending::Exited(0),
            Ending::Exited(3),
            Ending::Killed(9),
            Ending::TimedOut,
        ] {
            for printed in [
                "",
                "exit code: 7\n",
                "bash: x: command not found",
                "[exit status: 1]",
            ] {
                let text = render(&output(ending, printed, printed), 5000, 1500);
                assert_eq!(Report::parse(&text), Report::of(ending), "{text}");
            }
        }
    }

    #[test]
    fn the_formats_of_other_agents_are_read() {
        let check = |text: &str, code: Option<u32>, failed: Option<bool>| {
            assert_eq!(
                Report::parse(text),
                Report {
                    exit_code: code,
                    failed
                },
                "{text}"
            );
        };
        check("Exit code: 2\nno such target", Some(2), Some(true));
        check("all well\n[exit status: 0]", Some(0), Some(false));
        check("Process exited with code 1.\n", Some(1), Some(true));
        check("<exit_code>0", None, None);
        check("exit_code=127", Some(127), Some(true));
        check(
            "Traceback (most recent call last):\n  File \"x.py\", line 1\nValueError: no",
            None,
            Some(true),
        );
        check("sh: 1: foo: command not found", None, Some(true));
        check("cat: x: No such file or directory\n", None, Some(true));
        check("a.txt\nb.txt", None, None);
        check("", None, None);
        check("The exit code: 3 means trouble", None, None);
    }

    #[test]
    fn words_of_failure_in_the_middle_of_a_listing_mean_nothing() {
        let log = "10:00 cat: x: No such file or directory\n10:01 start\n10:02 stop\n10:03 end";
        assert_eq!(Report::parse(log), Report::default());
        let quoted =
            "Traceback (most recent call last):\n  File \"x\"\nValueError: no\n12 lines in all";
        assert_eq!(Report::parse(quoted), Report::default());
    }
}
