//! A live host's side: operators' requests, answered line by line.

use std::sync::Arc;

use parking_lot::Mutex;
use rl::TenantId;
use serde_json::Value;
use serving::gateway::Operator;

use super::request::Request;
use super::response::{Event, Failure};
use super::run;
use super::workbench::Workbench;

/// The gateway's hook: `operators` may ask, or everybody on a host without keys.
pub fn operator(bench: Workbench) -> Operator {
    let config = bench.config();
    let (open, operators) = (config.gateway.keys.is_empty(), config.operators.clone());
    let busy = Mutex::new(());
    Operator {
        admits: Arc::new(move |tenant: &TenantId| {
            open || operators.iter().any(|name| name == tenant.as_str())
        }),
        answer: Arc::new(move |asked, line| answer(&bench, &busy, asked, line)),
    }
}

fn answer(bench: &Workbench, busy: &Mutex<()>, asked: Value, line: &mut dyn FnMut(Value)) {
    let result = serde_json::from_value::<Request>(asked)
        .map_err(|error| anyhow::anyhow!("this host cannot read the request: {error}"))
        .and_then(|request| {
            let name = request.name();
            tracing::info!(request = name, "an operator's request");
            // Replies and gradients take the cores that users are served with: one such request at a time.
            let _one = match request.is_heavy() {
                true => Some(busy.try_lock().ok_or_else(|| {
                    anyhow::anyhow!("another request computes already; `{name}` can be asked again when it is done")
                })?),
                false => None,
            };
            let mut tell = |progress| line(said(&Event::Progress(progress)));
            run(bench, request, &mut tell)
        });
    line(said(&match result {
        Ok(response) => Event::Done(Box::new(response)),
        Err(error) => Event::Error(Failure {
            message: format!("{error:#}"),
        }),
    }));
}

fn said(event: &Event) -> Value {
    serde_json::to_value(event).unwrap_or_else(|error| {
        serde_json::json!({ "error": { "message": format!("the answer cannot be written: {error}") } })
    })
}
