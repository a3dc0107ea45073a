//! People with numbers, and messages to and from them. A message that was sent stays sent.

use serde_json::{Value, json};

use super::{Api, plain, unordered};
use crate::schema::{Arguments, Function, Kind, Parameter, changes, reads, required};

const NAME: Parameter = required("name", Kind::Text);
const NUMBER: Parameter = required("number", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 4] = [
    reads("find_contact", "a person's number", &[NAME]),
    reads("read_message", "the last message from a person", &[NAME]),
    changes(
        "send_message",
        "sends a text to a number",
        &[NUMBER, required("text", Kind::Text)],
    ),
    changes("add_contact", "saves a person's number", &[NAME, NUMBER]),
];

/// A person.
#[derive(Clone, Debug)]
pub struct Person {
    /// Unique.
    pub name: String,
    /// For example `555-0142`.
    pub number: String,
    /// The last message from this person, where there is one.
    pub message: Option<String>,
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Contacts {
    people: Vec<Person>,
    sent: Vec<(String, String)>,
}

impl Contacts {
    /// These people, and nothing sent yet.
    pub fn new(people: Vec<Person>) -> Self {
        Self {
            people,
            ..Self::default()
        }
    }

    fn person(&self, name: &str) -> Result<&Person, String> {
        let person = self
            .people
            .iter()
            .find(|person| plain(&person.name) == plain(name));
        person.ok_or_else(|| format!("there is no contact `{name}`"))
    }
}

/// Whether this is written like a number: three digits, a hyphen, four digits.
fn is_number(text: &str) -> bool {
    let digits =
        |part: &str, count| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('-')
        .is_some_and(|(area, line)| digits(area, 3) && digits(line, 4))
}

impl Api for Contacts {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        let (name, number) = (given.text("name"), given.text("number"));
        match function {
            "find_contact" => {
                let person = self.person(name)?;
                Ok(json!({"name": person.name, "number": person.number}))
            }
            "read_message" => {
                let person = self.person(name)?;
                let message = person.message.as_deref();
                let message =
                    message.ok_or_else(|| format!("there is no message from {}", person.name))?;
                Ok(json!({"from": person.name, "text": message}))
            }
            _ if !is_number(number) => Err(format!(
                "`{number}` is no number; one is written like 555-0100"
            )),
            "send_message" => {
                self.sent
                    .push((number.to_owned(), given.text("text").to_owned()));
                Ok(json!({"sent_to": number}))
            }
            _ => {
                if let Ok(person) = self.person(name) {
                    return Err(format!(
                        "{} is there already, with {}",
                        person.name, person.number
                    ));
                }
                self.people.push(Person {
                    name: name.to_owned(),
                    number: number.to_owned(),
                    message: None,
                });
                Ok(json!({"added": name}))
            }
        }
    }

    fn canonical(&self) -> Value {
        let people = self
            .people
            .iter()
            .map(|person| json!([plain(&person.name), person.number]));
        let sent = self
            .sent
            .iter()
            .map(|(number, text)| json!([number, plain(text)]));
        json!([unordered(people), unordered(sent)])
    }
}
