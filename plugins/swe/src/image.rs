//! Tasks of the operator's, in the manner of SWE-bench and SWE-Gym: repositories in a shell image, with a list of instances.
//!
//! The image's `/work` holds `tasks.json` and one folder a repository. Before the model starts, everything but its repository is
//! removed; hidden tests stay in this plugin until the oracle applies them. Only tests of Python's own `unittest` can be run.
//! The format is in the plugin's README.

use sdk::{Fault, Split};
use serde_json::Value;

use crate::{guard::Protected, jail::Jail, score::Check, task::Task};

const LIST: &str = "/work/tasks.json";

/// What the ids of these tasks begin with.
const PREFIX: &str = "image/";

/// The ids of an image's tasks.
///
/// # Errors
/// `invalid-config` for an image whose list cannot be read.
pub fn tasks<J: Jail>(image: &str, split: Split) -> Result<Vec<String>, Fault> {
    let mut ids = Vec::new();
    for instance in list::<J>(image)? {
        if split_of(&instance) == split {
            ids.push(format!("{PREFIX}{}", text(&instance, "instance_id")?));
        }
    }
    Ok(ids)
}

/// A task of an image.
///
/// # Errors
/// `invalid-input` for a task that does not exist, `invalid-config` for one that cannot be read.
pub fn task<J: Jail>(image: &str, id: &str) -> Result<Task, Fault> {
    let wanted = id.strip_prefix(PREFIX);
    for instance in list::<J>(image)? {
        if Some(text(&instance, "instance_id")?.as_str()) == wanted {
            return read(image, &instance);
        }
    }
    Err(Fault::InvalidInput(format!("there is no task `{id}`")))
}

fn list<J: Jail>(image: &str) -> Result<Vec<Value>, Fault> {
    let wrong = |why: &str| Fault::InvalidConfig(format!("{LIST} of the image `{image}` {why}"));
    let machine = J::create(image)?;
    let bytes = machine
        .read_file(LIST)?
        .ok_or_else(|| wrong("is not there"))?;
    let list =
        serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("is no JSON: {error}")))?;
    match list {
        Value::Array(list) => Ok(list),
        _ => Err(wrong("is no list of instances")),
    }
}

fn text(instance: &Value, name: &str) -> Result<String, Fault> {
    let found = instance.get(name).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| {
        let id = instance.get("instance_id").and_then(Value::as_str);
        let which = id.unwrap_or("an instance without an `instance_id`");
        Fault::InvalidConfig(format!("{LIST}: {which} has no text `{name}`"))
    })
}

fn split_of(instance: &Value) -> Split {
    match instance.get("split").and_then(Value::as_str) {
        Some("held-out" | "test" | "dev" | "validation") => Split::HeldOut,
        _ => Split::Train,
    }
}

/// A list of test ids: a JSON list, or a text that holds one, as the published data sets have it.
fn ids(instance: &Value, name: &str) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::InvalidConfig(format!("{LIST}: `{name}` is no list of test ids"));
    let list = match instance.get(name) {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| wrong())?,
        Some(list) => list.clone(),
    };
    let ids = list.as_array().ok_or_else(wrong)?.iter();
    let one = |id: &Value| {
        id.as_str()
            .map(test_id)
            .filter(|id| !id.contains(char::is_whitespace))
    };
    ids.map(|id| one(id).ok_or_else(wrong)).collect()
}

/// A test's id as `unittest` loads it: `test_a (tests.test_x.Case)` is `tests.test_x.Case.test_a`.
fn test_id(id: &str) -> String {
    let printed = id.split_once(" (").and_then(|(method, rest)| {
        let class = rest.strip_suffix(')')?;
        let whole = class.rsplit('.').next() == Some(method);
        Some(if whole {
            class.to_owned()
        } else {
            format!("{class}.{method}")
        })
    });
    printed.unwrap_or_else(|| id.to_owned())
}

