//! The families of tasks: what a user wants of an API, in three difficulties.
//!
//! 1: one call. 2: a value is read and used. 3: the user adds to a request, or corrects it, after it was done. A family makes a world in
//! which its reference solution works ([`crate::plan`]); it neither plays nor scores.

use crate::{draw::Draw, plan::Plan};

mod bank;
mod calendar;
mod contacts;
mod files;
mod home;
mod shop;
mod todo;
mod units;
mod words;

/// A family of tasks.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// The API that it is about, as [`crate::apis::NAMES`] has it.
    pub api: &'static str,
    /// Makes a task of a difficulty.
    pub plan: fn(&mut Draw, u8) -> Plan,
}

const fn family(name: &'static str, api: &'static str, plan: fn(&mut Draw, u8) -> Plan) -> Family {
    Family { name, api, plan }
}

/// All families.
pub const ALL: [Family; 14] = [
    family("bank-balance", "bank", bank::balance),
    family("bank-transfer", "bank", bank::transfer),
    family("calendar-book", "calendar", calendar::book),
    family("calendar-move", "calendar", calendar::move_or_cancel),
    family("contact-find", "contacts", contacts::find),
    family("message-send", "contacts", contacts::send),
    family("files-tidy", "files", files::tidy),
    family("files-write", "files", files::write),
    family("home-set", "home", home::set),
    family("shop-order", "shop", shop::order),
    family("shop-price", "shop", shop::price),
    family("todo-add", "todo", todo::add),
    family("todo-done", "todo", todo::done),
    family("units-convert", "units", units::convert),
];

/// The family of this name.
pub fn named(name: &str) -> Option<&'static Family> {
    ALL.iter().find(|family| family.name == name)
}

#[cfg(test)]
mod tests;
