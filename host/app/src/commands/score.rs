//! `nextstate score`: log-probs of given tokens.
//!
//! Formats: the help text of [`Args`] is the contract. Samples nothing; [`super::generate`] does.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use rl::{LEAST_TEMPERATURE, Message, Policy as _, ScoreRequest, TokenId, Weights};
use serde::Deserialize;

use super::lines;
use super::opened::{AdapterArgs, ModelArgs, Opened};

/// The formats of input and output: a contract. Shown by `--help`.
pub const FORMAT: &str = r#"Standard input, one object a line (blank lines are skipped):

  {"tokens":[1,2,3]}        token ids
  {"messages":[{"role":"user","content":"Hi"},…]}
                            a conversation, rendered by the model's chat template without a prompt for a
                            further reply; texts never become special tokens

Standard output, one line for each:

  {"tokens":[1,2,3],"logprobs":[null,-2.30258512,-0.693147182]}

`logprobs` holds the natural logarithm of each token's probability given the tokens before it, at --temperature, with
nine significant digits (any two 32-bit floats differ); the first token has none. A bad line ends the command with an
error that names it; the lines before it have been answered."#;

/// Log-probs of given tokens or conversations, one JSON object a line.
///
/// The formats are in [`FORMAT`].
#[derive(Clone, Debug, clap::Args)]
#[command(about, long_about = "Log-probs of given tokens or conversations, one JSON object a line.", after_long_help = FORMAT)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Divides the logits
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
}

/// One line of input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tokens: Option<Vec<TokenId>>,
    messages: Option<Vec<Message>>,
}

/// Scores standard input.
///
/// # Errors
/// When the model cannot be opened, or a line cannot be read or scored.
pub fn run(args: Args) -> anyhow::Result<()> {
    if !(args.temperature.is_finite() && args.temperature >= LEAST_TEMPERATURE) {
        let found = args.temperature;
        bail!("--temperature is {found}, it must be at least {LEAST_TEMPERATURE}");
    }
    let (opened, weights) = args.model.open(args.adapter.adapter.as_deref())?;
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    score(&opened, &weights, args.temperature, input, output)
}

fn score(
    opened: &Opened,
    weights: &Weights,
    temperature: f32,
    input: impl BufRead,
    mut output: impl Write,
) -> anyhow::Result<()> {
    for line in lines::read::<Line>(input, "standard input") {
        let (number, line) = line?;
        let scored = line
            .tokens(opened)
            .and_then(|tokens| score_one(opened, weights, temperature, tokens))
            .with_context(|| format!("standard input, line {number}"))?;
        writeln!(output, "{scored}").context("write standard output")?;
        output.flush().context("write standard output")?;
    }
    Ok(())
}

impl Line {
    fn tokens(self, opened: &Opened) -> anyhow::Result<Vec<TokenId>> {
        match (self.tokens, self.messages) {
            (Some(tokens), None) => Ok(tokens),
            (None, Some(messages)) => Ok(opened.policy.encode_transcript(&messages, &[])?),
            _ => bail!("it must hold either `tokens` or `messages`"),
        }
    }
}

fn score_one(
    opened: &Opened,
    weights: &Weights,
    temperature: f32,
    tokens: Vec<TokenId>,
) -> anyhow::Result<String> {
    let Some((first, rest)) = tokens.split_first() else {
        bail!("it holds no token");
    };
    let request = ScoreRequest {
        weights: weights.clone(),
        prompt: vec![*first],
        continuations: vec![rest.to_vec()],
        temperature,
    };
    let scored = opened.policy.score(request)?;
    let logprobs = std::iter::once(None).chain(scored.into_iter().flatten().map(Some));
    Ok(format!(
        "{{\"tokens\":{},\"logprobs\":{}}}",
        lines::ids(&tokens),
        lines::logprobs(logprobs)
    ))
}

#[cfg(test)]
mod tests;
