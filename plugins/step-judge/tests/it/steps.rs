//! The labelled actions: complete, balanced, none of them an example, and decided by the evidence exactly where it is clear.

use std::collections::{BTreeMap, BTreeSet};

use sdk::{Judge, Message, Observation, Question, Role, Sign, Turn, config::Value};
use serde::Deserialize;
use step_judge::Plugin;

use crate::manifest::{configure, set, shown, turn};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Step {
    modality: String,
    task: String,
    /// Actions and results in turn.
    before: Vec<String>,
    action: String,
    results: Vec<String>,
    evidence: BTreeMap<String, f64>,
    label: String,
    /// Whether the numbers alone decide it.
    by_evidence: bool,
}

impl Step {
    fn turn(&self) -> Turn {
        let mut request = vec![Message::user(self.task.as_str())];
        for (at, text) in self.before.iter().enumerate() {
            let role = if at % 2 == 0 {
                Role::Assistant
            } else {
                Role::Tool
            };
            request.push(Message::new(role, text.as_str()));
        }
        turn(request, &self.action)
    }

    fn next(&self) -> Observation {
        let message = |text: &String| Message::new(Role::Tool, text.as_str());
        let next = Observation::new(self.results.iter().map(message).collect());
        self.evidence
            .iter()
            .fold(next, |next, (name, value)| next.with_evidence(name, *value))
    }

    fn question(&self) -> Question {
        Plugin::evaluate(self.turn(), self.next()).unwrap()
    }
}

fn steps() -> Vec<Step> {
    let data = include_str!("../../data/steps.jsonl");
    data.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn sixty_actions_half_of_them_good_and_none_in_the_prompts() {
    let (steps, manifest) = (steps(), include_str!("../../plugin.toml"));
    let count = |modality: &str, label: &str| {
        let is = |step: &&Step| step.modality == modality && step.label == label;
        steps.iter().filter(is).count()
    };
    assert_eq!(steps.len(), 60);
    for modality in ["terminal", "swe", "gui", "tool-call"] {
        let (good, bad) = (count(modality, "good"), count(modality, "bad"));
        assert_eq!(good + bad, 15, "{modality}");
        assert!(
            good.abs_diff(bad) == 1,
            "{modality}: {good} good and {bad} bad"
        );
    }
    let good = steps.iter().filter(|step| step.label == "good").count();
    assert_eq!(good, 30);
    for step in &steps {
        assert!(!manifest.contains(&step.task), "{}", step.task);
        assert!(step.before.len().is_multiple_of(2) && !step.results.is_empty());
    }
    let different: BTreeSet<_> = steps
        .iter()
        .map(|step| (&step.task, &step.action, &step.results))
        .collect();
    assert_eq!(different.len(), 60);
}

#[test]
fn the_evidence_alone_decides_the_clear_cases_and_never_against_their_label() {
    configure();
    for step in steps() {
        match step.question() {
            Question::Decided(vote) => {
                assert!(step.by_evidence, "decided: {}", step.action);
                assert_eq!(
                    (vote.sign, step.label.as_str()),
                    (Sign::Bad, "bad"),
                    "{}",
                    step.action
                );
            }
            Question::Ask(_) => assert!(!step.by_evidence, "not decided: {}", step.action),
            Question::Skip => panic!("skipped: {}", step.action),
        }
    }
    assert_eq!(steps().iter().filter(|step| step.by_evidence).count(), 15);
}

#[test]
fn an_error_that_always_decides_condemns_actions_that_only_looked() {
    configure();
    set("error-decides", Value::Text("always".into()));
    let steps = steps();
    let is_wronged =
        |step: &&Step| step.label == "good" && matches!(step.question(), Question::Decided(_));
    let wronged: Vec<_> = steps
        .iter()
        .filter(is_wronged)
        .map(|step| &step.action)
        .collect();
    assert_eq!(wronged.len(), 4, "{wronged:?}");
}

#[test]
fn without_evidence_every_action_is_asked_about() {
    configure();
    set("decide-by-evidence", Value::Boolean(false));
    for step in steps() {
        let Question::Ask(prompt) = step.question() else {
            panic!("not asked: {}", step.action);
        };
        let text = shown(&prompt);
        assert!(text.ends_with(".\nThe action was:"), "{text}");
        assert!(
            text.chars().count() < 4_500,
            "{} characters",
            text.chars().count()
        );
    }
}
