//! Orders to the train loop, which alone moves the line: revert, promote, import, name, forget.
//!
//! [`Control`] is the handle; the loop obeys between two steps, and a revert or a promotion even during one.

use std::sync::Arc;

use ledger::lineage::{RefRecord, VersionRecord};
use rl::PolicyVersion;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::{
    Error, Result,
    forget::{Forgotten, Selector},
    guard::{Ended, Trip},
    line::Imported,
};

/// Orders that may wait; more are refused until one is obeyed.
const WAITING: usize = 64;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Order {
    /// A new version with the weights of an older one, live at once.
    Revert {
        /// That version; 0 for the base model.
        to: PolicyVersion,
        /// Why, for the record.
        why: String,
    },
    /// A new version with the weights of one that is not live, live at once.
    Promote {
        /// That version.
        from: PolicyVersion,
        /// Why, for the record.
        why: String,
    },
    /// A live guard tripped: back to the version that the live one was made from, if it still answers.
    Trip(Trip),
    /// A trial is over: its version answers everybody, or nobody.
    EndTrial(Box<Ended>),
    /// Weights from outside as a new version, which is not live.
    Import(Box<Imported>),
    /// A name for a version.
    Name(RefRecord),
    /// Forget what somebody said.
    Forget(Selector),
}

/// What was done.
#[derive(Clone, Debug)]
pub enum Done {
    /// A new version is there.
    Version(Box<VersionRecord>),
    /// The name is there.
    Named,
    /// There was nothing to do: another version answers by now.
    Nothing,
    /// It is forgotten.
    Forgotten(Box<Forgotten>),
}

pub(crate) type Progress = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

pub(crate) struct Given {
    pub(crate) order: Order,
    pub(crate) progress: Progress,
    pub(crate) reply: oneshot::Sender<Result<Done>>,
}

/// What the train loop reads orders from; it survives a loop that is started again.
pub(crate) type Orders = Arc<Mutex<mpsc::Receiver<Given>>>;

/// Gives orders. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    sender: mpsc::Sender<Given>,
}

pub(crate) fn channel() -> (Control, Orders) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Control { sender }, Arc::new(Mutex::new(receiver)))
}

impl Control {
    /// Gives an order and waits until it is obeyed. `progress` hears what is done, and how much of how much.
    ///
    /// # Errors
    /// The order's own; [`Error::Stopping`] when the host stops first: what was begun goes on at its next start.
    pub async fn give(
        &self,
        order: Order,
        progress: impl Fn(&str, u64, u64) + Send + Sync + 'static,
    ) -> Result<Done> {
        let (reply, answer) = oneshot::channel();
        let given = Given {
            order,
            progress: Arc::new(progress),
            reply,
        };
        self.sender.send(given).await.map_err(|_| Error::Stopping)?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Gives an order without waiting for it; says whether it will be heard. When too many wait it is dropped: whoever gives
    /// it will see the need again.
    pub(crate) fn order(&self, order: Order) -> bool {
        let (reply, _) = oneshot::channel();
        let progress: Progress = Arc::new(|_, _, _| {});
        let given = Given {
            order,
            progress,
            reply,
        };
        let heard = self.sender.try_send(given).is_ok();
        if !heard {
            tracing::warn!("an order to the train loop was dropped: too many wait");
        }
        heard
    }

    /// Reverts to a version: see [`Order::Revert`].
    ///
    /// # Errors
    /// As [`Control::give`].
    pub async fn revert(&self, to: PolicyVersion, why: impl Into<String>) -> Result<VersionRecord> {
        let why = why.into();
        version(self.give(Order::Revert { to, why }, |_, _, _| {}).await?)
    }

    /// Promotes a version: see [`Order::Promote`].
    ///
    /// # Errors
    /// As [`Control::give`].
    pub async fn promote(
        &self,
        from: PolicyVersion,
        why: impl Into<String>,
    ) -> Result<VersionRecord> {
        let why = why.into();
        version(
            self.give(Order::Promote { from, why }, |_, _, _| {})
                .await?,
        )
    }

    /// Imports weights: see [`Order::Import`].
    ///
    /// # Errors
    /// As [`Control::give`].
    pub async fn import(&self, weights: Imported) -> Result<VersionRecord> {
        let order = Order::Import(Box::new(weights));
        version(self.give(order, |_, _, _| {}).await?)
    }

    /// Names a version: see [`Order::Name`].
    ///
    /// # Errors
    /// As [`Control::give`].
    pub async fn name(&self, name: RefRecord) -> Result<()> {
        self.give(Order::Name(name), |_, _, _| {}).await.map(drop)
    }

    /// Forgets: see [`Order::Forget`] and [`crate::forget`].
    ///
    /// # Errors
    /// As [`Control::give`].
    pub async fn forget(
        &self,
        selector: Selector,
        progress: impl Fn(&str, u64, u64) + Send + Sync + 'static,
    ) -> Result<Forgotten> {
        match self.give(Order::Forget(selector), progress).await? {
            Done::Forgotten(forgotten) => Ok(*forgotten),
            _ => Err(Error::Stopping),
        }
    }
}

fn version(done: Done) -> Result<VersionRecord> {
    match done {
        Done::Version(version) => Ok(*version),
        _ => Err(Error::Stopping),
    }
}
