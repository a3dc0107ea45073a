//! What a reply asks for: one command, or the end of the task.
//!
//! The grammar, in the order in which it is tried:
//! 1. A tool call: `run` with `{"command": ".."}`, or `done`. Of several calls the first counts.
//! 2. The first fenced block, whose opening line is ```` ``` ```` with nothing, `bash`, `sh`, `shell` or `console` behind it (a block of another
//!    language is passed over). A block that is never closed reaches to the end of the reply. A `$ ` before its lines is not part of them.
//! 3. The first line that starts with `$ `: the rest of that line.
//! 4. `done`, when the last line that is not empty says so: `done`, `task complete` and their like ([`DONE`]), whatever the case, with
//!    or without a full stop, asterisks or backticks around it.
//! 5. The whole reply, when it is one line. A pair of backticks around it is not part of it.
//!
//! A block or a line that holds nothing but `done` ends the task, too. All else is a [`Problem`], which the model is told. A reply that was cut
//! off runs only what is certainly whole: a closed block, or a tool call. Does not run anything.

use sdk::{Action, Finish, Message, ToolSpec};

/// Ways of saying that the task is done.
pub const DONE: [&str; 12] = [
    "done",
    "task done",
    "task complete",
    "task completed",
    "task is complete",
    "task is completed",
    "the task is complete",
    "the task is completed",
    "the task is done",
    "i am done",
    "i'm done",
    "finished",
];

/// Most characters of a command.
pub const LONGEST: usize = 4000;

/// What may stand behind the opening of a block.
const SHELLS: [&str; 5] = ["", "bash", "sh", "shell", "console"];

/// What a reply asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Intent {
    /// Run this.
    Run(String),
    /// The task is done.
    Done,
}

/// Why nothing was run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// No command in it.
    Nothing,
    /// The block or the line of the command is empty.
    Empty,
    /// More than [`LONGEST`] characters.
    TooLong,
    /// A zero byte, which no command can hold.
    ZeroByte,
    /// The reply ended by its limit of tokens before the command did.
    CutOff,
    /// A call of a tool that is not there.
    UnknownTool,
    /// A call of `run` without a text named `command`.
    BadArguments,
}

impl Problem {
    /// What the model is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nothing => "there is no command in your reply",
            Self::Empty => "the command is empty",
            Self::TooLong => "the command is longer than 4,000 characters",
            Self::ZeroByte => "the command holds a zero byte",
            Self::CutOff => "your reply was cut off before the command ended",
            Self::UnknownTool => "there is no such tool: only run and done",
            Self::BadArguments => "run needs one argument, the text command",
        }
    }
}

/// The tools that mean the same as the text.
pub fn tools() -> Vec<ToolSpec> {
    let spec = |name: &str, description: &str, schema: &str| ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters_json_schema: schema.to_owned(),
    };
    vec![
        spec(
            "run",
            "Run a bash command and see what it prints. The folder that it ends in is kept for the next command; variables are not.",
            r#"{"type":"object","properties":{"command":{"type":"string","description":"The command, at most 4,000 characters."}},"required":["command"]}"#,
        ),
        spec(
            "done",
            "Say that the task is done.",
            r#"{"type":"object","properties":{}}"#,
        ),
    ]
}

/// Reads a reply.
///
/// # Errors
/// Why there is nothing to do.
pub fn read(action: &Action) -> Result<Intent, Problem> {
    if let Some(call) = action.reply.tool_calls.first() {
        return match call.name.as_str() {
            "run" => checked(&command_of(&call.arguments_json).ok_or(Problem::BadArguments)?),
            "done" => Ok(Intent::Done),
            _ => Err(Problem::UnknownTool),
        };
    }
    let text = action.reply.content.trim();
    let cut = matches!(action.finish, Finish::Length | Finish::Cancelled);
    if let Some(block) = block(text) {
        return if cut && !block.closed {
            Err(Problem::CutOff)
        } else {
            checked(&block.text)
        };
    }
    if cut {
        return Err(Problem::CutOff);
    }
    if let Some(command) = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("$ "))
    {
        return checked(command);
    }
    if text.lines().next_back().is_some_and(is_done) {
        return Ok(Intent::Done);
    }
    if text.is_empty() || text.lines().count() > 1 {
        return Err(Problem::Nothing);
    }
    let bare = text
        .strip_prefix('`')
        .and_then(|text| text.strip_suffix('`'));
    checked(bare.filter(|bare| !bare.contains('`')).unwrap_or(text))
}

/// Whether a message of live traffic asks for a command in this plugin's own way.
pub fn asks_for_a_command(reply: &Message) -> bool {
    !reply.tool_calls.is_empty()
        || block(&reply.content).is_some()
        || reply
            .content
            .lines()
            .any(|line| line.trim_start().starts_with("$ "))
}

fn command_of(arguments_json: &str) -> Option<String> {
    let arguments: serde_json::Value = serde_json::from_str(arguments_json).ok()?;
    arguments.get("command")?.as_str().map(str::to_owned)
}

fn checked(command: &str) -> Result<Intent, Problem> {
    let command = command.trim();
    if command.is_empty() {
        Err(Problem::Empty)
    } else if command.contains('\0') {
        Err(Problem::ZeroByte)
    } else if command.chars().count() > LONGEST {
        Err(Problem::TooLong)
    } else if is_done(command) {
        Ok(Intent::Done)
    } else {
        Ok(Intent::Run(command.to_owned()))
    }
}

