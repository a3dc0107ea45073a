//! Units, sums and saved results.

use serde_json::json;

use super::words::LABELS;
use crate::{
    apis::{World, units::Units},
    draw::Draw,
    plan::Plan,
};

/// From, to, and how many of the one are one of the other.
const PAIRS: [(&str, &str, i32); 6] = [
    ("km", "m", 1_000),
    ("m", "cm", 100),
    ("kg", "g", 1_000),
    ("days", "hours", 24),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
];

/// `units-convert`.
pub(super) fn convert(draw: &mut Draw, difficulty: u8) -> Plan {
    let place = usize::try_from(draw.whole(0, 5)).unwrap_or(0);
    let (from, to, factor) = PAIRS[place];
    let value = draw.amount(3, 60);
    let result = value * factor;
    let label = draw.noun(&LABELS);
    let plan = Plan::new(World::Units(Units::default()));
    let arguments = json!({"value": value, "from": from, "to": to});
    if difficulty == 1 {
        return plan
            .ask(draw.say([
                format!("Convert {value} {from} to {to}."),
                format!("How many {to} are {value} {from}?"),
                format!("What is {value} {from} in {to}?"),
            ]))
            .call("convert", arguments)
            .answer(result, Vec::new());
    }
    let plan = plan
        .ask(draw.say([
            format!("Convert {value} {from} to {to} and save the result as \"{label}\"."),
            format!("Save under \"{label}\" how many {to} are {value} {from}."),
        ]))
        .call("convert", arguments)
        .call("save", json!({"name": label, "value": result}));
    if difficulty == 2 {
        return plan;
    }
    let more = draw.whole(2, 9);
    let sum = result + more;
    plan.ask(draw.say([
        format!(
            "Add {more} {to} to that, save the sum as \"{label}\" instead, and tell me the sum."
        ),
        format!(
            "It is {more} {to} more. Correct what is saved as \"{label}\", and say what it is now."
        ),
    ]))
    .call("add", json!({"a": result, "b": more}))
    .call("save", json!({"name": label, "value": sum}))
    .answer(sum, Vec::new())
}
