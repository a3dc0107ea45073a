//! Typed signatures of functions: the short form, the JSON Schema, and the check of arguments.
//!
//! A check says what is wrong with one argument in words that a model can act on. Does not know what a function does; preconditions are
//! the APIs' own business ([`crate::apis`]).

use serde_json::{Map, Value, json};

/// Longest text of an argument, in characters.
pub const TEXT_CHARS: usize = 300;

/// The days of a week, as every API writes them.
pub const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// The type of a parameter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    /// A text that is not empty.
    Text,
    /// A whole number in a range, both ends included.
    Whole(i32, i32),
    /// A number of at most a million, either sign.
    Number,
    /// True or false.
    Flag,
    /// One of these texts; the label names them in the short form.
    Choice(&'static str, &'static [&'static str]),
}

/// A parameter of a function.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether a call has to give it.
    pub required: bool,
}

/// A function of an API.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a few words.
    pub doc: &'static str,
    /// What it takes.
    pub parameters: &'static [Parameter],
    /// Whether it is there to change the state; the others only read.
    pub changes: bool,
}

/// A parameter that has to be given.
pub const fn required(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        required: true,
    }
}

/// A parameter that may be left out.
pub const fn optional(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        required: false,
    }
}

/// A function that only reads.
pub const fn reads(
    name: &'static str,
    doc: &'static str,
    parameters: &'static [Parameter],
) -> Function {
    Function {
        name,
        doc,
        parameters,
        changes: false,
    }
}

/// A function that changes the state.
pub const fn changes(
    name: &'static str,
    doc: &'static str,
    parameters: &'static [Parameter],
) -> Function {
    Function {
        name,
        doc,
        parameters,
        changes: true,
    }
}

/// A parameter that is one of the days of the week.
pub const fn day(name: &'static str) -> Parameter {
    required(name, Kind::Choice("weekday", &WEEKDAYS))
}

/// Greatest absolute value of a [`Kind::Number`].
const GREATEST: f64 = 1e6;

impl Kind {
    fn short(self) -> String {
        match self {
            Kind::Text => "text".into(),
            Kind::Whole(least, most) => format!("{least}-{most}"),
            Kind::Number => "number".into(),
            Kind::Flag => "true or false".into(),
            Kind::Choice(label, _) => label.into(),
        }
    }

    fn json_schema(self) -> Value {
        match self {
            Kind::Text => json!({"type": "string", "minLength": 1, "maxLength": TEXT_CHARS}),
            Kind::Whole(least, most) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Kind::Number => json!({"type": "number", "minimum": -GREATEST, "maximum": GREATEST}),
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Choice(_, options) => json!({"type": "string", "enum": options}),
        }
    }

    /// The argument, when the value is of this type.
    fn read(self, name: &str, value: &Value) -> Result<Argument, String> {
        let wrong = |wanted: &str| {
            let found = kind_of(value);
            Err(format!(
                "wrong-type: `{name}` has to be {wanted}, and it is {found}"
            ))
        };
        let outside = |wanted: &str| Err(format!("out-of-range: `{name}` has to be {wanted}"));
        match self {
            Kind::Text => match value.as_str().map(str::trim) {
                None => wrong("a text"),
                Some("") => outside("a text that is not empty"),
                Some(text) if text.chars().count() > TEXT_CHARS => {
                    outside(&format!("at most {TEXT_CHARS} characters"))
                }
                Some(text) => Ok(Argument::Text(text.to_owned())),
            },
            Kind::Whole(least, most) => match value.as_f64() {
                Some(number) if number.fract() == 0.0 => match whole(number) {
                    Some(number) if (least..=most).contains(&number) => Ok(Argument::Whole(number)),
                    _ => outside(&format!("from {least} to {most}")),
                },
                _ => wrong("a whole number"),
            },
            Kind::Number => match value.as_f64() {
                None => wrong("a number"),
                Some(number) if number.abs() > GREATEST => outside("a number of at most a million"),
                Some(number) => Ok(Argument::Number(number)),
            },
            Kind::Flag => match value.as_bool() {
                None => wrong("true or false"),
                Some(flag) => Ok(Argument::Flag(flag)),
            },
            Kind::Choice(_, options) => match value.as_str().map(str::trim) {
                None => wrong("a text"),
                Some(text) => options
                    .iter()
                    .find(|option| option.eq_ignore_ascii_case(text))
                    .map(|option| Argument::Text((*option).to_owned()))
                    .ok_or_else(|| {
                        format!(
                            "out-of-range: `{name}` has to be one of {}",
                            options.join(", ")
                        )
                    }),
            },
        }
    }
}

