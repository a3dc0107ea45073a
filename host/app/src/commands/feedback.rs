//! `nextstate feedback`: a person's own judgement of a reply; it outranks the judge model.

use serde_json::json;

use super::remote::Remote;

/// Judge a reply yourself: 👍, 👎 or a correction. It outranks the judge model.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The reply's id (`chatcmpl-…`)
    pub id: String,
    /// The reply was good
    #[arg(long, conflicts_with = "down")]
    pub up: bool,
    /// The reply was bad
    #[arg(long)]
    pub down: bool,
    /// How it should have been different; used as a hint
    #[arg(long, value_name = "TEXT")]
    pub correction: Option<String>,
    /// The host
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs the command.
///
/// # Errors
/// Nothing was said, or the host does not know the reply.
pub fn run(args: Args) -> anyhow::Result<()> {
    let rating = match (args.up, args.down) {
        (true, _) => Some("up"),
        (_, true) => Some("down"),
        _ => None,
    };
    anyhow::ensure!(
        rating.is_some() || args.correction.is_some(),
        "say --up, --down or --correction TEXT"
    );
    let mut body = json!({"id": args.id});
    if let Some(rating) = rating {
        body["rating"] = json!(rating);
    }
    if let Some(correction) = &args.correction {
        body["correction"] = json!(correction);
    }
    args.remote.post("/v1/feedback", &body)?;
    println!("recorded: {}", args.id);
    Ok(())
}
