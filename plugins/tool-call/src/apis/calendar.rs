//! Events of one week, one an hour.

use serde_json::{Value, json};

use super::{Api, plain, unordered};
use crate::schema::{Arguments, Function, Kind, Parameter, changes, day, reads, required};

const ID: Parameter = required("id", Kind::Whole(1, 999));
const HOUR: Parameter = required("hour", Kind::Whole(8, 18));
const TITLE: Parameter = required("title", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 5] = [
    reads("list_events", "the events of a day", &[day("day")]),
    reads("find_event", "an event's id, day and hour", &[TITLE]),
    changes("add_event", "books a new event", &[TITLE, day("day"), HOUR]),
    changes(
        "move_event",
        "changes when an event is",
        &[ID, day("day"), HOUR],
    ),
    changes("cancel_event", "removes an event", &[ID]),
];

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number.
    pub id: i32,
    /// What it is.
    pub title: String,
    /// A day of the week.
    pub day: String,
    /// When it begins.
    pub hour: i32,
}

impl Event {
    fn shown(&self) -> Value {
        json!({"id": self.id, "title": self.title, "day": self.day, "hour": self.hour})
    }
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    events: Vec<Event>,
    last_id: i32,
}

impl Calendar {
    /// Adds an event without a look at the others; gives its number.
    pub fn add(&mut self, title: &str, day: &str, hour: i32) -> i32 {
        self.last_id += 1;
        self.events.push(Event {
            id: self.last_id,
            title: title.to_owned(),
            day: day.to_owned(),
            hour,
        });
        self.last_id
    }

    /// Whether nothing is at this time.
    pub fn is_free(&self, day: &str, hour: i32) -> bool {
        !self
            .events
            .iter()
            .any(|event| event.day == day && event.hour == hour)
    }

    fn free(&self, day: &str, hour: i32) -> Result<(), String> {
        let mut events = self.events.iter();
        match events.find(|event| event.day == day && event.hour == hour) {
            Some(event) => Err(format!("{day} at {hour} is taken by {}", event.title)),
            None => Ok(()),
        }
    }

    fn place(&self, id: i32) -> Result<usize, String> {
        let place = self.events.iter().position(|event| event.id == id);
        place.ok_or_else(|| format!("there is no event {id}"))
    }
}

impl Api for Calendar {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        let (title, day, hour) = (given.text("title"), given.text("day"), given.whole("hour"));
        match function {
            "list_events" => {
                let mut events: Vec<_> = self
                    .events
                    .iter()
                    .filter(|event| event.day == day)
                    .collect();
                events.sort_by_key(|event| event.hour);
                let events: Vec<_> = events.into_iter().map(Event::shown).collect();
                Ok(json!({"events": events}))
            }
            "find_event" => {
                let event = self
                    .events
                    .iter()
                    .find(|event| plain(&event.title) == plain(title));
                event
                    .map(Event::shown)
                    .ok_or_else(|| format!("there is no event `{title}`"))
            }
            "add_event" => {
                self.free(day, hour)?;
                Ok(json!({"id": self.add(title, day, hour)}))
            }
            "move_event" => {
                let place = self.place(given.whole("id"))?;
                self.free(day, hour)?;
                let event = &mut self.events[place];
                (event.day, event.hour) = (day.to_owned(), hour);
                Ok(event.shown())
            }
            _ => {
                let gone = self.events.remove(self.place(given.whole("id"))?);
                Ok(json!({"cancelled": gone.title}))
            }
        }
    }

    fn canonical(&self) -> Value {
        let events = self.events.iter();
        unordered(events.map(|event| json!([plain(&event.title), event.day, event.hour])))
    }
}
