//! `nextstate status`: what an operator asks first.

use anyhow::Context as _;
use loops::Status;
use loops::status::LoopState;

use super::remote::Remote;

/// Show a running host: loops, queues, versions, the last trainable turn, and why turns were not trainable.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host's own JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// The host
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs the command.
///
/// # Errors
/// The host cannot be reached.
pub fn run(args: Args) -> anyhow::Result<()> {
    let body = args.remote.get("/v1/status")?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&body)?);
        return Ok(());
    }
    let restricted = body["restricted"].as_str().map(str::to_owned);
    let status: Status = serde_json::from_value(body)
        .context("the host's status has another shape: are host and command of one version?")?;
    if let Some(why) = restricted {
        println!("live version   {} ({why})", status.live);
        return Ok(());
    }
    print!("{}", page(&status));
    Ok(())
}

/// The status as a person reads it.
fn page(status: &Status) -> String {
    let mut lines = vec![format!(
        "live version   {} (committed {})",
        status.live, status.version
    )];
    if let Some((version, share)) = status.trial {
        lines.push(format!(
            "on trial       {version}, for {:.0} % of the sessions; nothing is trained until it is over",
            100.0 * share
        ));
    }
    for (name, state) in &status.loops {
        let state = match state {
            LoopState::Running => "running".to_owned(),
            LoopState::Failed { why, restarts } => format!("failed, restart {restarts}: {why}"),
            LoopState::Stopped => "stopped".to_owned(),
        };
        lines.push(format!("loop {name:<10} {state}"));
    }
    for (name, queue) in &status.queues {
        lines.push(format!(
            "queue {name:<8} {} waiting, the oldest for {:.1} s",
            queue.depth, queue.oldest_seconds
        ));
    }
    lines.push(format!(
        "turns          {} waiting for their next state · {} reacted to · {} judged · {} samples · {} trained",
        status.waiting, status.reacted, status.judged, status.samples, status.trained
    ));
    lines.push(format!(
        "votes          {} present · {} absent · {} calls of feedback",
        status.votes_present, status.votes_absent, status.feedback
    ));
    match &status.last_trainable {
        Some(last) => lines.push(format!(
            "last trainable {} of session {}",
            last.turn, last.session
        )),
        None => lines.push("last trainable none yet".to_owned()),
    }
    if let Some(why) = &status.training_waits {
        lines.push(format!("training waits {why}"));
    }
    if status.steps_refused > 0 {
        lines.push(format!(
            "steps refused  {} (see the log: a loss, gradient or ratio was not sound)",
            status.steps_refused
        ));
    }
    if !status.not_trainable.is_empty() {
        lines.push("not trained, because".to_owned());
        for (why, count) in &status.not_trainable {
            lines.push(format!("  {count:>6}  {}", why.explain()));
        }
    }
    if let Some(error) = &status.ledger_error {
        lines.push(format!("LEDGER         {error}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_why_turns_were_not_trained() {
        let mut status = Status::default();
        status
            .not_trainable
            .insert(rl::NotTrainable::BaseWeights, 3);
        status.training_waits = Some("for a request that computes".to_owned());
        let page = page(&status);
        assert!(
            page.contains("3  the client asked for the base model"),
            "{page}"
        );
        assert!(page.contains("last trainable none yet"), "{page}");
        assert!(page.contains("training waits for a request"), "{page}");
    }
}
