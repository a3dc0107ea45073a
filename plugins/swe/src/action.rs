//! Reads the one action of a reply: a command, an edit, a diff, or the end.
//!
//! Text or tool calls, never guesses: what is not exactly one action is refused with words that the model can act upon.

use sdk::{Finish, Message, ToolCall, ToolSpec};

use crate::edit::{self, Replacement};

/// What the model wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A bash command.
    Run(String),
    /// Replacements in one file, all or none.
    Edit {
        /// As the model wrote it.
        path: String,
        /// In order; at least one.
        replacements: Vec<Replacement>,
    },
    /// A unified diff.
    Diff(String),
    /// The work is done.
    Submit,
}

/// How a reply is written, for the model.
pub const GRAMMAR: &str = r#"Every reply holds exactly one action; its result is the next message. Each command begins anew in the repository's folder: a `cd` or a variable does not last. An action is one of these:

1. A bash command:

```bash
python3 -m unittest
```

2. An edit of a file. What stands under SEARCH must occur exactly once in the file, to the letter; several parts may follow each other. An empty SEARCH makes a new file.

```edit path/to/file.py
<<<<<<< SEARCH
the lines as they are
=======
the lines as they shall be
>>>>>>> REPLACE
```

3. A unified diff, with paths from the repository's folder:

```diff
--- a/file.py
+++ b/file.py
@@ -1,2 +1,2 @@
 a line that stays
-a line that goes
+a line that comes
```

4. A line with nothing but DONE, when the bug is fixed. It ends the work.

Or call one of the tools `run`, `edit` and `submit`. Text around an action is read by nobody."#;

/// The tools that do the same.
pub fn tools() -> Vec<ToolSpec> {
    let tool = |name: &str, description: &str, parameters: &str| ToolSpec {
        name: name.into(),
        description: description.into(),
        parameters_json_schema: parameters.into(),
    };
    vec![
        tool(
            "run",
            "Runs a bash command in the repository's folder.",
            r#"{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}"#,
        ),
        tool(
            "edit",
            "Replaces a text that occurs exactly once in a file. An empty `search` makes a new file.",
            r#"{"type":"object","properties":{"path":{"type":"string"},"search":{"type":"string"},"replace":{"type":"string"}},"required":["path","search","replace"]}"#,
        ),
        tool(
            "submit",
            "Ends the work, when the bug is fixed.",
            r#"{"type":"object","properties":{}}"#,
        ),
    ]
}

/// The action of a reply, or what is wrong with it.
///
/// # Errors
/// Words for the model.
pub fn read(reply: &Message, finish: Finish) -> Result<Action, String> {
    if finish == Finish::Length {
        return Err(
            "your reply was cut off at its limit of length, so nothing was done: write less".into(),
        );
    }
    match reply.tool_calls.as_slice() {
        [] => from_text(&reply.content),
        [call] => from_call(call),
        calls => Err(format!(
            "your reply has {} tool calls, so none was made: one a reply",
            calls.len()
        )),
    }
}

fn from_call(call: &ToolCall) -> Result<Action, String> {
    let arguments: serde_json::Value = match call.arguments_json.trim() {
        "" => serde_json::json!({}),
        text => serde_json::from_str(text)
            .map_err(|error| format!("the arguments of `{}` are no JSON: {error}", call.name))?,
    };
    let text = |name: &str| {
        arguments
            .get(name)
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| format!("`{}` needs `{name}`, a text", call.name))
    };
    match call.name.as_str() {
        "run" => command(&text("command")?),
        "edit" => {
            let (search, replace) = (text("search")?, text("replace")?);
            Ok(Action::Edit {
                path: text("path")?,
                replacements: vec![Replacement { search, replace }],
            })
        }
        "submit" => Ok(Action::Submit),
        name => Err(format!(
            "there is no tool `{name}`: `run`, `edit` and `submit` are there"
        )),
    }
}

fn command(text: &str) -> Result<Action, String> {
    if text.trim().is_empty() {
        return Err("the command is empty".into());
    }
    if text.contains('\0') {
        return Err("the command holds a NUL character".into());
    }
    Ok(Action::Run(text.to_owned()))
}

/// A fenced block: its info string and its lines.
struct Block<'a> {
    info: &'a str,
    body: String,
}

fn from_text(text: &str) -> Result<Action, String> {
    // Some models think aloud before they answer; what they think is no action.
    let text = text.rsplit_once("</think>").map_or(text, |(_, said)| said);
    let (blocks, done) = blocks(text)?;
    let mut actions = Vec::new();
    for block in &blocks {
        if let Some(action) = from_block(block) {
            actions.push(action?);
        }
    }
    if done {
        actions.push(Action::Submit);
    }
    let count = actions.len();
    match actions.pop() {
        Some(action) if count == 1 => Ok(action),
        Some(_) => Err(format!(
            "your reply has {count} actions, so none was done: one a reply"
        )),
        None => Err("your reply has no action: write one ```bash, ```edit or ```diff block, or a line with nothing but DONE".into()),
    }
}

