//! Files that are written, copied, moved and thrown away.

use serde_json::json;

use super::words::{ENDINGS, FILES, FOLDERS, LINES};
use crate::{
    apis::{World, files::Files},
    draw::Draw,
    plan::Plan,
};

/// A few files in two folders; none has the name that is left out.
fn tree(draw: &mut Draw, folders: [&str; 2], without: &str) -> Files {
    let names = draw.others(&FILES, &[without], 4);
    let texts = draw.others(&LINES, &[], 4);
    let paths = names.iter().zip(texts).enumerate();
    let files = paths.map(|(place, (name, text))| {
        (
            format!("{}/{name}.txt", folders[place % 2]),
            text.to_owned(),
        )
    });
    Files {
        files: files.collect(),
    }
}

/// `files-write`.
pub(super) fn write(draw: &mut Draw, difficulty: u8) -> Plan {
    let folder = draw.noun(&FOLDERS);
    let other = draw.others(&FOLDERS, &[folder], 1)[0];
    let name = draw.noun(&FILES);
    let mut tree = tree(draw, [folder, other], name);
    let texts = draw.others(&LINES, &[], 2);
    let (text, corrected) = (texts[0], texts[1]);
    let path = format!("{folder}/{name}.txt");
    if difficulty == 2 {
        let to = format!("{other}/copy.txt");
        tree.files.insert(path.clone(), text.to_owned());
        return Plan::new(World::Files(tree))
            .ask(draw.say([
                format!("Copy the file {path} to {to}."),
                format!("I need a second file {to} with the text of {path}."),
            ]))
            .call("read_file", json!({"path": path}))
            .call("write_file", json!({"path": to, "text": text}));
    }
    let plan = Plan::new(World::Files(tree))
        .ask(draw.say([
            format!("Write \"{text}\" to the file {path}."),
            format!("Make a file {path} that says \"{text}\"."),
        ]))
        .call("write_file", json!({"path": path, "text": text}));
    if difficulty == 1 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Sorry, it should say \"{corrected}\"."),
        format!("No, replace the text by \"{corrected}\"."),
    ]))
    .call("write_file", json!({"path": path, "text": corrected}))
}

/// `files-tidy`.
pub(super) fn tidy(draw: &mut Draw, difficulty: u8) -> Plan {
    let folder = draw.noun(&FOLDERS);
    let other = draw.others(&FOLDERS, &[folder], 1)[0];
    let name = draw.noun(&FILES);
    let mut tree = tree(draw, [folder, other], name);
    let keep = tree
        .files
        .keys()
        .find(|path| path.starts_with(other))
        .cloned()
        .unwrap_or_default();
    let junk = draw.pick(&ENDINGS);
    let ending = if difficulty == 1 { "txt" } else { junk };
    let path = format!("{folder}/{name}.{ending}");
    tree.files
        .insert(path.clone(), draw.pick(&LINES).to_owned());
    let plan = Plan::new(World::Files(tree));
    if difficulty == 1 {
        return plan
            .ask(draw.say([
                format!("Delete the file {path}."),
                format!("I do not need {path} any more. Remove it."),
            ]))
            .call("delete_file", json!({"path": path}));
    }
    let plan = plan
        .ask(draw.say([
            format!("One file in the folder {folder} ends in .{ending}. Delete it."),
            format!("Look into the folder {folder} and remove the file that ends in .{ending}."),
        ]))
        .call("list_files", json!({"folder": folder}))
        .call("delete_file", json!({"path": path}));
    if difficulty == 2 {
        return plan;
    }
    let to = format!("{folder}/old.txt");
    plan.ask(draw.say([
        format!("Now move {keep} to {to}."),
        format!("Thank you. And {keep} should be at {to}."),
    ]))
    .call("move_file", json!({"path": keep, "to": to}))
}