fn is_done(line: &str) -> bool {
    let around = |c: char| c.is_whitespace() || matches!(c, '.' | '!' | '*' | '_' | '`' | '"');
    let line = line.trim_matches(around).to_lowercase();
    DONE.contains(&line.as_str())
}

struct Block {
    text: String,
    closed: bool,
}

/// The first block that may hold a command.
fn block(text: &str) -> Option<Block> {
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim().strip_prefix("```") else {
            continue;
        };
        let mut held = Vec::new();
        let mut closed = false;
        for line in lines.by_ref() {
            if line.trim() == "```" {
                closed = true;
                break;
            }
            held.push(line.strip_prefix("$ ").unwrap_or(line));
        }
        if SHELLS.contains(&language.trim().to_lowercase().as_str()) {
            return Some(Block {
                text: held.join("\n"),
                closed,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str, finish: Finish) -> Action {
        Action {
            reply: Message::new(sdk::Role::Assistant, text),
            finish,
        }
    }

    fn check(text: &str, expected: Result<&str, Problem>) {
        let expected = expected.map(|command| match command {
            "" => Intent::Done,
            command => Intent::Run(command.to_owned()),
        });
        assert_eq!(read(&reply(text, Finish::Stop)), expected, "{text:?}");
    }

    #[test]
    fn the_first_shell_block_is_the_command() {
        check("I look.\n```bash\nls -l\n```\nThen more.", Ok("ls -l"));
        check("```\nls\npwd\n```\n```bash\nrm x\n```", Ok("ls\npwd"));
        check("```python\nprint(1)\n```\n```sh\nls\n```", Ok("ls"));
        check("```console\n$ ls\n```", Ok("ls"));
        check("```bash\nls -a", Ok("ls -a"));
        check("  ```Bash\n  ls\n  ```\nDone.", Ok("ls"));
    }

    #[test]
    fn a_line_with_a_dollar_sign_or_a_reply_of_one_line_is_a_command() {
        check("I look.\n$ ls -l\n$ pwd", Ok("ls -l"));
        check(
            "ls -S data | head -1 > answer.txt",
            Ok("ls -S data | head -1 > answer.txt"),
        );
        check("`ls`", Ok("ls"));
        check("echo `date`", Ok("echo `date`"));
        check("`date` `ls`", Ok("`date` `ls`"));
    }

    #[test]
    fn several_ways_of_saying_done_end_the_task() {
        for text in [
            "done",
            "DONE",
            "Done.",
            "**Task complete**",
            "All is there.\nTask is complete!",
            "```\ndone\n```",
            "$ done",
            "I'm done.",
        ] {
            check(text, Ok(""));
        }
        check("echo done", Ok("echo done"));
        check("for f in *; do\necho $f\ndone # all", Err(Problem::Nothing));
    }

    #[test]
    fn what_is_no_command_is_a_problem_that_is_told() {
        check("", Err(Problem::Nothing));
        check("First I look.\nThen I act.", Err(Problem::Nothing));
        check("```bash\n\n```", Err(Problem::Empty));
        check("$  ", Err(Problem::Nothing).or(Ok("$")));
        check("ls \0", Err(Problem::ZeroByte));
        check(
            &format!("```\necho {}\n```", "x".repeat(LONGEST)),
            Err(Problem::TooLong),
        );
        check("```python\nprint(1)\n```", Err(Problem::Nothing));
    }

    #[test]
    fn trap_15_a_reply_that_was_cut_off_runs_only_what_is_whole() {
        for finish in [Finish::Length, Finish::Cancelled] {
            assert_eq!(read(&reply("```\nrm -r da", finish)), Err(Problem::CutOff));
            assert_eq!(read(&reply("rm -r da", finish)), Err(Problem::CutOff));
            assert_eq!(
                read(&reply("```\nls\n```\nThen I", finish)),
                Ok(Intent::Run("ls".into()))
            );
        }
    }

    #[test]
    fn tool_calls_say_the_same_and_bad_ones_are_told() {
        let call = |name: &str, arguments: &str| {
            let mut action = reply("```\nrm x\n```", Finish::ToolCalls);
            action.reply.tool_calls.push(sdk::ToolCall {
                id: "1".into(),
                name: name.into(),
                arguments_json: arguments.into(),
            });
            read(&action)
        };
        assert_eq!(
            call("run", r#"{"command": "ls \"a b\""}"#),
            Ok(Intent::Run("ls \"a b\"".into()))
        );
        assert_eq!(call("done", "{}"), Ok(Intent::Done));
        assert_eq!(call("run", r#"{"command": 3}"#), Err(Problem::BadArguments));
        assert_eq!(
            call("run", r#"{"command": "ls""#),
            Err(Problem::BadArguments)
        );
        assert_eq!(call("python", "{}"), Err(Problem::UnknownTool));
    }

    #[test]
    fn the_schemas_of_the_tools_are_json() {
        for tool in tools() {
            let schema: serde_json::Value =
                serde_json::from_str(&tool.parameters_json_schema).unwrap();
            assert_eq!(schema["type"], "object", "{}", tool.name);
        }
    }
}