fn read(image: &str, instance: &Value) -> Result<Task, Fault> {
    let repo = text(instance, "repo")?;
    let mark = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if repo.is_empty() || repo.starts_with('.') || !repo.chars().all(mark) {
        return Err(Fault::InvalidConfig(format!(
            "{LIST}: `{repo}` is not the name of a folder beside it"
        )));
    }
    let patch = text(instance, "test_patch")?;
    let folder = format!("/work/{repo}");
    let command = text(instance, "test_cmd").unwrap_or_else(|_| "python3 -m unittest".into());
    let statement = text(instance, "problem_statement")?;
    let issue = format!(
        "{statement}\n\n---\nThe repository is in {folder}. Run its tests with `{command}`; they do not cover the issue. \
         Fix it in the sources. Leave tests and configuration alone: an attempt that changes them counts as nothing."
    );
    let check = |name: String, failing| Check {
        name,
        right: "ok".into(),
        failing,
        shown: false,
    };
    let mut checks: Vec<Check> = Vec::new();
    for (list, failing) in [("FAIL_TO_PASS", true), ("PASS_TO_PASS", false)] {
        checks.extend(
            ids(instance, list)?
                .into_iter()
                .map(|id| check(id, failing)),
        );
    }
    if checks.is_empty() {
        let id = text(instance, "instance_id")?;
        return Err(Fault::InvalidConfig(format!("{LIST}: {id} has no tests")));
    }
    Ok(Task {
        image: image.into(),
        files: Vec::new(),
        prepare: format!(
            "test -d {repo} && find . -mindepth 1 -maxdepth 1 ! -name {repo} -exec rm -rf {{}} +"
        ),
        issue,
        protected: Protected {
            folder,
            files: patched(&patch),
        },
        sources: Vec::new(),
        cases: None,
        test_patch: (!patch.trim().is_empty()).then_some(patch),
        checks,
        check_seconds: 10,
    })
}

/// The files that a patch touches.
fn patched(patch: &str) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for line in patch.lines() {
        let path = line
            .strip_prefix("+++ b/")
            .or_else(|| line.strip_prefix("--- a/"));
        // git ends a path that holds spaces with a tab.
        if let Some(path) = path.map(str::trim_end)
            && !files.iter().any(|file| file == path)
        {
            files.push(path.to_owned());
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Value {
        serde_json::json!({
            "instance_id": "app-1",
            "repo": "app",
            "problem_statement": "It is wrong.",
            "FAIL_TO_PASS": "[\"tests.test_a.A.test_new\"]",
            "PASS_TO_PASS": ["test_old (tests.test_a.A)", "test_b (tests.test_a.A.test_b)"],
            "test_patch": "--- a/tests/test_a.py\n+++ b/tests/test_a.py\n@@ -1 +1 @@\n-a\n+b\n--- /dev/null\n+++ b/tests/test_b.py\n"
        })
    }

    #[test]
    fn an_instance_of_the_published_form_is_read() {
        let task = read("mine", &instance()).unwrap();
        assert_eq!(task.folder(), "/work/app");
        assert_eq!(task.protected.files, ["tests/test_a.py", "tests/test_b.py"]);
        let checks: Vec<_> = task
            .checks
            .iter()
            .map(|check| (check.name.as_str(), check.failing))
            .collect();
        assert_eq!(
            checks,
            [
                ("tests.test_a.A.test_new", true),
                ("tests.test_a.A.test_old", false),
                ("tests.test_a.A.test_b", false)
            ]
        );
        assert!(task.issue.contains("`python3 -m unittest`"));
    }

    #[test]
    fn an_instance_that_makes_no_sense_is_an_error_of_the_config() {
        for (name, value) in [
            ("repo", serde_json::json!("../x")),
            ("repo", serde_json::json!("a; rm -rf ~")),
            ("repo", serde_json::json!("..")),
            ("problem_statement", serde_json::json!(3)),
            ("FAIL_TO_PASS", serde_json::json!("no list")),
            ("FAIL_TO_PASS", serde_json::json!([1])),
            ("FAIL_TO_PASS", serde_json::json!(["a b"])),
        ] {
            let mut instance = instance();
            instance[name] = value;
            let fault = read("mine", &instance).unwrap_err();
            assert!(
                matches!(fault, Fault::InvalidConfig(_)),
                "{name}: {fault:?}"
            );
        }
        let mut untested = instance();
        untested["FAIL_TO_PASS"] = serde_json::json!([]);
        untested["PASS_TO_PASS"] = serde_json::json!([]);
        assert!(read("mine", &untested).is_err());
    }

    #[test]
    fn a_published_test_split_is_held_out() {
        let mut instance = instance();
        assert_eq!(split_of(&instance), Split::Train);
        instance["split"] = serde_json::json!("test");
        assert_eq!(split_of(&instance), Split::HeldOut);
    }
}
