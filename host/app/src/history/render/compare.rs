//! `diff`: two versions beside each other.

use std::fmt::Write as _;

use super::super::response::{Delta, Diff};
use super::show;

pub(super) fn page(diff: &Diff) -> String {
    let (a, b) = (&diff.a, &diff.b);
    let mut out = format!("{a} → {b}");
    if let Some(count) = diff.samples_between {
        let _ = write!(out, " · {count} samples between them");
    }
    let _ = writeln!(out, "\n\nupdate of the base weights, 2-norms");
    let _ = writeln!(
        out,
        "  {:<8} {a:>12} {b:>12} {:>12} {:>8}",
        "layer", "difference", "cosine"
    );
    let mut row = |name: &str, delta: &Delta| {
        let cosine = delta
            .cosine
            .map_or_else(|| "–".to_owned(), |x| format!("{x:.4}"));
        let _ = writeln!(
            out,
            "  {name:<8} {:>12.6} {:>12.6} {:>12.6} {cosine:>8}",
            delta.norm_a, delta.norm_b, delta.difference
        );
    };
    for (layer, delta) in diff.weights.layers.iter().enumerate() {
        row(&layer.to_string(), delta);
    }
    row("all", &diff.weights.all);
    if !diff.metrics.is_empty() {
        let _ = writeln!(out, "\nmetrics        {a:>12} {b:>12}");
    }
    for (name, (of_a, of_b)) in &diff.metrics {
        let number = |x: &Option<f64>| x.map_or_else(|| "–".to_owned(), |x| format!("{x:.5}"));
        let _ = writeln!(
            out,
            "  {name:<12} {:>12} {:>12}",
            number(of_a),
            number(of_b)
        );
    }
    if let Some(behaviour) = &diff.behaviour {
        let same = behaviour.iter().filter(|one| one.a == one.b).count();
        let _ = writeln!(
            out,
            "\nbehaviour: greedy replies, {same} of {} equal",
            behaviour.len()
        );
        out.push_str(&show::replies(behaviour, a, b));
    }
    out
}
