//! What a person does to a page, with mouse and keyboard: each gesture ends when what it led to has come.
//!
//! Input is chromium's, as trusted as a person's; scripts of ours only look at a field, select what it holds, and choose from lists,
//! whose menus belong to no page.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    connection::{Outcome, Trouble},
    keys,
    operation::{Operation, no_node},
    page::{HEIGHT, WIDTH},
};

/// Most characters to type or fill in at once.
const MOST_TEXT: usize = 10_000;

/// In how many moves a drag gets there: pages follow the moves, not only their end.
const MOVES: u32 = 8;

/// How often, ten milliseconds apart, we look whether chromium has said that something is dragged.
const LOOKS: u32 = 20;

/// Where the pointer is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pointer {
    x: f64,
    y: f64,
}

impl Default for Pointer {
    fn default() -> Self {
        Self {
            x: WIDTH / 2.0,
            y: HEIGHT / 2.0,
        }
    }
}

/// Clicks the middle of a node.
pub(super) fn click(on: &Operation<'_>, node: i64, pointer: &mut Pointer) -> Outcome<()> {
    let into_view = on.call(
        "DOM.scrollIntoViewIfNeeded",
        json!({ "backendNodeId": node }),
    );
    let quads = match into_view {
        Err(Trouble::Said(_)) => return choose_undrawn(on, node),
        outcome => {
            outcome?;
            on.call("DOM.getContentQuads", json!({ "backendNodeId": node }))
                .map_err(no_node)?
        }
    };
    let middle = quads["quads"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(middle_of)
        .next();
    match middle {
        None => choose_undrawn(on, node),
        Some(at) if is_on_page(at) => press_at(on, at, pointer),
        Some(_) => Err(Trouble::Refused(
            "it cannot be scrolled into view".to_owned(),
        )),
    }
}

/// Clicks a point.
pub(super) fn click_at(on: &Operation<'_>, at: (f64, f64), pointer: &mut Pointer) -> Outcome<()> {
    check_point(at)?;
    press_at(on, at, pointer)
}

fn press_at(on: &Operation<'_>, at: (f64, f64), pointer: &mut Pointer) -> Outcome<()> {
    (pointer.x, pointer.y) = at;
    let asked = [
        mouse(on, "mouseMoved", at, 0),
        mouse(on, "mousePressed", at, 1),
        mouse(on, "mouseReleased", at, 0),
    ];
    for waiting in asked {
        on.wait(waiting)?;
    }
    on.settle()
}

fn mouse(
    on: &Operation<'_>,
    kind: &str,
    (x, y): (f64, f64),
    buttons: u8,
) -> super::connection::Waiting {
    let button = if kind == "mouseMoved" && buttons == 0 {
        "none"
    } else {
        "left"
    };
    let event = json!({
        "type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": 1,
    });
    on.begin("Input.dispatchMouseEvent", event)
}

/// What chromium says that is being dragged. It says so beside its answers to the mouse and after them, the later the busier the machine is;
/// for a slider, which moves by the mouse alone, it never does.
fn dragged(on: &Operation<'_>) -> Option<Value> {
    for _ in 0..LOOKS {
        if let Some(data) = on.session.take_dragged() {
            return Some(data);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    on.session.take_dragged()
}

/// Drags from one point to another.
pub(super) fn drag(
    on: &Operation<'_>,
    from: (f64, f64),
    to: (f64, f64),
    pointer: &mut Pointer,
) -> Outcome<()> {
    check_point(from)?;
    check_point(to)?;
    (pointer.x, pointer.y) = to;
    let mut asked = vec![
        mouse(on, "mouseMoved", from, 0),
        mouse(on, "mousePressed", from, 1),
    ];
    for step in 1..=MOVES {
        let part = f64::from(step) / f64::from(MOVES);
        let at = (
            from.0 + (to.0 - from.0) * part,
            from.1 + (to.1 - from.1) * part,
        );
        asked.push(mouse(on, "mouseMoved", at, 1));
    }
    for waiting in asked {
        on.wait(waiting)?;
    }
    // What the page lets drag is taken over by chromium, which tells us, and waits for us to say where it goes.
    if let Some(data) = dragged(on) {
        for kind in ["dragEnter", "dragOver", "drop"] {
            let event = json!({ "type": kind, "x": to.0, "y": to.1, "data": data });
            on.call("Input.dispatchDragEvent", event)?;
        }
    }
    on.wait(mouse(on, "mouseReleased", to, 0))?;
    on.settle()
}

/// Fills a field.
pub(super) fn fill(on: &Operation<'_>, node: i64, text: &str) -> Outcome<()> {
    check_length(text)?;
    let answer = on.on_node(node, FILL, &[text])?;
    match answer.as_str() {
        Some("done") => {}
        Some("selected") if text.is_empty() => key(on, "Delete")?,
        Some("selected") => {
            on.call("Input.insertText", json!({ "text": text }))?;
        }
        _ => return Err(Trouble::Refused(refusal_in(&answer))),
    }
    on.settle()
}

/// An option of a closed list is not drawn, and yet to be had.
fn choose_undrawn(on: &Operation<'_>, node: i64) -> Outcome<()> {
    let answer = on.on_node(node, CHOOSE, &[])?;
    match answer.as_str() {
        Some("done") => on.settle(),
        _ => Err(Trouble::Refused(refusal_in(&answer))),
    }
}

/// Why a script of ours would not: the words are the page's if it meddled.
fn refusal_in(answer: &Value) -> String {
    let why = answer["refused"].as_str().unwrap_or("it is no field");
    why.chars().take(1_000).collect()
}

/// Types text.
pub(super) fn type_text(on: &Operation<'_>, text: &str) -> Outcome<()> {
    check_length(text)?;
    let mut asked = Vec::new();
    for character in text.chars() {
        let name = match character {
            '\n' => "Enter".to_owned(),
            '\r' => continue,
            '\t' => "Tab".to_owned(),
            other => other.to_string(),
        };
        if character.is_ascii() {
            let Some(events) = keys::events(&name) else {
                continue;
            };
            asked.extend(events.map(|event| on.begin("Input.dispatchKeyEvent", event)));
        } else {
            // As from an input method: no key has it.
            asked.push(on.begin("Input.insertText", json!({ "text": name })));
        }
    }
    for waiting in asked {
        on.wait(waiting)?;
    }
    on.settle()
}

/// Presses a key.
pub(super) fn press(on: &Operation<'_>, name: &str) -> Outcome<()> {
    key(on, name)?;
    on.settle()
}

fn key(on: &Operation<'_>, name: &str) -> Outcome<()> {
    let Some(events) = keys::events(name) else {
        let why = "there is no such key; keys have their DOM names: `Enter`, `ArrowDown`, `a`";
        return Err(Trouble::Refused(why.to_owned()));
    };
    let asked = events.map(|event| on.begin("Input.dispatchKeyEvent", event));
    for waiting in asked {
        on.wait(waiting)?;
    }
    Ok(())
}

/// Turns the wheel.
pub(super) fn scroll(on: &Operation<'_>, by: (f64, f64), pointer: Pointer) -> Outcome<()> {
    if !(by.0.abs() <= 1e6 && by.1.abs() <= 1e6) {
        let why = "that is more than a million pixels, or no number".to_owned();
        return Err(Trouble::Refused(why));
    }
    let event = json!({
        "type": "mouseWheel", "x": pointer.x, "y": pointer.y, "deltaX": by.0, "deltaY": by.1,
    });
    on.call("Input.dispatchMouseEvent", event)?;
    // The wheel is answered before the page has moved.
    on.until_drawn()?;
    on.settle()
}

fn is_on_page((x, y): (f64, f64)) -> bool {
    (0.0..WIDTH).contains(&x) && (0.0..HEIGHT).contains(&y)
}

fn check_point(at: (f64, f64)) -> Outcome<()> {
    if is_on_page(at) {
        return Ok(());
    }
    let (x, y) = at;
    Err(Trouble::Refused(format!(
        "{x}, {y} is not on the page, which is {WIDTH} by {HEIGHT}"
    )))
}

fn check_length(text: &str) -> Outcome<()> {
    let length = text.chars().count();
    if length > MOST_TEXT {
        return Err(Trouble::Refused(format!(
            "it has {length} characters, more than {MOST_TEXT}"
        )));
    }
    Ok(())
}

/// The middle of a quadrilateral that has a size.
fn middle_of(quad: &Value) -> Option<(f64, f64)> {
    let at: Vec<f64> = quad.as_array()?.iter().filter_map(Value::as_f64).collect();
    let [ax, ay, bx, by, cx, cy, dx, dy] = at[..] else {
        return None;
    };
    let area = ((cx - ax) * (dy - by) - (dx - bx) * (cy - ay)).abs() / 2.0;
    (area > 0.0).then_some(((ax + bx + cx + dx) / 4.0, (ay + by + cy + dy) / 4.0))
}

/// Makes a field ready for text (`selected`), or, where a person would use a picker or a menu, does it (`done`).
const FILL: &str = r"function (text) {
    const no = refused => ({ refused });
    const element = this.nodeType === 1 ? this : this.parentElement;
    if (!element || !element.isConnected) return no('the node is no longer on the page; read the tree again');
    const field = element.closest('input, textarea, select') || element;
    if (field.disabled) return no('it is disabled');
    if (field.readOnly) return no('it is only to be read');
    const tell = () => {
        field.dispatchEvent(new Event('input', { bubbles: true }));
        field.dispatchEvent(new Event('change', { bubbles: true }));
        return 'done';
    };
    if (field.localName === 'select') {
        const wanted = text.trim();
        const texts = [...field.options].map(option => (option.label || option.text).trim());
        const at = texts.findIndex((text, i) => text === wanted || field.options[i].text.trim() === wanted);
        if (at < 0) return no('it has no choice with that text, but: ' + texts.slice(0, 20).join(', '));
        if (field.options[at].disabled) return no('that choice is disabled');
        field.focus();
        field.selectedIndex = at;
        return tell();
    }
    if (field.localName === 'input') {
        if (['checkbox', 'radio', 'button', 'submit', 'reset', 'image', 'file', 'hidden'].includes(field.type))
            return no('it is of the type ' + field.type + ' and holds no text; click it');
        if (['date', 'time', 'month', 'week', 'datetime-local', 'color', 'range'].includes(field.type)) {
            const before = field.value;
            field.focus();
            field.value = text;
            if (field.value !== text) {
                field.value = before;
                return no('it is of the type ' + field.type + ', which does not take that text');
            }
            return tell();
        }
    }
    if (field.localName === 'input' || field.localName === 'textarea') {
        field.focus();
        field.select();
        return 'selected';
    }
    if (element.isContentEditable) {
        let root = element;
        while (root.parentElement && root.parentElement.isContentEditable) root = root.parentElement;
        root.focus();
        getSelection().selectAllChildren(root);
        return 'selected';
    }
    return no('it is no field');
}";

const CHOOSE: &str = r"function () {
    const no = refused => ({ refused });
    const element = this.nodeType === 1 ? this : this.parentElement;
    if (!element || !element.isConnected) return no('the node is no longer on the page; read the tree again');
    const option = element.closest('option');
    const list = option && option.closest('select');
    if (!list) return no('it is not drawn on the page');
    if (list.disabled || option.disabled) return no('it is disabled');
    list.focus();
    if (list.multiple) option.selected = !option.selected;
    else list.selectedIndex = option.index;
    list.dispatchEvent(new Event('input', { bubbles: true }));
    list.dispatchEvent(new Event('change', { bubbles: true }));
    return 'done';
}";