/// All closed blocks, and whether a line outside of them says DONE.
fn blocks(text: &str) -> Result<(Vec<Block<'_>>, bool), String> {
    let mut found = Vec::new();
    let mut done = false;
    let mut open: Option<(&str, Block<'_>)> = None;
    for line in text.lines() {
        let ticks = fence(line);
        match &mut open {
            None if ticks.len() >= 3 => {
                let info = line.trim_start()[ticks.len()..].trim();
                let body = String::new();
                open = Some((ticks, Block { info, body }));
            }
            None => done |= line.trim() == "DONE",
            Some((opened, _)) if ticks.len() >= opened.len() && line.trim() == ticks => {
                found.extend(open.take().map(|(_, block)| block));
            }
            Some((_, block)) => {
                block.body.push_str(line);
                block.body.push('\n');
            }
        }
    }
    match open {
        Some((ticks, block)) => Err(format!(
            "the block `{ticks}{}` is not closed, so nothing was done: end it with a line `{ticks}`",
            block.info
        )),
        None => Ok((found, done)),
    }
}

/// The backticks that a line begins with.
fn fence(line: &str) -> &str {
    let line = line.trim_start();
    &line[..line.len() - line.trim_start_matches('`').len()]
}

/// A block's action; none for a block that only shows something.
fn from_block(block: &Block<'_>) -> Option<Result<Action, String>> {
    let (kind, rest) = block
        .info
        .split_once(char::is_whitespace)
        .unwrap_or((block.info, ""));
    match kind {
        "bash" | "sh" | "shell" => Some(command(&block.body)),
        "diff" | "patch" => Some(Ok(Action::Diff(block.body.clone()))),
        "edit" if rest.trim().is_empty() => {
            Some(Err("an edit names its file: ```edit path/to/file.py".into()))
        }
        "edit" => Some(edit::parse(&block.body).map(|replacements| Action::Edit {
            path: rest.trim().to_owned(),
            replacements,
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::Role;

    fn text(content: &str) -> Result<Action, String> {
        read(&Message::new(Role::Assistant, content), Finish::Stop)
    }

    fn call(name: &str, arguments: &str) -> Result<Action, String> {
        let mut reply = Message::new(Role::Assistant, "");
        reply.tool_calls.push(ToolCall {
            id: "1".into(),
            name: name.into(),
            arguments_json: arguments.into(),
        });
        read(&reply, Finish::ToolCalls)
    }

    fn run(command: &str) -> Result<Action, String> {
        Ok(Action::Run(command.into()))
    }

    fn edit(path: &str, search: &str, replace: &str) -> Result<Action, String> {
        Ok(Action::Edit {
            path: path.into(),
            replacements: vec![Replacement {
                search: search.into(),
                replace: replace.into(),
            }],
        })
    }

    fn check_refused(result: Result<Action, String>, word: &str) {
        let words = result.expect_err(word);
        assert!(words.contains(word), "{words}");
    }

    #[test]
    fn a_fenced_command_is_run_whatever_stands_around_it() {
        assert_eq!(
            text("Let me look.\n```bash\nls -l\n```\nThen:"),
            run("ls -l\n")
        );
        assert_eq!(text("```sh\na\n\nb\n```"), run("a\n\nb\n"));
        assert_eq!(
            text("```python\nx = 1\n```\n  ```bash\nls\n  ```"),
            run("ls\n")
        );
        assert_eq!(
            text("<think>\n```bash\nrm x\n```\n</think>\n```bash\nls\n```"),
            run("ls\n")
        );
    }

    #[test]
    fn a_longer_fence_may_hold_a_shorter_one() {
        let block = "````edit README.md\n<<<<<<< SEARCH\n```python\n=======\n```text\n>>>>>>> REPLACE\n````";
        assert_eq!(text(block), edit("README.md", "```python\n", "```text\n"));
    }

    #[test]
    fn done_is_a_line_of_its_own_outside_of_every_block() {
        assert_eq!(text("It works.\n\n DONE \n"), Ok(Action::Submit));
        check_refused(text("I am DONE."), "no action");
        check_refused(text("```\nDONE\n```"), "no action");
        check_refused(text("```bash\nls\n```\nDONE"), "2 actions");
    }

    #[test]
    fn a_diff_is_kept_to_the_letter() {
        let diff = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n";
        assert_eq!(
            text(&format!("```diff\n{diff}```")),
            Ok(Action::Diff(diff.into()))
        );
    }

    #[test]
    fn what_is_not_exactly_one_action_is_refused_with_a_reason() {
        check_refused(text(""), "no action");
        check_refused(text("```bash\nls\n```\n```bash\npwd\n```"), "2 actions");
        check_refused(text("```bash\nls"), "not closed");
        check_refused(text("```bash\n\n```"), "empty");
        check_refused(text("```edit\nx\n```"), "names its file");
        check_refused(text("```edit a.py\nx\n```"), "SEARCH");
        let cut = Message::new(Role::Assistant, "```bash\nls\n```");
        check_refused(read(&cut, Finish::Length), "cut off");
    }

    #[test]
    fn tool_calls_do_the_same_as_blocks() {
        assert_eq!(call("run", r#"{"command": "ls"}"#), run("ls"));
        assert_eq!(
            call("edit", r#"{"path": "a.py", "search": "x", "replace": "y"}"#),
            edit("a.py", "x", "y")
        );
        assert_eq!(call("submit", ""), Ok(Action::Submit));
        check_refused(call("run", "{\"command\": 3}"), "needs `command`");
        check_refused(call("run", "{\"command"), "no JSON");
        check_refused(call("delete", "{}"), "no tool `delete`");
        let mut two = Message::new(Role::Assistant, "");
        let submit = ToolCall {
            id: "1".into(),
            name: "submit".into(),
            arguments_json: String::new(),
        };
        two.tool_calls = vec![submit.clone(), submit];
        check_refused(read(&two, Finish::ToolCalls), "2 tool calls");
    }

    #[test]
    fn the_grammar_shows_actions_that_can_be_read() {
        let shown: Vec<_> = blocks(GRAMMAR).unwrap().0;
        let read: Vec<_> = shown.iter().filter_map(from_block).collect();
        assert_eq!(read.len(), 3);
        assert!(read.iter().all(Result::is_ok), "{read:?}");
        for tool in tools() {
            let schema: serde_json::Value =
                serde_json::from_str(&tool.parameters_json_schema).unwrap();
            assert_eq!(schema["type"], "object");
        }
    }
}
