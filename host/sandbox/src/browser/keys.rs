//! Keys by their DOM names, as chromium wants to hear of them.

use serde_json::{Value, json};

/// Keys that have a name: name, code, Windows' virtual key, and the text that they type.
const NAMED: [(&str, &str, u16, &str); 37] = [
    ("Enter", "Enter", 13, "\r"),
    ("Tab", "Tab", 9, ""),
    ("Escape", "Escape", 27, ""),
    ("Backspace", "Backspace", 8, ""),
    ("Delete", "Delete", 46, ""),
    ("Insert", "Insert", 45, ""),
    ("ArrowLeft", "ArrowLeft", 37, ""),
    ("ArrowUp", "ArrowUp", 38, ""),
    ("ArrowRight", "ArrowRight", 39, ""),
    ("ArrowDown", "ArrowDown", 40, ""),
    ("Home", "Home", 36, ""),
    ("End", "End", 35, ""),
    ("PageUp", "PageUp", 33, ""),
    ("PageDown", "PageDown", 34, ""),
    ("Shift", "ShiftLeft", 16, ""),
    ("Control", "ControlLeft", 17, ""),
    ("Alt", "AltLeft", 18, ""),
    ("Meta", "MetaLeft", 91, ""),
    ("CapsLock", "CapsLock", 20, ""),
    ("ContextMenu", "ContextMenu", 93, ""),
    ("Pause", "Pause", 19, ""),
    ("PrintScreen", "PrintScreen", 44, ""),
    ("ScrollLock", "ScrollLock", 145, ""),
    ("NumLock", "NumLock", 144, ""),
    ("F1", "F1", 112, ""),
    ("F2", "F2", 113, ""),
    ("F3", "F3", 114, ""),
    ("F4", "F4", 115, ""),
    ("F5", "F5", 116, ""),
    ("F6", "F6", 117, ""),
    ("F7", "F7", 118, ""),
    ("F8", "F8", 119, ""),
    ("F9", "F9", 120, ""),
    ("F10", "F10", 121, ""),
    ("F11", "F11", 122, ""),
    ("F12", "F12", 123, ""),
    (" ", "Space", 32, " "),
];

/// Keys of a US keyboard beside letters and digits: plain and with shift, code, virtual key.
const SIGNS: [(char, char, &str, u16); 11] = [
    ('-', '_', "Minus", 189),
    ('=', '+', "Equal", 187),
    ('[', '{', "BracketLeft", 219),
    (']', '}', "BracketRight", 221),
    ('\\', '|', "Backslash", 220),
    (';', ':', "Semicolon", 186),
    ('\'', '"', "Quote", 222),
    (',', '<', "Comma", 188),
    ('.', '>', "Period", 190),
    ('/', '?', "Slash", 191),
    ('`', '~', "Backquote", 192),
];

/// What the digits are with shift.
const SHIFTED_DIGITS: &str = ")!@#$%^&*(";

const SHIFT: u8 = 8;

/// The events of pressing a key, down and up; none for a key that does not exist.
pub(super) fn events(key: &str) -> Option<[Value; 2]> {
    let (code, number, text, modifiers) = match NAMED.iter().find(|(name, ..)| *name == key) {
        Some((_, code, number, text)) => ((*code).to_owned(), *number, (*text).to_owned(), 0),
        None => of_character(key)?,
    };
    let event = |kind: &str| {
        json!({
            "type": kind,
            "key": key,
            "code": code,
            "windowsVirtualKeyCode": number,
            "modifiers": modifiers,
        })
    };
    // A key that types nothing is a raw one: otherwise chromium makes up its text.
    let mut down = event(if text.is_empty() {
        "rawKeyDown"
    } else {
        "keyDown"
    });
    if !text.is_empty() {
        down["text"] = text.into();
    }
    Some([down, event("keyUp")])
}

fn of_character(key: &str) -> Option<(String, u16, String, u8)> {
    let mut characters = key.chars();
    let character = characters.next()?;
    if characters.next().is_some() || character.is_control() {
        return None;
    }
    let shift = |shifted: bool| if shifted { SHIFT } else { 0 };
    let (code, number, modifiers) = if character.is_ascii_alphabetic() {
        let upper = character.to_ascii_uppercase();
        let number = u16::try_from(u32::from(upper)).ok()?;
        (format!("Key{upper}"), number, shift(character == upper))
    } else if let Some(digit) = character.to_digit(10) {
        (format!("Digit{digit}"), 48 + u16::try_from(digit).ok()?, 0)
    } else if let Some(digit) = SHIFTED_DIGITS.find(character) {
        (
            format!("Digit{digit}"),
            48 + u16::try_from(digit).ok()?,
            SHIFT,
        )
    } else if let Some((_, shifted, code, number)) = SIGNS
        .iter()
        .find(|(plain, shifted, ..)| [*plain, *shifted].contains(&character))
    {
        ((*code).to_owned(), *number, shift(character == *shifted))
    } else {
        // On no key of this keyboard, but typed all the same.
        (String::new(), 0, 0)
    };
    Some((code, number, key.to_owned(), modifiers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_and_what_it_types() {
        for (key, code, number, text, modifiers) in [
            ("Enter", "Enter", 13, Some("\r"), 0),
            ("ArrowDown", "ArrowDown", 40, None, 0),
            ("a", "KeyA", 65, Some("a"), 0),
            ("A", "KeyA", 65, Some("A"), 8),
            ("7", "Digit7", 55, Some("7"), 0),
            ("&", "Digit7", 55, Some("&"), 8),
            ("?", "Slash", 191, Some("?"), 8),
            (" ", "Space", 32, Some(" "), 0),
            ("ä", "", 0, Some("ä"), 0),
        ] {
            let [down, up] = events(key).unwrap();
            assert_eq!(down["key"], key);
            assert_eq!(down["code"], code, "{key}");
            assert_eq!(down["windowsVirtualKeyCode"], number, "{key}");
            assert_eq!(down["modifiers"], modifiers, "{key}");
            assert_eq!(down["text"].as_str(), text, "{key}");
            assert_eq!(up["type"], "keyUp");
        }
    }

    #[test]
    fn a_key_that_does_not_exist_is_none() {
        for key in ["", "enter", "F13", "ab", "Control+a", "\0", "\n"] {
            assert!(events(key).is_none(), "{key:?}");
        }
    }
}
