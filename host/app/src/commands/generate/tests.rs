//! The formats of `generate`, on the tiny model.

use std::path::Path;

use rl::{Policy as _, Sampling, ScoreRequest, Seed, Weights};
use serde_json::Value;

use super::{Opened, generate};
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

fn run(sampling: &Sampling, input: &str) -> (String, Option<String>) {
    let mut output = Vec::new();
    let result = generate(
        &tiny(),
        &Weights::Base,
        sampling,
        input.as_bytes(),
        &mut output,
    );
    (
        String::from_utf8(output).unwrap(),
        result.err().map(|error| format!("{error:#}")),
    )
}

fn sampling(seed: u64) -> Sampling {
    Sampling {
        temperature: 0.9,
        max_tokens: 12,
        seed: Seed::new(seed),
        ..Sampling::default()
    }
}

const TWO: &str =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n{\"prompt\":\"Once\"}\n";

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let (first, error) = run(&sampling(1), TWO);
    assert_eq!(error, None);
    assert_eq!(run(&sampling(1), TWO).0, first);
    assert_ne!(run(&sampling(2), TWO).0, first);
    assert_eq!(first.lines().count(), 2);
}

#[test]
fn a_reply_holds_its_tokens_and_the_log_probs_that_scoring_gives_back() {
    let (output, _) = run(&sampling(4), "{\"prompt\":\"Once\"}\n");
    let reply: Value = serde_json::from_str(&output).unwrap();
    let keys: Vec<&String> = reply.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 4);
    let list = |name: &str| reply[name].as_array().unwrap().clone();
    let tokens: Vec<u32> = list("tokens")
        .iter()
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect();
    let logprobs: Vec<f32> = list("logprobs")
        .iter()
        .map(|x| x.to_string().parse().unwrap())
        .collect();
    assert!(matches!(
        reply["finish_reason"].as_str(),
        Some("stop" | "length")
    ));
    let opened = tiny();
    let request = ScoreRequest {
        weights: Weights::Base,
        prompt: opened.policy.encode_prompt("Once").unwrap(),
        continuations: vec![tokens],
        temperature: 0.9,
    };
    assert_eq!(
        opened.policy.score(request).unwrap(),
        [logprobs],
        "nine digits lose nothing"
    );
}

#[test]
fn a_line_that_cannot_be_answered_is_named() {
    for (bad, says) in [
        ("{}", "either `messages` or `prompt`"),
        ("{\"prompt\":\"\"}", "no token"),
        (
            "{\"prompt\":\"a\",\"messages\":[]}",
            "either `messages` or `prompt`",
        ),
        (
            "{\"messages\":[{\"role\":\"robot\",\"content\":\"\"}]}",
            "unknown variant `robot`",
        ),
    ] {
        let (output, error) = run(&sampling(1), &format!("{TWO}{bad}\n"));
        let error = error.unwrap();
        assert_eq!(output.lines().count(), 2);
        assert!(error.starts_with("standard input, line 3: "), "{error}");
        assert!(error.contains(says), "{error} does not say: {says}");
    }
    let long = format!("{{\"prompt\":\"{}\"}}\n", "a".repeat(512));
    let error = run(&sampling(1), &long).1.unwrap();
    assert!(error.contains("no room in a context of 512"), "{error}");
}
