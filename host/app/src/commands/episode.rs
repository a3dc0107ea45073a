//! `nextstate episode`: what was played or said, turn by turn.

use super::place::{Place, say};
use crate::history::{Request, Response, render};

/// Read an episode or a conversation turn by turn: what the policy saw, what it did, what came next, and what was made of it.
///
/// Without an id, lists the episodes, newest first. Text from outside is shown so that it cannot steer the terminal.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: nextstate episode --data runs/gui-1              what was played in this folder\n\
                  \x20         nextstate episode last --data runs/gui-1         the newest one, turn by turn\n\
                  \x20         nextstate episode chatcmpl-4f2a                  the conversation of this reply, on a running host\n\
                  \n\
                  Each turn has the reply, the next state (what came back before the next reply), what the environment\n\
                  itself measured, the verdict with its votes, and the version it was trained into, or why it was not."
)]
pub struct Args {
    /// An episode (or the beginning of its id), a session, or a reply; `last` is the newest episode
    pub id: Option<String>,
    /// Show texts whole: by default 12 lines of each
    #[arg(long, requires = "id")]
    pub full: bool,
    /// Without an id: list at most so many
    #[arg(
        long,
        short = 'n',
        value_name = "N",
        default_value_t = 20,
        conflicts_with = "id"
    )]
    pub limit: usize,
    /// Where the episode is
    #[command(flatten)]
    pub place: Place,
}

/// Runs the command.
///
/// # Errors
/// As [`crate::history::run`].
pub fn run(args: Args) -> anyhow::Result<()> {
    let Some(id) = args.id else {
        return args.place.print(Request::Episodes { limit: args.limit });
    };
    match args.place.ask(Request::Episode { id })? {
        Response::Episode(told) if args.full && !args.place.json => {
            say(&render::episode(&told, render::Cut::NOTHING))
        }
        response => args.place.show(&response),
    }
}
