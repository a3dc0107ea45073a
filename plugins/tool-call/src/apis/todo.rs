//! Lists of things to do.

use serde_json::{Value, json};

use super::{Api, plain, unordered};
use crate::schema::{Arguments, Function, Kind, Parameter, changes, optional, reads, required};

const ID: Parameter = required("id", Kind::Whole(1, 999));
const TEXT: Parameter = required("text", Kind::Text);
const LIST: Parameter = required("list", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 6] = [
    reads("list_todos", "the todos on a list", &[LIST]),
    reads("find_todo", "a todo's id and list", &[TEXT]),
    changes(
        "add_todo",
        "adds a todo",
        &[
            LIST,
            TEXT,
            optional(
                "priority",
                Kind::Choice("low, normal or high", &["low", "normal", "high"]),
            ),
        ],
    ),
    changes("move_todo", "puts a todo on another list", &[ID, LIST]),
    changes("complete_todo", "marks a todo as done", &[ID]),
    changes("delete_todo", "removes a todo", &[ID]),
];

#[derive(Clone, Debug)]
struct Item {
    id: i32,
    list: String,
    text: String,
    priority: String,
    done: bool,
}

impl Item {
    fn shown(&self) -> Value {
        json!({"id": self.id, "list": self.list, "text": self.text, "priority": self.priority, "done": self.done})
    }
}

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Todo {
    /// The lists' names; there are no others.
    lists: Vec<String>,
    items: Vec<Item>,
    last_id: i32,
}

impl Todo {
    /// These lists, with nothing on them.
    pub fn new(lists: &[&str]) -> Self {
        Self {
            lists: lists.iter().map(|list| (*list).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Adds something to do; gives its number.
    pub fn add(&mut self, list: &str, text: &str, priority: &str) -> i32 {
        self.last_id += 1;
        self.items.push(Item {
            id: self.last_id,
            list: list.to_owned(),
            text: text.to_owned(),
            priority: if priority.is_empty() {
                "normal"
            } else {
                priority
            }
            .to_owned(),
            done: false,
        });
        self.last_id
    }

    fn list(&self, name: &str) -> Result<String, String> {
        let list = self.lists.iter().find(|list| plain(list) == plain(name));
        list.cloned().ok_or_else(|| {
            format!(
                "there is no list `{name}`; there are {}",
                self.lists.join(", ")
            )
        })
    }

    fn place(&self, id: i32) -> Result<usize, String> {
        let place = self.items.iter().position(|item| item.id == id);
        place.ok_or_else(|| format!("there is no todo {id}"))
    }
}

impl Api for Todo {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        let (id, text) = (given.whole("id"), given.text("text"));
        match function {
            "list_todos" => {
                let list = self.list(given.text("list"))?;
                let items = self.items.iter().filter(|item| item.list == list);
                Ok(json!({"todos": items.map(Item::shown).collect::<Vec<_>>()}))
            }
            "find_todo" => {
                let item = self
                    .items
                    .iter()
                    .find(|item| plain(&item.text) == plain(text));
                item.map(Item::shown)
                    .ok_or_else(|| format!("there is no todo `{text}`"))
            }
            "add_todo" => {
                let list = self.list(given.text("list"))?;
                Ok(json!({"id": self.add(&list, text, given.text("priority"))}))
            }
            "move_todo" => {
                let list = self.list(given.text("list"))?;
                let place = self.place(id)?;
                self.items[place].list = list;
                Ok(self.items[place].shown())
            }
            "complete_todo" => {
                let place = self.place(id)?;
                self.items[place].done = true;
                Ok(self.items[place].shown())
            }
            _ => {
                let gone = self.items.remove(self.place(id)?);
                Ok(json!({"deleted": gone.text}))
            }
        }
    }

    fn canonical(&self) -> Value {
        let items = self.items.iter();
        unordered(items.map(|item| json!([item.list, plain(&item.text), item.priority, item.done])))
    }
}
