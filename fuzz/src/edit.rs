//! Spoils good guests, knowing what they are made of: sections, and the sections of the modules in them.

use arbitrary::{Result, Unstructured};
use plugin::{Manifest, World};

/// A component or a module: its header, and its sections.
struct Binary {
    header: Vec<u8>,
    sections: Vec<(u8, Body)>,
}

enum Body {
    Plain(Vec<u8>),
    Nested(Binary),
}

/// The id of a component's section that holds a core module.
const MODULE: u8 = 1;
const HEADER: usize = 8;

enum Edit {
    Byte { at: u32, value: u8 },
    Flip { at: u32, bit: u8 },
    Insert { at: u32, bytes: [u8; 4], count: u8 },
    Cut { at: u32, count: u16 },
    Copy { at: u32, from: u32, count: u8 },
    Repeat,
    Drop,
    Swap { with: u8 },
    Rename { id: u8 },
}

impl Edit {
    fn pick(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match u.int_in_range(0..=12)? {
            0..=2 => Edit::Byte {
                at: u.arbitrary()?,
                value: u.arbitrary()?,
            },
            3..=5 => Edit::Flip {
                at: u.arbitrary()?,
                bit: u.arbitrary()?,
            },
            6 => Edit::Insert {
                at: u.arbitrary()?,
                bytes: u.arbitrary()?,
                count: u.arbitrary()?,
            },
            7 => Edit::Cut {
                at: u.arbitrary()?,
                count: u.arbitrary()?,
            },
            8 => Edit::Copy {
                at: u.arbitrary()?,
                from: u.arbitrary()?,
                count: u.arbitrary()?,
            },
            9 => Edit::Repeat,
            10 => Edit::Drop,
            11 => Edit::Swap {
                with: u.arbitrary()?,
            },
            _ => Edit::Rename { id: u.arbitrary()? },
        })
    }
}

/// A shipped guest with a few edits.
///
/// # Errors
/// The fuzzer has no more to say.
pub fn guest(u: &mut Unstructured<'_>) -> Result<(World, Vec<u8>)> {
    let guest = u.choose(&bundled::ALL)?;
    let manifest = Manifest::parse(guest.manifest).expect("shipped manifests are valid");
    let mut binary = parse(guest.component, true);
    for _ in 0..u.int_in_range(1..=4)? {
        edit(&mut binary, u)?;
    }
    let mut bytes = Vec::new();
    write(&binary, &mut bytes);
    Ok((manifest.world, bytes))
}

fn edit(binary: &mut Binary, u: &mut Unstructured<'_>) -> Result<()> {
    if binary.sections.is_empty() {
        return Ok(());
    }
    let at = u.choose_index(binary.sections.len())?;
    if let Body::Nested(nested) = &mut binary.sections[at].1
        && u.ratio(7, 8)?
    {
        return edit(nested, u);
    }
    match Edit::pick(u)? {
        Edit::Drop => drop(binary.sections.remove(at)),
        Edit::Swap { with } => {
            let with = usize::from(with) % binary.sections.len();
            binary.sections.swap(at, with);
        }
        Edit::Rename { id } => binary.sections[at].0 = id % 13,
        Edit::Repeat => {
            let (id, mut bytes) = (binary.sections[at].0, Vec::new());
            body(&binary.sections[at].1, &mut bytes);
            binary.sections.insert(at, (id, Body::Plain(bytes)));
        }
        inside => {
            let mut bytes = Vec::new();
            body(&binary.sections[at].1, &mut bytes);
            change(&inside, &mut bytes);
            binary.sections[at].1 = Body::Plain(bytes);
        }
    }
    Ok(())
}

fn change(edit: &Edit, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    let place = |at: u32| at as usize % len.max(1);
    match *edit {
        _ if len == 0 => {}
        Edit::Byte { at, value } => bytes[place(at)] = value,
        Edit::Flip { at, bit } => bytes[place(at)] ^= 1 << (bit % 8),
        Edit::Insert {
            at,
            bytes: new,
            count,
        } => {
            let new = new.into_iter().take(usize::from(count % 5));
            bytes.splice(place(at)..place(at), new);
        }
        Edit::Cut { at, count } => {
            let end = (place(at) + usize::from(count)).min(len);
            bytes.drain(place(at)..end);
        }
        Edit::Copy { at, from, count } => {
            let end = (place(from) + usize::from(count)).min(len);
            let copied = bytes[place(from)..end].to_vec();
            bytes.splice(place(at)..place(at), copied);
        }
        _ => {}
    }
}

fn parse(bytes: &[u8], is_component: bool) -> Binary {
    let (header, mut rest) = bytes.split_at(HEADER);
    let mut sections = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let (len, after) = number(after);
        let (inner, after) = after.split_at(len);
        let body = if is_component && id == MODULE {
            Body::Nested(parse(inner, false))
        } else {
            Body::Plain(inner.to_vec())
        };
        sections.push((id, body));
        rest = after;
    }
    Binary {
        header: header.to_vec(),
        sections,
    }
}

/// An unsigned LEB128 number, and what follows it. Only of guests that are valid.
fn number(bytes: &[u8]) -> (usize, &[u8]) {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return (value, &bytes[at + 1..]);
        }
    }
    unreachable!("a shipped guest is cut off")
}

fn write(binary: &Binary, out: &mut Vec<u8>) {
    out.extend(&binary.header);
    for (id, inner) in &binary.sections {
        let mut bytes = Vec::new();
        body(inner, &mut bytes);
        out.push(*id);
        let mut len = bytes.len();
        while len >= 0x80 {
            out.push((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend(bytes);
    }
}

fn body(body: &Body, out: &mut Vec<u8>) {
    match body {
        Body::Plain(bytes) => out.extend(bytes),
        Body::Nested(binary) => write(binary, out),
    }
}
