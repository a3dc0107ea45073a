//! MiniWoB++ pages: which ones, and how an episode is begun and read on them.
//!
//! The pages belong to the operator's site `miniwob`: the folder of that name in the Python package `miniwob`. Their own reward is the
//! oracle, without its decay over time. Pages that need eyes (shapes, colours, icons without a name) are not in the list.

use sdk::Fault;
use serde_json::Value;

use crate::oracle::Score;

/// The pages whose task can be done through the accessibility tree.
pub const PAGES: &[&str] = &[
    "book-flight-nodelay",
    "buy-ticket",
    "choose-date",
    "choose-date-easy",
    "choose-date-medium",
    "choose-date-nodelay",
    "choose-list",
    "click-button",
    "click-button-sequence",
    "click-checkboxes",
    "click-checkboxes-large",
    "click-checkboxes-soft",
    "click-checkboxes-transfer",
    "click-collapsible",
    "click-collapsible-2",
    "click-collapsible-2-nodelay",
    "click-collapsible-nodelay",
    "click-dialog",
    "click-dialog-2",
    "click-link",
    "click-menu",
    "click-option",
    "click-tab",
    "click-tab-2",
    "click-tab-2-easy",
    "click-tab-2-hard",
    "click-tab-2-medium",
    "click-test",
    "click-test-2",
    "click-test-transfer",
    "click-widget",
    "copy-paste",
    "copy-paste-2",
    "enter-password",
    "enter-text",
    "enter-text-2",
    "enter-text-dynamic",
    "find-greatest",
    "find-word",
    "focus-text",
    "focus-text-2",
    "form-sequence-2",
    "form-sequence-3",
    "generate-number",
    "guess-number",
    "login-user",
    "login-user-popup",
    "multi-layouts",
    "multi-orderings",
    "navigate-tree",
    "odd-or-even",
    "order-food",
    "phone-book",
    "read-table",
    "read-table-2",
    "search-engine",
    "simple-algebra",
    "simple-arithmetic",
    "text-transform",
    "unicode-test",
    "use-autocomplete",
    "use-autocomplete-nodelay",
    "use-spinner",
];

/// The operator's site.
pub const SITE: &str = "miniwob";

/// A page's file in the site.
pub fn path(page: &str) -> String {
    format!("html/miniwob/{page}.html")
}

/// Begins an episode: seeded by page and number, without a time limit that could be met, without animations, and without the page's own
/// display of time and reward, which is none of the model's business. Gives the utterance.
pub fn begin(page: &str, number: u32) -> String {
    format!(
        "(() => {{\n\
         core.EPISODE_MAX_TIME = 2000000000;\n\
         if (window.jQuery) jQuery.fx.off = true;\n\
         Math.seedrandom(\"{page}/{number}\");\n\
         core.startEpisodeReal();\n\
         for (const id of [\"reward-display\", \"click-canvas\"]) document.getElementById(id).style.display = \"none\";\n\
         return core.getUtterance();\n\
         }})()"
    )
}

/// Reads whether the episode is over, and its reward.
pub const LOOK: &str = "({over: Boolean(WOB_DONE_GLOBAL), reward: Number(WOB_RAW_REWARD_GLOBAL)})";

/// The task's words from what [`begin`] gave.
///
/// # Errors
/// `internal` when the page has none: it is not the page that it should be.
pub fn utterance(answer: &Value) -> Result<String, Fault> {
    let text = match answer {
        Value::String(text) => text.clone(),
        // A few pages give their words with fields beside them.
        other => other
            .get("utterance")
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned(),
    };
    if text.trim().is_empty() {
        let why = "the page gave no instruction: is the site `miniwob` the folder of that name of the package?";
        return Err(Fault::Internal(format!("begin a MiniWoB++ episode: {why}")));
    }
    Ok(text)
}

/// The score and whether the page says that it is over, from what [`LOOK`] gave.
pub fn score(answer: &Value) -> (Score, bool) {
    let over = answer.get("over").and_then(Value::as_bool).unwrap_or(false);
    let reward = answer.get("reward").and_then(Value::as_f64).unwrap_or(0.0);
    (Score::of_reward(reward, over), over)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_has_no_page_twice_and_no_odd_name() {
        let mut names = PAGES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PAGES.len());
        for name in PAGES {
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
        }
    }

    #[test]
    fn an_utterance_is_read_and_a_page_without_one_is_a_fault() {
        assert_eq!(utterance(&json!("Click.")).unwrap(), "Click.");
        assert_eq!(
            utterance(&json!({"utterance": "Click.", "fields": {}})).unwrap(),
            "Click."
        );
        for answer in [json!(""), json!(null), json!({}), json!(3)] {
            assert!(utterance(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn the_raw_reward_counts_when_the_page_is_over() {
        let (score, over) = super::score(&json!({"over": true, "reward": 1}));
        assert!(over && score.is_solved());
        let (score, over) = super::score(&json!({"over": false, "reward": 0}));
        assert!(!over && !score.lost && score.value == 0.0);
        let (score, _) = super::score(&json!({"over": true, "reward": -1}));
        assert!(score.lost);
    }
}
