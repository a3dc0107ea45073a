//! `nextstate judge-eval`: how often the judge is right, on labelled reactions.

use std::path::PathBuf;

use anyhow::Context as _;
use rl::{
    FinishReason, Judge, Message, NextState, Policy, PolicyVersion, Question, Sampling, Seed,
    SessionId, TenantId, Turn, TurnId, TurnKind, VoteValue, majority,
};
use serde::Deserialize;

use super::opened::ModelArgs;
use crate::config::Plugins;
use crate::demo::stats;

/// Measure the judge on labelled reactions.
///
/// Reads one JSON object a line: {"request": …, "response": …, "reaction": …, "label": "good"|"bad"}, asks the judge
/// plugin for its prompts, answers them with the base model, and reports the share of right verdicts with its interval.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Labelled reactions; without it the 60 that are shipped
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// The judge plugin: a shipped one by name, or a folder
    #[arg(long, default_value = "reaction-judge")]
    pub judge: String,
    /// Votes for each reaction
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=31))]
    pub votes: u32,
    /// Also ask for a hint on negative reactions, and print it
    #[arg(long)]
    pub hints: bool,
    /// Print every reaction, not only those that were misjudged
    #[arg(long)]
    pub all: bool,
    /// The judge model
    #[command(flatten)]
    pub model: ModelArgs,
}

/// The reactions that are shipped: labelled by hand, none is an example in the judge's prompt.
const REACTIONS: &str = include_str!("../../../../plugins/reaction-judge/data/reactions.jsonl");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labelled {
    request: String,
    response: String,
    reaction: String,
    label: Label,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Label {
    #[serde(rename = "good")]
    Positive,
    #[serde(rename = "bad")]
    Negative,
    #[serde(rename = "neutral")]
    Ambiguous,
}

/// Runs the command.
///
/// # Errors
/// A line that is not a labelled reaction, or a model or plugin that cannot be used.
pub fn run(args: Args) -> anyhow::Result<()> {
    let text = match &args.data {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("failed to read the reactions {}", path.display()))?,
        None => REACTIONS.to_owned(),
    };
    let labelled = parse(&text)?;
    let (opened, _) = args.model.open(None)?;
    let plugins = Plugins {
        judge: args.judge.clone(),
        ..Plugins::default()
    };
    let judge =
        crate::guests::load_plugins(&plugins, Seed::new(0), plugin::outside::Outside::default())?
            .judge;
    let mut right = 0u32;
    let mut counts = [[0u32; 4]; 3];
    let mut margins = Vec::new();
    for (index, item) in labelled.iter().enumerate() {
        let (verdict, score) = verdict(judge.as_ref(), &opened.policy, item, args.votes)?;
        let good = matches!(
            (item.label, verdict),
            (Label::Positive, Some(VoteValue::Positive))
                | (Label::Negative, Some(VoteValue::Negative))
                | (Label::Ambiguous, Some(VoteValue::Ambiguous))
        );
        right += u32::from(good);
        margins.push((item.label, score));
        let column = match verdict {
            Some(VoteValue::Positive) => 0,
            Some(VoteValue::Negative) => 1,
            Some(VoteValue::Ambiguous) => 2,
            None => 3,
        };
        counts[item.label as usize][column] += 1;
        if args.all || !good {
            let mark = if good { "right" } else { "WRONG" };
            println!(
                "{mark} {:?} judged {verdict:?} ({score:+.2}): {}",
                item.label, item.reaction
            );
        }
        if args.hints && item.label == Label::Negative {
            println!(
                "      hint: {}",
                hint(judge.as_ref(), &opened.policy, item)?
                    .as_deref()
                    .unwrap_or("none")
            );
        }
        if (index + 1) % 10 == 0 {
            eprintln!("{}/{}", index + 1, labelled.len());
        }
    }
    println!("label      +   −   0   none");
    for (label, row) in ["positive", "negative", "ambiguous"].iter().zip(counts) {
        println!(
            "{label:<9} {:>2}  {:>2}  {:>2}  {:>2}",
            row[0], row[1], row[2], row[3]
        );
    }
    if let Some(e) = stats::share(f64::from(right), labelled.len()) {
        println!(
            "right: {right} of {} = {:.2} ({:.2} to {:.2})",
            labelled.len(),
            e.value,
            e.low,
            e.high
        );
    }
    if let Some((threshold, share)) = best_threshold(&margins) {
        println!(
            "best threshold on the score: {threshold:+.2} (would be right on {:.2})",
            share
        );
    }
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Vec<Labelled>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("line {} is not a labelled reaction", at + 1))
        })
        .collect()
}

