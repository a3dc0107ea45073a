//! `nextstate generate`: replies to prompts.
//!
//! Formats: the help text of [`Args`] is the contract. One line after the other, without a server; `serve` is the one
//! that answers many at a time.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use rl::{Message, Policy as _, SampleRequest, Sampling, Seed, TokenFlow, TokenId, Weights};
use serde::Deserialize;

use super::lines;
use super::opened::{AdapterArgs, ModelArgs, Opened};

/// The formats of input and output: a contract. Shown by `--help`.
pub const FORMAT: &str = r#"Standard input, one object a line (blank lines are skipped):

  {"messages":[{"role":"user","content":"Hi"}]}
                        a conversation, rendered by the model's chat template; texts never become special tokens
  {"prompt":"Once upon a time"}
                        a text to go on from; special tokens in it are recognised

Standard output, one line for each:

  {"text":" there","tokens":[633,2],"logprobs":[-0.693147182,-1.20397282],"finish_reason":"stop"}

`tokens` are the sampled ids, the stop token included; `logprobs` their natural log-probs at the sampling temperature
before truncation (at temperature 1 for --temperature 0), with nine significant digits; `finish_reason` is `stop` or
`length`. The same line with the same settings and seed gives the same reply. A bad line ends the command with an
error that names it; the lines before it have been answered."#;

/// Replies to prompts or conversations, one JSON object a line.
///
/// The formats are in [`FORMAT`].
#[derive(Clone, Debug, clap::Args)]
#[command(about, long_about = "Replies to prompts or conversations, one JSON object a line.", after_long_help = FORMAT)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Divides the logits; 0 takes the most likely token
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Keep the most likely tokens whose probabilities reach this sum
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Where the randomness comes from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most tokens of a reply
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// A text at which a reply ends; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// One line of input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
}

/// Answers standard input.
///
/// # Errors
/// When the model cannot be opened, or a line cannot be read or answered.
pub fn run(args: Args) -> anyhow::Result<()> {
    let sampling = args.sampling()?;
    let (opened, weights) = args.model.open(args.adapter.adapter.as_deref())?;
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    generate(&opened, &weights, &sampling, input, output)
}

impl Args {
    fn sampling(&self) -> anyhow::Result<Sampling> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            bail!(
                "--temperature is {}, it must be at least 0",
                self.temperature
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            bail!(
                "--top-p is {}, it must be above 0 and at most 1",
                self.top_p
            );
        }
        Ok(Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            seed: Seed::new(self.seed),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ..Sampling::default()
        })
    }
}

fn generate(
    opened: &Opened,
    weights: &Weights,
    sampling: &Sampling,
    input: impl BufRead,
    mut output: impl Write,
) -> anyhow::Result<()> {
    for line in lines::read::<Line>(input, "standard input") {
        let (number, line) = line?;
        let reply = line
            .prompt(opened)
            .and_then(|prompt| answer(opened, weights, sampling, prompt))
            .with_context(|| format!("standard input, line {number}"))?;
        writeln!(output, "{reply}").context("write standard output")?;
        output.flush().context("write standard output")?;
    }
    Ok(())
}

impl Line {
    fn prompt(self, opened: &Opened) -> anyhow::Result<Vec<TokenId>> {
        match (self.messages, self.prompt) {
            (Some(messages), None) => Ok(opened.policy.encode(&messages, &[], "")?),
            (None, Some(prompt)) => Ok(opened.policy.encode_prompt(&prompt)?),
            _ => bail!("it must hold either `messages` or `prompt`"),
        }
    }
}

fn answer(
    opened: &Opened,
    weights: &Weights,
    sampling: &Sampling,
    prompt: Vec<TokenId>,
) -> anyhow::Result<String> {
    let request = SampleRequest {
        weights: weights.clone(),
        prompt,
        sampling: sampling.clone(),
    };
    let completion = opened
        .policy
        .sample(request, &mut |_| TokenFlow::Continue)?;
    Ok(format!(
        "{{\"text\":{},\"tokens\":{},\"logprobs\":{},\"finish_reason\":{}}}",
        serde_json::to_string(&completion.text)?,
        lines::ids(&completion.tokens),
        lines::logprobs(completion.logprobs.into_iter().map(Some)),
        serde_json::to_string(&completion.finish)?,
    ))
}

#[cfg(test)]
mod tests;
