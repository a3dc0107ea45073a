//! Bookings, and what becomes of them.

use serde_json::json;

use super::words::EVENTS;
use crate::{
    apis::{World, calendar::Calendar},
    draw::Draw,
    plan::Plan,
    schema::WEEKDAYS,
};

/// A time at which nothing is; its next hour is free as well.
fn free_time(draw: &mut Draw, calendar: &Calendar, taken: &[(&str, i32)]) -> (&'static str, i32) {
    loop {
        let (day, hour) = (draw.pick(&WEEKDAYS), draw.whole(8, 17));
        let free = |hour| calendar.is_free(day, hour) && !taken.contains(&(day, hour));
        if free(hour) && free(hour + 1) {
            return (day, hour);
        }
    }
}

/// A week in which `events` are, each with an hour after it in which nothing is; and when they are.
fn week(draw: &mut Draw, events: Vec<&str>) -> (Calendar, Vec<(String, i32, &'static str, i32)>) {
    let mut calendar = Calendar::default();
    let mut taken = Vec::new();
    let mut times = Vec::new();
    for title in draw.shuffled(events) {
        let (day, hour) = free_time(draw, &calendar, &taken);
        taken.push((day, hour + 1));
        times.push((title.to_owned(), calendar.add(title, day, hour), day, hour));
    }
    (calendar, times)
}

/// `calendar-book`.
pub(super) fn book(draw: &mut Draw, difficulty: u8) -> Plan {
    let title = draw.noun(&EVENTS);
    let others = draw.others(&EVENTS, &[title], 3);
    let (calendar, times) = week(draw, others);
    if difficulty == 2 {
        let (other, _, day, hour) = times[0].clone();
        return Plan::new(World::Calendar(calendar))
            .ask(draw.say([
                format!("Book \"{title}\" on the same day as \"{other}\", one hour later."),
                format!("I have \"{other}\" this week. Put \"{title}\" one hour after it begins, on that day."),
            ]))
            .call("find_event", json!({"title": other}))
            .call("add_event", json!({"title": title, "day": day, "hour": hour + 1}));
    }
    let (day, hour) = free_time(draw, &calendar, &[]);
    let (new_day, new_hour) = free_time(draw, &calendar, &[(day, hour)]);
    let id = times.len() + 1;
    let plan = Plan::new(World::Calendar(calendar))
        .ask(draw.say([
            format!("Book \"{title}\" on {day} at {hour}."),
            format!("Please put \"{title}\" into my calendar: {day}, {hour} o'clock."),
            format!("{day} at {hour} I have \"{title}\". Add it."),
        ]))
        .call(
            "add_event",
            json!({"title": title, "day": day, "hour": hour}),
        );
    if difficulty == 1 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Sorry, I meant {new_day} at {new_hour}. Please move it."),
        format!("Wait, it is on {new_day} at {new_hour}, not on {day}. Change that."),
    ]))
    .call(
        "move_event",
        json!({"id": id, "day": new_day, "hour": new_hour}),
    )
}

/// `calendar-move`.
pub(super) fn move_or_cancel(draw: &mut Draw, difficulty: u8) -> Plan {
    let title = draw.noun(&EVENTS);
    let mut titles = draw.others(&EVENTS, &[title], 2);
    let other = titles[0];
    titles.push(title);
    let (calendar, times) = week(draw, titles);
    let id = |title: &str| {
        times
            .iter()
            .find(|time| time.0 == title)
            .map_or(0, |time| time.1)
    };
    let (id, other_id) = (id(title), id(other));
    let (day, hour) = free_time(draw, &calendar, &[]);
    let plan = Plan::new(World::Calendar(calendar));
    if difficulty == 1 {
        // The number alone names the event, and it says nothing about the split: the title is there for that.
        return plan
            .ask(draw.say([
                format!("Move event {id} (\"{title}\") to {day} at {hour}."),
                format!("\"{title}\" has the id {id}. It should be on {day} at {hour}."),
            ]))
            .call("move_event", json!({"id": id, "day": day, "hour": hour}));
    }
    let plan = plan
        .ask(draw.say([
            format!("Move \"{title}\" to {day} at {hour}."),
            format!("\"{title}\" is on {day} at {hour} now. Please change it."),
        ]))
        .call("find_event", json!({"title": title}))
        .call("move_event", json!({"id": id, "day": day, "hour": hour}));
    if difficulty == 2 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Also cancel \"{other}\"."),
        format!("And I do not need \"{other}\" any more. Cancel it."),
    ]))
    .call("find_event", json!({"title": other}))
    .call("cancel_event", json!({"id": other_id}))
}