fn turn(item: &Labelled) -> (Turn, NextState) {
    let turn = Turn {
        id: TurnId::new("labelled"),
        tenant: TenantId::new("local"),
        session: SessionId::new("labelled"),
        user: None,
        parent: None,
        kind: TurnKind::Main,
        adapter: None,
        version: PolicyVersion::BASE,
        adapter_digest: String::new(),
        messages: vec![Message::user(item.request.as_str())],
        tools: Vec::new(),
        prompt: Vec::new(),
        response: Vec::new(),
        logprobs: Vec::new(),
        sampling: Sampling::default(),
        reply: Message::assistant(item.response.as_str()),
        finish: FinishReason::Stop,
    };
    let next = NextState::of(vec![Message::user(item.reaction.as_str())]);
    (turn, next)
}

fn verdict(
    judge: &dyn Judge,
    policy: &dyn Policy,
    item: &Labelled,
    votes: u32,
) -> anyhow::Result<(Option<VoteValue>, f32)> {
    let (turn, next) = turn(item);
    let mut values = Vec::new();
    let mut scores = Vec::new();
    for index in 0..votes {
        let seed = Seed::new(0).derive(&format!("vote/{index}"));
        let prompt = match judge.evaluate(&turn, &next, seed)? {
            Question::Ask(prompt) => prompt,
            Question::Skip => continue,
            Question::Decided(value, score) => {
                values.push(Some(value));
                scores.extend(score);
                continue;
            }
        };
        let answer = loops::judge::answer(policy, prompt, seed)?;
        let vote = judge.read_vote(&turn, &next, &answer)?;
        values.push(vote.map(|(value, _)| value));
        scores.extend(vote.and_then(|(_, score)| score));
    }
    let mean = scores.iter().sum::<f32>() / scores.len().max(1) as f32;
    Ok((majority(values), mean))
}

fn hint(judge: &dyn Judge, policy: &dyn Policy, item: &Labelled) -> anyhow::Result<Option<String>> {
    let (turn, next) = turn(item);
    let seed = Seed::new(0).derive("hint");
    let Some(prompt) = judge.ask_hint(&turn, &next, seed)? else {
        return Ok(None);
    };
    let answer = loops::judge::answer(policy, prompt, seed)?;
    Ok(judge
        .read_hint(&turn, &next, &answer)?
        .map(|hint| hint.text))
}

/// The threshold on the mean score that would separate the two labels best, and the share it would get right.
fn best_threshold(margins: &[(Label, f32)]) -> Option<(f32, f64)> {
    let signed: Vec<_> = margins
        .iter()
        .filter(|(label, _)| *label != Label::Ambiguous)
        .collect();
    signed
        .iter()
        .map(|(_, threshold)| {
            let right = signed
                .iter()
                .filter(|(label, score)| (score > threshold) == (*label == Label::Positive))
                .count();
            (*threshold, right as f64 / signed.len() as f64)
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_reactions_are_sixty_and_of_both_kinds() {
        let labelled = parse(REACTIONS).unwrap();
        assert_eq!(labelled.len(), 60);
        let positive = labelled
            .iter()
            .filter(|item| item.label == Label::Positive)
            .count();
        assert!((20..=40).contains(&positive), "{positive} positive");
    }

    #[test]
    fn a_line_that_is_no_reaction_is_named_by_its_number() {
        let error = format!("{:#}", parse("\n{\"request\": 1}\n").unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn the_best_threshold_separates_what_can_be_separated() {
        let margins = [
            (Label::Positive, 2.0),
            (Label::Positive, 1.0),
            (Label::Negative, 0.5),
        ];
        assert_eq!(best_threshold(&margins), Some((0.5, 1.0)));
    }
}
