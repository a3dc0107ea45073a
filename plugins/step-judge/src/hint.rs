//! The directive question as a choice: which of the operator's rules would have kept the agent from this trouble?
//!
//! A small model cannot write a usable hint. The hint is a rule that the operator wrote, so no text from outside reaches the
//! teacher's context, and the worst that a hostile tool or page can do is to pick another of those rules.

use sdk::{Completion, Fault, Hint, Observation, Prompt, PromptPart, config};

use crate::{evidence::Evidence, outside::Fence, scene, vote};

/// Bounds of a hint, in characters.
const LENGTH: std::ops::RangeInclusive<usize> = 10..=400;

/// One rule of the config.
struct Rule {
    /// The answer that stands for it, exactly as the model is to write it.
    answer: String,
    /// The answer's log-prob where nothing was said: how much the model likes the word itself.
    baseline: f64,
    /// The hint; empty where there is nothing to learn.
    hint: String,
}

fn rules() -> Result<Vec<Rule>, Fault> {
    let rule = |line: &String| {
        let mut fields = line.splitn(3, '|').map(str::trim);
        let (label, baseline, hint) = (fields.next()?, fields.next()?, fields.next()?);
        let baseline = baseline
            .parse::<f64>()
            .ok()
            .filter(|number| number.is_finite())?;
        let is_usable = hint.is_empty() || LENGTH.contains(&hint.chars().count());
        (is_usable && !label.is_empty()).then(|| Rule {
            answer: format!(" {label}"),
            baseline,
            hint: hint.to_owned(),
        })
    };
    let lines = config::texts("hint-rules")?;
    let refuse = |line: &String| {
        let form = "label | log-prob | hint\", the hint empty or of 10 to 400 characters";
        Fault::InvalidConfig(format!("`hint-rules`: \"{line}\" is not \"{form}"))
    };
    let rules = lines
        .iter()
        .map(|line| rule(line).ok_or_else(|| refuse(line)));
    let rules = rules.collect::<Result<Vec<_>, _>>()?;
    let distinct: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.answer).collect();
    if !(2..=16).contains(&rules.len()) || distinct.len() != rules.len() {
        let what = "`hint-rules` needs 2 to 16 rules with different labels";
        return Err(Fault::InvalidConfig(what.into()));
    }
    Ok(rules)
}

/// The prompt; none where the environment knows of no trouble. Without any evidence the model is asked, since it may be `fine`.
pub fn ask(next: &Observation) -> Result<Option<Prompt>, Fault> {
    if !(Evidence::of(next).is_trouble() || next.evidence.is_empty()) {
        return Ok(None);
    }
    let fence = Fence::new()?;
    let mut parts = vec![PromptPart::Instruction(format!(
        "{}\n\n",
        config::text("hint-question")?
    ))];
    for example in config::texts("hint-examples")? {
        let (label, result) = example.split_once('|').ok_or_else(|| {
            let form = "is not \"label | result\"";
            Fault::InvalidConfig(format!("`hint-examples`: \"{example}\" {form}"))
        })?;
        parts.extend(fence.line("Result", &[result.trim().to_owned()]));
        parts.push(PromptPart::Instruction(format!(
            "The problem: {}\n\n",
            label.trim()
        )));
    }
    parts.extend(scene::result(next, &fence)?);
    parts.push(PromptPart::Instruction("The problem:".into()));
    let answers = rules()?.into_iter().map(|rule| rule.answer).collect();
    Ok(Some(vote::plain(parts, answers)))
}

/// The rule whose answer gained most over its baseline. None when that is one with nothing to learn, or when an answer has no
/// log-prob.
pub fn read(completion: &Completion) -> Result<Option<Hint>, Fault> {
    let mut best: Option<(f64, Rule)> = None;
    for rule in rules()? {
        let scored = completion
            .answers
            .iter()
            .find(|scored| scored.text == rule.answer);
        let Some(scored) = scored.filter(|scored| scored.log_prob.is_finite()) else {
            return Ok(None);
        };
        let gain = scored.log_prob - rule.baseline;
        if best.as_ref().is_none_or(|(most, _)| gain > *most) {
            best = Some((gain, rule));
        }
    }
    let hint = best
        .map(|(_, rule)| rule.hint)
        .filter(|hint| !hint.is_empty());
    Ok(hint.map(|text| Hint { text }))
}
