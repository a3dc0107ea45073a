//! [`run`]: a request answered, on a live host or on a folder.

use super::blame::Asked;
use super::request::Request;
use super::response::{Response, Tell};
use super::transfer::Given;
use super::workbench::Workbench;
use super::{bisect, blame, check, episode, log, moves, names, show, transfer};

/// Answers a request; `progress` hears how far it is.
///
/// # Errors
/// What is asked for is not there, the ledger is held or damaged, or the model cannot be had; what to do about it is said.
pub fn run(
    bench: &Workbench,
    request: Request,
    progress: &mut Tell<'_>,
) -> anyhow::Result<Response> {
    Ok(match request {
        Request::Log { limit } => Response::Log(log::log(bench, limit)?),
        Request::Show { version, behaviour } => {
            let shown = show::show(bench, &version, behaviour.as_ref(), progress)?;
            Response::Show(shown)
        }
        Request::Episodes { limit } => Response::Episodes(episode::list(bench, limit)?),
        Request::Episode { id } => Response::Episode(episode::tell(bench, &id)?),
        Request::Diff { a, b, behaviour } => {
            Response::Diff(show::diff(bench, &a, &b, behaviour.as_ref(), progress)?)
        }
        Request::Revert { version } => Response::Version(moves::revert(bench, &version, progress)?),
        Request::Promote { version } => {
            Response::Version(moves::promote(bench, &version, progress)?)
        }
        Request::Names { kind } => Response::Names(names::list(bench, kind)?),
        Request::Name {
            kind,
            name,
            version,
        } => Response::Names(names::set(bench, kind, &name, &version)?),
        Request::Unname { kind, name } => Response::Names(names::remove(bench, kind, &name)?),
        Request::Replay { to } => Response::Replay(moves::replay(bench, to.as_deref(), progress)?),
        Request::Blame {
            prompt,
            reply,
            at,
            method,
            top,
        } => {
            let asked = Asked {
                prompt: &prompt,
                reply: reply.as_deref(),
                at: &at,
                method,
                top,
            };
            Response::Blame(blame::blame(bench, asked, progress)?)
        }
        Request::Bisect { probe, good, bad } => {
            let found = bisect::bisect(bench, &probe, (&good, &bad), progress)?;
            Response::Bisect(found)
        }
        Request::Forget { selector, plan } => match plan {
            true => Response::Plan(moves::plan(bench, &selector)?),
            false => Response::Forgotten(moves::forget(bench, &selector, progress)?),
        },
        Request::Export { version } => Response::Export(transfer::export(bench, &version)?),
        Request::Import {
            config,
            weights,
            from,
            branch,
            promote,
        } => {
            let given = Given {
                config: &config,
                weights: &weights.0,
                from: &from,
            };
            let then = (branch.as_deref(), promote);
            Response::Version(transfer::import(bench, &given, then, progress)?)
        }
        Request::Verify { replay } => Response::Verify(check::verify(bench, replay, progress)?),
        Request::Repair { to } => Response::Repair(check::repair(bench, &to)?),
    })
}
