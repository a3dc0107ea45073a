//! Decode steps that are recorded once and repeated: what a step costs the host does not depend on its number of kernels.
//!
//! Tokens, positions, pages and adapters are read from memory that the plan fills before each step, so a recorded step serves every
//! batch of its [`Kind`]. The first step of a kind is computed as any pass (what it needs is allocated then), the second recorded.
//! Start at [`Steps::run`].

use super::Cuda;
use super::plan::Kind;
use crate::error::{Error, Result};
use kernels::cuda::{Graph, Priority, Stream};
use std::sync::Arc;

/// Kinds that are remembered: the batches of a busy engine differ by a row or two, and a graph has a few hundred launches.
const KEPT: usize = 48;

/// The steps that came before, each with the rows' memory as it was.
#[derive(Default, Debug)]
pub(crate) struct Steps {
    /// The one that was used last at the end.
    known: Vec<(Kind, u64, Known)>,
    /// Where steps are recorded: the queue of the work itself may be marked by others meanwhile.
    recorder: Option<Arc<Stream>>,
}

#[derive(Debug)]
enum Known {
    /// It came once.
    Met,
    Recorded(Graph),
    /// The driver does not record it.
    Refused,
}

impl Steps {
    /// Does `work`, or repeats what it was recorded as.
    pub(super) fn run(
        &mut self,
        device: &Cuda,
        kind: Kind,
        mut work: impl FnMut(&Cuda) -> Result<()>,
    ) -> Result<()> {
        let now = device.growth().count();
        let place = self.known.iter().position(|(k, _, _)| *k == kind);
        let known = match place.map(|place| self.known.remove(place)) {
            Some((_, then, Known::Met)) if then == now => self.record(device, kind, &mut work)?,
            Some((_, then, known)) if then == now => known,
            stale => {
                if matches!(stale, Some((_, _, Known::Recorded(_)))) {
                    // It may still be running.
                    device.stream().wait()?;
                }
                Known::Met
            }
        };
        let known = match known {
            Known::Recorded(mut graph) => {
                device.stream().replay(&mut graph)?;
                Known::Recorded(graph)
            }
            other => {
                work(device)?;
                other
            }
        };
        if self.known.len() == KEPT {
            device.stream().wait()?;
            self.known.remove(0);
        }
        self.known.push((kind, device.growth().count(), known));
        Ok(())
    }

    fn record(
        &mut self,
        device: &Cuda,
        kind: Kind,
        work: &mut impl FnMut(&Cuda) -> Result<()>,
    ) -> Result<Known> {
        let recorder = match &self.recorder {
            Some(there) => Arc::clone(there),
            None => {
                let new = Arc::new(device.gpu().stream(Priority::High)?);
                Arc::clone(self.recorder.insert(new))
            }
        };
        let device = &Cuda {
            stream: Arc::clone(&recorder),
            ..device.clone()
        };
        let mut refused = None;
        let graph = recorder.capture(|_| match work(device) {
            Ok(()) => Ok(()),
            Err(Error::Compute(error)) => Err(error),
            Err(other) => {
                refused = Some(other);
                Ok(())
            }
        });
        match (graph, refused) {
            (_, Some(error)) => Err(error),
            (Ok(graph), None) => Ok(Known::Recorded(graph)),
            (Err(error), None) => {
                tracing::warn!(%error, ?kind, "a step was not recorded; it is launched kernel by kernel");
                Ok(Known::Refused)
            }
        }
    }
}
