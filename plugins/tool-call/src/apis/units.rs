//! Arithmetic, conversion of units, and numbers that are saved by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Api, number, plain};
use crate::schema::{Arguments, Function, Kind, Parameter, changes, reads, required};

/// Units: the name, what it measures, and how many of the smallest unit of its kind it is.
pub const UNITS: [(&str, &str, i32); 9] = [
    ("km", "length", 100_000),
    ("m", "length", 100),
    ("cm", "length", 1),
    ("kg", "weight", 1_000),
    ("g", "weight", 1),
    ("days", "time", 86_400),
    ("hours", "time", 3_600),
    ("minutes", "time", 60),
    ("seconds", "time", 1),
];

const NAMES: [&str; 9] = [
    "km", "m", "cm", "kg", "g", "days", "hours", "minutes", "seconds",
];
const UNIT: Kind = Kind::Choice("unit", &NAMES);
const A: Parameter = required("a", Kind::Number);
const B: Parameter = required("b", Kind::Number);
const NAME: Parameter = required("name", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 5] = [
    reads(
        "convert",
        "converts (km, m, cm, kg, g, days, hours, minutes, seconds)",
        &[
            required("value", Kind::Number),
            required("from", UNIT),
            required("to", UNIT),
        ],
    ),
    reads("add", "a plus b", &[A, B]),
    reads("multiply", "a times b", &[A, B]),
    changes(
        "save",
        "saves a number under a name",
        &[NAME, required("value", Kind::Number)],
    ),
    reads("recall", "a saved number", &[NAME]),
];

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// Saved numbers by name.
    pub saved: BTreeMap<String, f64>,
}

fn unit(name: &str) -> Option<(&'static str, f64)> {
    let unit = UNITS.iter().find(|unit| unit.0 == name)?;
    Some((unit.1, f64::from(unit.2)))
}

fn convert(given: &Arguments) -> Result<Value, String> {
    let (from, to) = (given.text("from"), given.text("to"));
    match (unit(from), unit(to)) {
        (Some(one), Some(other)) if one.0 == other.0 => {
            Ok(json!({"value": number(given.number("value") * one.1 / other.1)}))
        }
        _ => Err(format!("{from} cannot be converted to {to}")),
    }
}

impl Api for Units {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        let (a, b) = (given.number("a"), given.number("b"));
        match function {
            "convert" => convert(given),
            "add" => Ok(json!({"value": number(a + b)})),
            "multiply" => Ok(json!({"value": number(a * b)})),
            "recall" => {
                let name = given.text("name");
                let saved = self.saved.get(&plain(name)).copied().map(number);
                let value = saved.ok_or_else(|| format!("nothing is saved as `{name}`"))?;
                Ok(json!({"value": value}))
            }
            _ => {
                let (name, value) = (plain(given.text("name")), given.number("value"));
                self.saved.insert(name.clone(), value);
                Ok(json!({"saved": name, "value": number(value)}))
            }
        }
    }

    fn canonical(&self) -> Value {
        let saved = self
            .saved
            .iter()
            .map(|(name, value)| json!([name, number(*value)]));
        saved.collect()
    }
}