/// A number without a fraction, where 32 bits hold it.
fn whole(number: f64) -> Option<i32> {
    format!("{number}").parse().ok()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl Function {
    /// The short form: `add_event(title: text, day: weekday, hour: 8-18)`.
    pub fn signature(&self) -> String {
        let parameter = |parameter: &Parameter| {
            let mark = if parameter.required { "" } else { "?" };
            format!("{}{mark}: {}", parameter.name, parameter.kind.short())
        };
        let parameters: Vec<_> = self.parameters.iter().map(parameter).collect();
        format!("{}({})", self.name, parameters.join(", "))
    }

    /// The JSON Schema of its arguments.
    pub fn json_schema(&self) -> Value {
        let properties: Map<_, _> = self
            .parameters
            .iter()
            .map(|parameter| (parameter.name.to_owned(), parameter.kind.json_schema()))
            .collect();
        let required: Vec<_> = self
            .parameters
            .iter()
            .filter(|parameter| parameter.required)
            .map(|parameter| parameter.name)
            .collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    /// Checks the arguments of a call.
    ///
    /// # Errors
    /// What is wrong with the first of them that is wrong, for the model: `unknown-argument`, `missing-argument`, `wrong-type` or
    /// `out-of-range`.
    pub fn check(&self, arguments: &Map<String, Value>) -> Result<Arguments, String> {
        let known = |name: &str| {
            self.parameters
                .iter()
                .any(|parameter| parameter.name == name)
        };
        if let Some(unknown) = arguments.keys().find(|name| !known(name)) {
            let unknown: String = unknown.chars().take(40).collect();
            let signature = self.signature();
            return Err(format!(
                "unknown-argument: `{unknown}` is none of {signature}"
            ));
        }
        let mut read = Vec::new();
        for parameter in self.parameters {
            match arguments.get(parameter.name) {
                None if parameter.required => {
                    let name = parameter.name;
                    let signature = self.signature();
                    return Err(format!(
                        "missing-argument: `{name}` is needed in {signature}"
                    ));
                }
                None => {}
                Some(Value::Null) if !parameter.required => {}
                Some(value) => {
                    read.push((parameter.name, parameter.kind.read(parameter.name, value)?));
                }
            }
        }
        Ok(Arguments(read))
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Argument {
    Text(String),
    Whole(i32),
    Number(f64),
    Flag(bool),
}

/// Arguments that passed [`Function::check`]. A getter of a name or a type that the function does not declare gives the type's empty
/// value.
#[derive(Clone, PartialEq, Debug)]
pub struct Arguments(Vec<(&'static str, Argument)>);

impl Arguments {
    fn get(&self, name: &str) -> Option<&Argument> {
        let argument = self.0.iter().find(|(given, _)| *given == name);
        argument.map(|(_, argument)| argument)
    }

    /// A text or a choice; empty where an optional one was left out.
    pub fn text(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Argument::Text(text)) => text,
            _ => "",
        }
    }

    /// A whole number.
    pub fn whole(&self, name: &str) -> i32 {
        match self.get(name) {
            Some(Argument::Whole(number)) => *number,
            _ => 0,
        }
    }

    /// A number.
    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Argument::Number(number)) => *number,
            _ => 0.0,
        }
    }

    /// True or false.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Argument::Flag(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: Function = changes(
        "book",
        "books",
        &[
            required("title", Kind::Text),
            day("day"),
            required("hour", Kind::Whole(8, 18)),
            required("price", Kind::Number),
            optional("open", Kind::Flag),
        ],
    );

    fn check(arguments: &str) -> Result<Arguments, String> {
        let value: Value = serde_json::from_str(arguments).unwrap();
        BOOK.check(value.as_object().unwrap())
    }

    #[test]
    fn good_arguments_are_read_by_their_types() {
        let read = check(r#"{"title":" Tea ","day":"monday","hour":9.0,"price":2,"open":true}"#);
        let read = read.unwrap();
        assert_eq!((read.text("title"), read.text("day")), ("Tea", "Monday"));
        assert_eq!((read.whole("hour"), read.number("price")), (9, 2.0));
        assert!(read.flag("open"));
        let without = r#"{"title":"Tea","day":"Monday","hour":9,"price":2,"open":null}"#;
        assert!(!check(without).unwrap().flag("open"));
    }

    #[test]
    fn every_mistake_is_named() {
        let table = [
            (r#"{}"#, "missing-argument: `title` is needed in book("),
            (
                r#"{"titel":"x"}"#,
                "unknown-argument: `titel` is none of book(title: text, day: weekday, hour: 8-18, price: number, open?: true or false)",
            ),
            (
                r#"{"title":7}"#,
                "wrong-type: `title` has to be a text, and it is a number",
            ),
            (
                r#"{"title":null}"#,
                "wrong-type: `title` has to be a text, and it is null",
            ),
            (
                r#"{"title":" "}"#,
                "out-of-range: `title` has to be a text that is not empty",
            ),
            (
                r#"{"title":"x","day":"Mon"}"#,
                "out-of-range: `day` has to be one of Monday, Tuesday",
            ),
            (
                r#"{"title":"x","day":1}"#,
                "wrong-type: `day` has to be a text",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":"9"}"#,
                "wrong-type: `hour` has to be a whole number, and it is a text",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":9.5}"#,
                "wrong-type: `hour` has to be a whole number, and it is a number with a fraction",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":19}"#,
                "out-of-range: `hour` has to be from 8 to 18",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":1e300}"#,
                "out-of-range: `hour` has to be from 8 to 18",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":9,"price":[1]}"#,
                "wrong-type: `price` has to be a number, and it is a list",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":9,"price":1e7}"#,
                "out-of-range: `price`",
            ),
            (
                r#"{"title":"x","day":"Monday","hour":9,"price":1,"open":"yes"}"#,
                "wrong-type: `open` has to be true or false, and it is a text",
            ),
        ];
        for (arguments, expected) in table {
            let error = check(arguments).unwrap_err();
            assert!(error.starts_with(expected), "{arguments}: {error}");
        }
        let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(TEXT_CHARS + 1));
        assert!(
            check(&long)
                .unwrap_err()
                .starts_with("out-of-range: `title`")
        );
    }

    #[test]
    fn the_json_schema_says_the_same_as_the_check() {
        let schema = BOOK.json_schema();
        assert_eq!(schema["required"], json!(["title", "day", "hour", "price"]));
        assert_eq!(schema["properties"]["hour"]["maximum"], 18);
        assert_eq!(schema["properties"]["day"]["enum"][6], "Sunday");
        assert_eq!(schema["additionalProperties"], false);
    }
}
