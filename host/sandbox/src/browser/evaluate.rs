//! A script's value as JSON, however large or odd the value is.

use serde_json::{Value, json};

use super::{
    connection::{Outcome, Trouble},
    frames::without_lone_surrogates,
    operation::Operation,
};

/// Largest value, by contract.
const LARGEST: usize = 64 << 10;

/// Evaluates the script as the page's own global code, and gives its value as JSON, or the length of it where that is too long:
/// what is too large is never sent, because chromium and we would be busy with it for minutes.
const EVALUATE: &str = r"(script => {
    const say = value => {
        const text = JSON.stringify(value);
        return text === undefined ? 'null' : text.length > MOST ? text.length : text;
    };
    const value = (0, eval)(script);
    return value instanceof Promise ? value.then(say) : say(value);
})(SCRIPT)";

/// See [`super::Page::evaluate_json`].
pub(super) fn json(on: &Operation<'_>, script: &str) -> Outcome<String> {
    let left = on.deadline.left().as_millis();
    // The script goes last, so that nothing within it is replaced.
    let expression = EVALUATE
        .replace("MOST", &LARGEST.to_string())
        .replace("SCRIPT", &json!(script).to_string());
    let asked = json!({
        "expression": expression,
        "awaitPromise": true,
        "returnByValue": true,
        // Ends an endless loop of the script, and leaves the page as it is; our own deadline would cost the page its life.
        "timeout": u64::try_from(left - left / 5).unwrap_or(u64::MAX),
    });
    let answer = match on.call("Runtime.evaluate", asked) {
        Err(Trouble::Said(why)) if why.contains("terminated") || why == "Internal error" => {
            let why = "it ran for too long and was ended".to_owned();
            return Err(Trouble::Refused(why));
        }
        answer => answer?,
    };
    if let Some(details) = answer.get("exceptionDetails") {
        return Err(thrown(details));
    }
    match answer["result"]["value"].as_str() {
        Some(text) if text.len() <= LARGEST => Ok(without_lone_surrogates(text).into_owned()),
        _ => Err(Trouble::Refused(
            "its value has more than 64 KiB of JSON".to_owned(),
        )),
    }
}

fn thrown(details: &Value) -> Trouble {
    let exception = &details["exception"];
    let text = exception["description"]
        .as_str()
        .map(str::to_owned)
        .or_else(|| Some(exception.get("value")?.to_string()))
        .unwrap_or_else(|| details["text"].to_string());
    // Without the stack, whose frames are ours.
    let text = text.split("\n    at ").next().unwrap_or_default();
    let text: String = text.chars().take(500).collect();
    Trouble::Refused(format!("it threw: {text}"))
}
