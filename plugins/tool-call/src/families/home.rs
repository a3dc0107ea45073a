//! Light and warmth.

use serde_json::json;

use super::words::{DOORS, ROOMS};
use crate::{
    apis::{World, home::Home},
    draw::Draw,
    plan::Plan,
};

/// `home-set`.
pub(super) fn set(draw: &mut Draw, difficulty: u8) -> Plan {
    let room = draw.noun(&ROOMS);
    let others = draw.others(&ROOMS, &[room], 2);
    let doors = draw.others(&DOORS, &[], 2);
    // The room in question is the coldest and the darkest, so that every request changes something.
    let degrees = draw.whole(20, 26);
    let rooms = vec![
        (room.to_owned(), draw.whole(0, 9), draw.whole(5, 12)),
        (others[0].to_owned(), draw.whole(0, 9), degrees),
        (others[1].to_owned(), draw.whole(0, 9), draw.whole(13, 15)),
    ];
    let rooms = draw.shuffled(rooms);
    let home = Home {
        rooms,
        doors: doors
            .iter()
            .map(|door| ((*door).to_owned(), false))
            .collect(),
    };
    let plan = Plan::new(World::Home(home));
    if difficulty == 1 {
        let level = draw.amount(10, 100);
        return plan
            .ask(draw.say([
                format!("Set the light in the {room} to {level}."),
                format!("I want {level} percent light in the {room}."),
                format!("Please make the light {level} in the {room}."),
            ]))
            .call("set_light", json!({"room": room, "level": level}));
    }
    let warm = others[0];
    let plan = plan
        .ask(draw.say([
            format!("Make the {room} as warm as the {warm}."),
            format!("Set the heating in the {room} to the degrees of the {warm}."),
        ]))
        .call("read_room", json!({"room": warm}))
        .call("set_heating", json!({"room": room, "degrees": degrees}));
    if difficulty == 2 {
        return plan;
    }
    if draw.whole(0, 1) == 0 {
        let door = doors[0];
        return plan
            .ask(draw.say([
                format!("Also lock the {door} door."),
                format!("And the {door} door should be locked."),
            ]))
            .call("set_lock", json!({"door": door, "locked": true}));
    }
    let less = draw.whole(2, 4);
    plan.ask(draw.say([
        format!("That is too warm. Make the {room} {less} degrees colder."),
        format!("Hm, {less} degrees less in the {room}, please."),
    ]))
    .call(
        "set_heating",
        json!({"room": room, "degrees": degrees - less}),
    )
}
