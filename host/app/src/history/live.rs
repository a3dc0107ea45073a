//! A live host's side: operators' requests, answered line by line.

use std::ops::ControlFlow;
use std::sync::Arc;

use policy::{Adapter, ModelConfig};
use rl::TenantId;
use serde_json::Value;
use serving::gateway::{LineFn, Operator};

use super::request::Request;
use super::response::{Event, Failure};
use super::run;
use super::workbench::Workbench;

/// The gateway's hook: `operators` may ask, or everybody on a host without keys.
pub fn operator(bench: Workbench) -> Operator {
    let config = bench.config();
    let (open, operators) = (config.gateway.keys.is_empty(), config.operators.clone());
    let imported = match bench.loaded() {
        Ok(loaded) if config.operators_compute => largest(&config.train, loaded.model.config()),
        _ => 0,
    };
    Operator {
        largest: imported.max(config.gateway.max_body_bytes),
        admits: Arc::new(move |tenant: &TenantId| {
            open || operators.iter().any(|name| name == tenant.as_str())
        }),
        answer: Arc::new(move |asked, line| answer(&bench, asked, line)),
    }
}

/// Most bytes of a request: an adapter that is imported is in it, in hexadecimal, with the names of its tensors.
pub(crate) fn largest(train: &trainer::Config, model: &ModelConfig) -> usize {
    const NAMES: usize = 1 << 20;
    2 * (Adapter::parameters(model, train.rank) * size_of::<f32>() + NAMES)
}

fn answer(bench: &Workbench, asked: Value, line: &mut LineFn<'_>) {
    let result = serde_json::from_value::<Request>(asked)
        .map_err(|error| anyhow::anyhow!("this host cannot read the request: {error}"))
        .and_then(|request| {
            let name = request.name();
            tracing::info!(request = name, "an operator's request");
            anyhow::ensure!(
                bench.config().operators_compute || !request.is_heavy(),
                "this host's memory is not planned for `{name}` (`operators-compute` is off, or `memory` leaves no room): a copy of its folder answers it (--data)"
            );
            // Replies and gradients take the cores that users are served with, and memory: one such request at a time, and none beside
            // the steps that forgetting takes again.
            let _one = match request.is_heavy() {
                true => Some(bench.loaded()?.aside.try_lock().map_err(|_| {
                    anyhow::anyhow!("another request computes already, or something is being forgotten; `{name}` can be asked again when it is done")
                })?),
                false => None,
            };
            let mut tell = |progress| match line(said(&Event::Progress(progress))) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => {
                    tracing::info!(request = name, "an operator's request ends: who asked has gone");
                    anyhow::bail!("nobody waits for the answer any more")
                }
            };
            run(bench, request, &mut tell)
        });
    let last = said(&match result {
        Ok(response) => Event::Done(Box::new(response)),
        Err(error) => Event::Error(Failure {
            message: format!("{error:#}"),
        }),
    });
    // Whoever has gone needs no answer.
    let _ = line(last);
}

fn said(event: &Event) -> Value {
    serde_json::to_value(event).unwrap_or_else(|error| {
        serde_json::json!({ "error": { "message": format!("the answer cannot be written: {error}") } })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ledger::Ledger;
    use policy::{Deployed, Slot};

    use super::*;
    use crate::config::Config;
    use crate::history::Control;
    use crate::host::Loaded;
    use crate::training;

    /// What a host answers first.
    fn first(bench: &Workbench, asked: &Request) -> String {
        let mut lines = Vec::new();
        let asked = serde_json::to_value(asked).unwrap();
        answer(bench, asked, &mut |line| {
            lines.push(line.to_string());
            ControlFlow::Continue(())
        });
        lines.swap_remove(0)
    }

    /// A host's workbench on a tiny model, and what trains it.
    pub(in super::super) fn bench(folder: &Path) -> (Workbench, loops::Trained) {
        let mut config = Config::default();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
        config.model.name = tiny.to_string_lossy().into_owned();
        let loaded = Loaded::from_config(&config.model).unwrap();
        let slot = || Arc::new(Slot::new(Deployed::default()));
        let trained = training::trained(&config, &loaded, slot(), slot()).unwrap();
        let ledger = Ledger::open(folder, ledger::Options::default()).unwrap();
        let bench = Workbench::live(config, loaded, ledger, Control::Offline);
        (bench, trained)
    }

    #[test]
    fn while_steps_are_taken_again_no_operators_request_computes_and_afterwards_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let (bench, trained) = bench(folder.path());
        let (heavy, light) = (Request::Replay { to: None }, Request::Log { limit: None });

        let again = trained.turn.try_lock().unwrap();
        let said = first(&bench, &heavy);
        assert!(said.contains("something is being forgotten"), "{said}");
        assert!(!first(&bench, &light).contains("forgotten"));
        drop(again);
        let said = first(&bench, &heavy);
        assert!(!said.contains("something is being forgotten"), "{said}");
        let config = Config {
            operators_compute: false,
            ..bench.config().clone()
        };
        let loaded = bench.loaded().unwrap().clone();
        let ledger = bench.ledger().unwrap().clone();
        let small = Workbench::live(config, loaded, ledger, Control::Offline);
        let said = first(&small, &heavy);
        assert!(said.contains("is not planned for `replay`"), "{said}");
        assert!(!first(&small, &light).contains("not planned"));
        // A request that computes keeps the steps waiting: it holds the same.
        let _request = bench.loaded().unwrap().aside.try_lock().unwrap();
        assert!(trained.turn.try_lock().is_err());
    }

    #[test]
    fn a_request_that_only_computes_ends_when_who_asked_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (bench, _) = bench(folder.path());
        let mut lines = Vec::new();
        let asked = serde_json::to_value(Request::Verify { replay: false }).unwrap();
        answer(&bench, asked, &mut |line| {
            lines.push(line.to_string());
            ControlFlow::Break(())
        });
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("nobody waits"), "{lines:?}");
    }
}
