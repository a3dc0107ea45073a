//! Rooms with a light and a heating, and doors with locks.

use serde_json::{Value, json};

use super::{Api, plain};
use crate::schema::{Arguments, Function, Kind, Parameter, changes, reads, required};

const ROOM: Parameter = required("room", Kind::Text);

/// What can be called.
pub const FUNCTIONS: [Function; 4] = [
    reads("read_room", "light and degrees of a room", &[ROOM]),
    changes(
        "set_light",
        "sets a light in percent",
        &[ROOM, required("level", Kind::Whole(0, 100))],
    ),
    changes(
        "set_heating",
        "sets the degrees",
        &[ROOM, required("degrees", Kind::Whole(5, 30))],
    ),
    changes(
        "set_lock",
        "locks or unlocks a door",
        &[required("door", Kind::Text), required("locked", Kind::Flag)],
    ),
];

/// The state.
#[derive(Clone, Debug, Default)]
pub struct Home {
    /// Rooms: the name, the light in percent, the heating in degrees.
    pub rooms: Vec<(String, i32, i32)>,
    /// Doors, and whether they are locked.
    pub doors: Vec<(String, bool)>,
}

/// A name as far as it matters: people say `the kitchen` and `kitchen`.
fn bare(name: &str, what: &str) -> String {
    let name = plain(name);
    let name = name.strip_prefix("the ").unwrap_or(&name);
    let without = name.strip_suffix(what).unwrap_or(name);
    without.trim().to_owned()
}

impl Home {
    fn room(&mut self, name: &str) -> Result<&mut (String, i32, i32), String> {
        let names: Vec<_> = self.rooms.iter().map(|room| room.0.clone()).collect();
        let room = self
            .rooms
            .iter_mut()
            .find(|room| room.0 == bare(name, " room"));
        room.ok_or_else(|| format!("there is no room `{name}`; there are {}", names.join(", ")))
    }

    fn door(&mut self, name: &str) -> Result<&mut (String, bool), String> {
        let names: Vec<_> = self.doors.iter().map(|door| door.0.clone()).collect();
        let door = self
            .doors
            .iter_mut()
            .find(|door| door.0 == bare(name, " door"));
        door.ok_or_else(|| format!("there is no door `{name}`; there are {}", names.join(", ")))
    }
}

impl Api for Home {
    fn functions(&self) -> &'static [Function] {
        &FUNCTIONS
    }

    fn run(&mut self, function: &str, given: &Arguments) -> Result<Value, String> {
        match function {
            "read_room" => {
                let (name, light, degrees) = self.room(given.text("room"))?;
                Ok(json!({"room": name, "light": light, "degrees": degrees}))
            }
            "set_light" => {
                let room = self.room(given.text("room"))?;
                room.1 = given.whole("level");
                Ok(json!({"room": room.0, "light": room.1}))
            }
            "set_heating" => {
                let room = self.room(given.text("room"))?;
                room.2 = given.whole("degrees");
                Ok(json!({"room": room.0, "degrees": room.2}))
            }
            _ => {
                let door = self.door(given.text("door"))?;
                door.1 = given.flag("locked");
                Ok(json!({"door": door.0, "locked": door.1}))
            }
        }
    }

    fn canonical(&self) -> Value {
        json!([self.rooms, self.doors])
    }
}
