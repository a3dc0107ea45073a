//! When a checkpoint is made: while the host runs, whenever much has been written since the last one, and when it stops.
//!
//! A new one is the last one and what came after it, folded by the same code as at a start, beside the loops: it asks none of
//! them for anything. The longer the ledger, the further they are apart, so that writing them costs a constant share of all writing.

use ledger::{Ledger, Seq};
use rl::AdapterName;
use serde::{Deserialize, Serialize};

use super::{checkpoint, reading};
use crate::{Error, Result, Shutdown, schedule::Rules, status::Board};

/// A tail of one part in so many of the ledger is read anew rather than written down.
const SHARE: u64 = 8;
/// How often somebody looks whether one is due, until it is: forgetting takes the last one away.
const LOOKS: u64 = 16;
/// When a host stops there is time: a tail of one part in so many of what is due is enough.
const AT_STOP: u64 = 8;

/// `[loops.checkpoint]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Records after which where the loops stand is written down again, at the least: a start reads what came after. About a third of a
    /// second's reading.
    pub every: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { every: 50_000 }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<()> {
        match self.every {
            0 => Err(Error::Config {
                key: "every",
                value: "0".to_owned(),
                allowed: "it must be at least 1",
            }),
            _ => Ok(()),
        }
    }

    /// How long a tail may be behind a checkpoint at `last`.
    fn due(self, last: Seq) -> u64 {
        self.every.max(last.get() / SHARE)
    }
}

/// Writes down where the loops stand at the ledger's end, reading on from the last checkpoint. False when something was being
/// forgotten meanwhile: then there is none.
///
/// # Errors
/// Damage, or a record that this program cannot read; the ledger's when it cannot be written to.
pub fn write_down(ledger: &Ledger, adapter: &AdapterName, rules: Rules) -> Result<bool> {
    let (mut fold, unread) = checkpoint::begin(ledger, (adapter, rules))?;
    // One thread: the loops are there first.
    reading::read(ledger, unread, 1, |said| fold.add(said))?;
    checkpoint::save(ledger, (adapter, rules), fold, unread.through)
}

/// Makes checkpoints of one ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) adapter: AdapterName,
    pub(crate) rules: Rules,
}

impl Keeper {
    /// Makes them until the shutdown.
    pub(crate) async fn run(self, board: Board, shutdown: Shutdown) -> Result<()> {
        let (mut changed, mut looked) = (board.changes(), 0);
        loop {
            let end = self.ledger.durable().get();
            if end.saturating_sub(looked) >= (self.config.every / LOOKS).max(1) {
                looked = end;
                self.advance(1).await?;
            }
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                rung = changed.changed() => if rung.is_err() { return Ok(()) },
            }
        }
    }

    /// Makes one at the end, when that is worth a write.
    pub(crate) async fn stop(self) -> Result<()> {
        match self.advance(AT_STOP).await {
            Err(error) if self.ledger.health().is_ok() => {
                tracing::warn!(error = %error.chain(), "no checkpoint was made");
                Ok(())
            }
            done => done,
        }
    }

    /// Reads on from the last one and writes the next, if the tail is as long as is due or one part of it in `parts`.
    async fn advance(&self, parts: u64) -> Result<()> {
        let keeper = self.clone();
        let done = tokio::task::spawn_blocking(move || keeper.write(parts)).await;
        done.map_err(|_| Error::Panicked {
            what: "making a checkpoint".to_owned(),
        })?
    }

    fn write(&self, parts: u64) -> Result<()> {
        let (ledger, of) = (&self.ledger, (&self.adapter, self.rules));
        let (last, through) = (checkpoint::last(ledger, of)?, ledger.durable());
        let tail = through.get().saturating_sub(last.get());
        if tail.saturating_mul(parts) < self.config.due(last) {
            return Ok(());
        }
        match write_down(ledger, &self.adapter, self.rules) {
            Ok(kept) => tracing::debug!(%through, kept, "a checkpoint"),
            // It would only have saved time.
            Err(error) if error.is_retryable() => {
                tracing::warn!(%through, error = %error.chain(), "no checkpoint was made");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
