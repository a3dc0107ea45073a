//! A code interpreter: one tool that runs the model's Python on a jailed machine, and a problem whose answer is a value.
//!
//! The answer is known here and on no machine: what a program does to its machine cannot make a wrong value right. The problems are in
//! [`crate::problems`].

use calls::reader::Call;
use sdk::{Fault, shell::Ending};
use serde_json::{Value, json};

use crate::{
    driver::Tool,
    jail::Jail,
    problems::Problem,
    text,
    world::{Answer, Batch, Request, Script, User, World},
};

/// The tool's name.
pub const PYTHON: &str = "python";

const PROGRAM: &str = "/work/.program.py";

const ENDING: &str =
    "When you know the answer, reply in words; the last line is the answer and nothing else.";

/// A problem under way.
#[derive(Debug)]
pub struct Interpreter<J> {
    machine: J,
    answer: String,
    timeout_ms: u32,
    output_chars: usize,
}

/// The tool as the model reads it.
pub fn tool() -> Tool {
    Tool {
        name: PYTHON.into(),
        description: "Runs a program in Python 3, without a network, and gives what it prints. Files stay, variables do not.".into(),
        parameters: json!({
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The program."}},
            "required": ["code"],
        }),
    }
}

impl<J: Jail> Interpreter<J> {
    /// Begins a problem on a fresh machine.
    ///
    /// # Errors
    /// `internal` when there cannot be another machine now.
    pub fn start(
        problem: Problem,
        timeout_ms: u32,
        output_chars: usize,
    ) -> Result<(Script, Self), Fault> {
        let script = Script {
            policy: String::new(),
            requests: vec![Request {
                words: problem.words,
                tools: vec![tool()],
            }],
            user: User::Asks,
            ending: ENDING,
        };
        let world = Self {
            machine: J::create("empty")?,
            answer: problem.answer,
            timeout_ms,
            output_chars,
        };
        Ok((script, world))
    }

    fn run(&self, call: &Call) -> Result<Answer, Fault> {
        let code = match call.arguments.get("code") {
            Some(Value::String(code)) if call.arguments.len() == 1 => code,
            _ => {
                return Ok(Answer::refused(
                    "`python` takes one argument, `code`, a text",
                ));
            }
        };
        match self.machine.write_file(PROGRAM, code.as_bytes()) {
            Ok(()) => {}
            // A program may have made the place a folder, or filled the disk.
            Err(Fault::InvalidInput(why)) => return Ok(Answer::refused(why)),
            Err(fault) => return Err(fault),
        }
        let command =
            format!("export LC_ALL=C.UTF-8 PYTHONHASHSEED=0; exec python3 -s -B {PROGRAM}");
        let output = self.machine.run(&command, self.timeout_ms)?;
        let code = match output.ending {
            Ending::Exited(code) => code,
            Ending::Killed(signal) => signal.saturating_add(128),
            Ending::TimedOut => 124,
        };
        let half = self.output_chars / 2;
        let mut told =
            json!({"exit-code": code, "output": text::cut(output.stdout.trim_end(), half)});
        if !output.stderr.trim().is_empty() {
            told["errors"] = text::cut(output.stderr.trim_end(), half / 2).into();
        }
        Ok(Answer {
            text: told.to_string(),
            failed: code != 0,
        })
    }
}

impl<J: Jail> World for Interpreter<J> {
    fn make(&mut self, calls: &[Call]) -> Result<Batch, Fault> {
        let answers: Result<Vec<Answer>, Fault> = calls.iter().map(|call| self.run(call)).collect();
        let answers = answers?;
        Ok(Batch {
            answers,
            changed: None,
        })
    }

    fn end(&mut self, said: &[String]) -> bool {
        said.last()
            .is_some_and(|said| answers(said) == plain(&self.answer))
    }
}

/// The answer in a reply: its last line, without `Answer:` and marks around it.
fn answers(said: &str) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or_default().trim();
    let named = last
        .get(..7)
        .filter(|head| head.eq_ignore_ascii_case("answer:"));
    plain(named.map_or(last, |head| &last[head.len()..]))
}

/// A value without what differs from hand to hand: spaces, marks, a full stop.
fn plain(value: &str) -> String {
    let value = value.trim().trim_matches(['`', '*', '$']);
    let value = value.strip_suffix('.').unwrap_or(value);
    let value = value.trim_matches(['`', '*', '$']);
    value.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_answer_however_it_is_marked() {
        for said in [
            "42",
            "It is so.\n\nAnswer: 42.",
            "**42**\n",
            "answer: `42`",
            "`42`.",
        ] {
            assert_eq!(answers(said), "42", "{said}");
        }
        assert_eq!(answers("[1, 2,3]"), plain("[1, 2, 3]"));
        for said in ["", "It is 42", "42 or 43", "42\n43", "142", "-42", "é: 42"] {
            assert_ne!(answers(said), "42", "{said}");
        }
    }
}
