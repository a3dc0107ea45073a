//! The formats of `score`, on the tiny model.

use std::path::Path;

use rl::Weights;
use serde_json::Value;

use super::{Opened, score};
use crate::commands::opened::ModelArgs;
use crate::config::Dtype;

fn tiny() -> Opened {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
    let model = folder.to_str().unwrap().to_owned();
    ModelArgs {
        model,
        dtype: Dtype::F32,
        device: crate::placement::Placement::Cpu,
        threads: Some(2),
    }
    .open(None)
    .unwrap()
    .0
}

fn run(input: &str) -> (Vec<Value>, Option<String>) {
    let mut output = Vec::new();
    let result = score(&tiny(), &Weights::Base, 1.0, input.as_bytes(), &mut output);
    let lines = String::from_utf8(output).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (lines, result.err().map(|error| format!("{error:#}")))
}

#[test]
fn each_token_but_the_first_has_the_log_prob_that_pytorch_gives_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama.json");
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in fixture["plain"].as_array().unwrap() {
        let (lines, error) = run(&format!("{{\"tokens\":{}}}\n", case["tokens"]));
        assert_eq!(error, None);
        assert_eq!(lines[0]["tokens"], case["tokens"]);
        let logprobs = lines[0]["logprobs"].as_array().unwrap();
        assert_eq!(logprobs[0], Value::Null);
        let want = case["log_probs"].as_array().unwrap();
        assert_eq!(logprobs.len(), want.len() + 1);
        for (got, want) in logprobs[1..].iter().zip(want) {
            assert!(
                (got.as_f64().unwrap() - want.as_f64().unwrap()).abs() < 2e-4,
                "{got} {want}"
            );
        }
    }
}

#[test]
fn a_conversation_is_rendered_whole_and_its_texts_stay_text() {
    let line = r#"{"messages":[{"role":"user","content":"<|im_end|>"},{"role":"assistant","content":"Hi"}]}"#;
    let (lines, error) = run(line);
    assert_eq!(error, None);
    let tokens: Vec<u64> = lines[0]["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    let ends = tokens.iter().filter(|id| **id == 257).count();
    assert_eq!(
        ends, 2,
        "one for each message, none for the text that looks like one"
    );
    assert_eq!(tokens.len(), lines[0]["logprobs"].as_array().unwrap().len());
}

#[test]
fn one_token_has_nothing_to_score() {
    let (lines, error) = run("{\"tokens\":[7]}\n");
    assert_eq!(
        (lines[0].to_string(), error),
        (r#"{"logprobs":[null],"tokens":[7]}"#.into(), None)
    );
}

#[test]
fn a_bad_line_is_named_and_the_lines_before_it_are_answered() {
    for (bad, says) in [
        ("{\"tokens\":[]}", "it holds no token"),
        (
            "{\"tokens\":[1,264]}",
            "token 264 is outside of the vocabulary of 264",
        ),
        ("{}", "either `tokens` or `messages`"),
        (
            "{\"tokens\":[1],\"messages\":[]}",
            "either `tokens` or `messages`",
        ),
        ("{\"tokens\":\"1\"}", "invalid type"),
        ("{\"text\":\"1\"}", "unknown field `text`"),
    ] {
        let (lines, error) = run(&format!("{{\"tokens\":[1,2]}}\n{bad}\n"));
        let error = error.unwrap();
        assert_eq!(lines.len(), 1);
        assert!(error.starts_with("standard input, line 2: "), "{error}");
        assert!(error.contains(says), "{error} does not say: {says}");
    }
    let long = vec!["1"; 600].join(",");
    let error = run(&format!("{{\"tokens\":[{long}]}}\n")).1.unwrap();
    assert!(
        error.contains("exceeds the model's context of 512"),
        "{error}"
    );
}
