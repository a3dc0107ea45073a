//! Numbers of people, and messages to them.

use serde_json::json;

use super::words::{MESSAGES, PEOPLE, SURNAMES};
use crate::{
    apis::{
        World,
        contacts::{Contacts, Person},
    },
    draw::Draw,
    plan::Plan,
};

/// People with different numbers, each with a message; the first two are what the task is about.
fn people(draw: &mut Draw) -> (Contacts, Vec<Person>) {
    let first = draw.noun(&PEOPLE);
    let others = draw.others(&PEOPLE, &[first], 3);
    let messages = draw.others(&MESSAGES, &[], 4);
    let base = draw.whole(1000, 8000);
    let surnames = draw.others(&SURNAMES, &[], 4);
    let person = |(place, name): (usize, &str)| Person {
        name: format!("{name} {}", surnames[place]),
        number: format!("555-{}", base + 137 * i32::try_from(place).unwrap_or(0)),
        message: messages.get(place).map(|message| (*message).to_owned()),
    };
    let names = [first].into_iter().chain(others);
    let cast: Vec<_> = names.enumerate().map(person).collect();
    let people = draw.shuffled(cast.clone());
    (Contacts::new(people), cast)
}

/// `message-send`.
pub(super) fn send(draw: &mut Draw, difficulty: u8) -> Plan {
    let (contacts, cast) = people(draw);
    let text = draw.noun(&MESSAGES);
    let (first, second) = (&cast[0], &cast[1]);
    let plan = Plan::new(World::Contacts(contacts));
    if difficulty == 1 {
        let number = &first.number;
        return plan
            .ask(draw.say([
                format!("Send \"{text}\" to the number {number}."),
                format!("Text the number {number}: \"{text}\""),
            ]))
            .call("send_message", json!({"number": number, "text": text}));
    }
    let plan = plan
        .ask(draw.say([
            format!("Send \"{text}\" to {}.", first.name),
            format!("Text {}: \"{text}\"", first.name),
            format!("{} should get this message: \"{text}\"", first.name),
        ]))
        .call("find_contact", json!({"name": first.name}))
        .call(
            "send_message",
            json!({"number": first.number, "text": text}),
        );
    if difficulty == 2 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Send the same to {}.", second.name),
        format!("{} should know, too. Send the same message.", second.name),
    ]))
    .call("find_contact", json!({"name": second.name}))
    .call(
        "send_message",
        json!({"number": second.number, "text": text}),
    )
}

/// `contact-find`.
pub(super) fn find(draw: &mut Draw, difficulty: u8) -> Plan {
    let (contacts, cast) = people(draw);
    // No surname of the list, so that nobody of this name is there.
    let new = format!("{} Moor", draw.pick(&PEOPLE));
    let (first, second) = (&cast[0], &cast[1]);
    let plan = Plan::new(World::Contacts(contacts));
    if difficulty == 2 {
        let text = first.message.clone().unwrap_or_default();
        return plan
            .ask(draw.say([
                format!(
                    "Forward the last message from {} to {}.",
                    first.name, second.name
                ),
                format!(
                    "What {} wrote last should go to {}, too. Send it.",
                    first.name, second.name
                ),
            ]))
            .call("read_message", json!({"name": first.name}))
            .call("find_contact", json!({"name": second.name}))
            .call(
                "send_message",
                json!({"number": second.number, "text": text}),
            );
    }
    let rivals = cast[1..].iter().map(|person| person.number.clone());
    let plan = plan
        .ask(draw.say([
            format!("What is the number of {}?", first.name),
            format!("Please tell me {}'s number.", first.name),
        ]))
        .call("find_contact", json!({"name": first.name}))
        .answer(&first.number, rivals.collect());
    if difficulty == 1 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Save that number for {new}, too."),
        format!("{new} has the same number. Add {new} to my contacts."),
    ]))
    .call("add_contact", json!({"name": new, "number": first.number}))
}
