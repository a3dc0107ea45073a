//! What was found, as a table and as JSON.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::OnPolicy;
use super::found::{Found, Mismatch, Row};
use crate::config::Dtype;
use crate::host::Loaded;

/// `--json`: a contract.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    model: &'a str,
    device: &'static str,
    dtype: Dtype,
    seed: u64,
    /// Sampled tokens whose log-probs were compared with training's.
    tokens: u64,
    /// Log-probs compared, those of further comparisons of the same tokens included.
    compared: u64,
    mismatched: u64,
    reused_prompt_tokens: u64,
    variations: &'a [Row],
    first: &'a [Mismatch],
}

pub(super) fn json<'a>(loaded: &'a Loaded, args: &OnPolicy, found: &'a Found) -> Report<'a> {
    Report {
        model: &loaded.name,
        device: device(loaded),
        dtype: dtype(loaded, args),
        seed: args.seed,
        tokens: found.tokens,
        compared: found.compared,
        mismatched: found.mismatched,
        reused_prompt_tokens: found.reused,
        variations: &found.rows,
        first: &found.first,
    }
}

fn device(loaded: &Loaded) -> &'static str {
    if loaded.model.is_on_gpu() {
        "gpu"
    } else {
        "cpu"
    }
}

/// On a GPU weights are bf16, whatever was asked for.
fn dtype(loaded: &Loaded, args: &OnPolicy) -> Dtype {
    if loaded.model.is_on_gpu() {
        Dtype::Bf16
    } else {
        args.dtype
    }
}

pub(super) fn page(loaded: &Loaded, args: &OnPolicy, found: &Found) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["varied", "", "tokens", "mismatched"]);
    let mut before = "";
    for row in &found.rows {
        let variation = if row.variation == before {
            ""
        } else {
            row.variation
        };
        before = row.variation;
        let [tokens, mismatched] = [row.tokens, row.mismatched].map(|n| n.to_string());
        table.add_row([variation, &row.value, &tokens, &mismatched]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut lines: Vec<String> = (table.to_string().lines())
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.push(String::new());
    let dtype = match dtype(loaded, args) {
        Dtype::Bf16 => "bf16",
        Dtype::F32 => "f32",
        Dtype::Q8 => "q8",
        Dtype::Bf16Pairs => "bf16-pairs",
    };
    lines.push(format!(
        "{}, {dtype} on the {}: {} tokens were sampled and trained, {} log-probs compared, {} mismatched; \
         {} prompt tokens came from the prefix cache",
        loaded.name, device(loaded), found.tokens, found.compared, found.mismatched, found.reused
    ));
    for Mismatch {
        setting,
        request,
        at,
        token,
        served,
        trained,
    } in &found.first
    {
        lines.push(format!(
            "  token {token} at {at} of reply {request} ({} threads, {} prompt rows, {} at once): \
             served {served:?} ({:08x}), trained {trained:?} ({:08x})",
            setting.threads,
            setting.prompt_rows,
            setting.requests,
            served.to_bits(),
            trained.to_bits()
        ));
    }
    lines.join("\n") + "\n"
}
