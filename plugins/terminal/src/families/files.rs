//! Making, copying, moving and deleting files and folders.

use super::{Family, bystander};
use crate::{draw::Draw, task::Task, world::World};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("make-file", "files with a given line", make_file),
    Family::new(
        "make-folder",
        "folders, also within one another",
        make_folder,
    ),
    Family::new("copy-file", "copies of files", copy_file),
    Family::new("copy-folder", "copies of folders", copy_folder),
    Family::new("move-files", "files into other folders", move_files),
    Family::new(
        "rename-extension",
        "other endings for names",
        rename_extension,
    ),
    Family::new("delete-files", "files away, and no other", delete_files),
    Family::new(
        "empty-file",
        "files that keep their name and lose their content",
        empty_file,
    ),
    Family::new(
        "append-line",
        "a line more at the end or the start",
        append_line,
    ),
    Family::new("join-files", "several files as one", join_files),
];

fn make_file(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let mut goal = world.clone();
    let folder = if level == 1 {
        String::new()
    } else {
        draw.name()
    };
    let mut prompt = Vec::new();
    let mut solution = Vec::new();
    if level > 1 {
        prompt.push(format!("Create the folder {folder}."));
        solution.push(format!("mkdir {folder}"));
    }
    for name in draw.files([1, 1, 3][level - 1], "txt") {
        let line = draw.words(3);
        let path = if level == 1 {
            name
        } else {
            format!("{folder}/{name}")
        };
        goal.file(&path, format!("{line}\n"));
        prompt.push(format!("Create the file {path} with the line: {line}"));
        solution.push(format!("echo '{line}' > {path}"));
    }
    Task::new(prompt.join("\n"), world, goal, solution)
}

fn make_folder(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let mut goal = world.clone();
    let top = draw.name();
    let [a, b, c] = [draw.noun(), draw.noun(), draw.noun()];
    let (prompt, solution) = match level {
        1 => {
            goal.folder(&top);
            (format!("Create the folder {top}."), format!("mkdir {top}"))
        }
        2 => {
            goal.folder(format!("{top}/{a}/{b}"));
            let prompt = format!("Create the folder {top}/{a}/{b} with the folders above it.");
            (prompt, format!("mkdir -p {top}/{a}/{b}"))
        }
        _ => {
            for inner in [&a, &b, &c] {
                goal.file(format!("{top}/{inner}/keep"), "");
            }
            let prompt = format!(
                "Create the folder {top} with the folders {a}, {b} and {c} in it, and an empty file named keep in each of the three."
            );
            let all = format!("{top}/{{{a},{b},{c}}}");
            (prompt, format!("mkdir -p {all} && touch {all}/keep"))
        }
    };
    Task::new(prompt, world, goal, [solution])
}

fn copy_file(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [folder, target] = [draw.name(), draw.name()];
    let names = draw.files(3, "txt");
    let copy = draw.file("txt");
    for name in &names {
        world.file(format!("{folder}/{name}"), draw.lines(3));
    }
    world.file(format!("{folder}/{}", draw.file("csv")), draw.lines(2));
    world.file(&names[0], draw.lines(4));
    let mut goal = world.clone();
    let (prompt, solution) = match level {
        1 => {
            goal.file(&copy, world.text(&names[0]));
            (
                format!("Copy the file {} to {copy}.", names[0]),
                format!("cp {} {copy}", names[0]),
            )
        }
        2 => {
            let from = format!("{folder}/{}", names[1]);
            goal.file(format!("{target}/{copy}"), world.text(&from));
            let prompt =
                format!("Create the folder {target} and copy the file {from} to {target}/{copy}.");
            (
                prompt,
                format!("mkdir {target} && cp {from} {target}/{copy}"),
            )
        }
        _ => {
            for name in &names {
                goal.file(
                    format!("{target}/{name}"),
                    world.text(&format!("{folder}/{name}")),
                );
            }
            let prompt = format!(
                "Create the folder {target} and copy every .txt file of the folder {folder} into it."
            );
            let goal_is_bare = format!("mkdir {target} && cp {folder}/*.txt {target}/");
            return Task::new(prompt, world, goal, [goal_is_bare])
                .need(format!("ls /work/{target} | wc -l"), "3");
        }
    };
    Task::new(prompt, world, goal, [solution])
}

fn copy_folder(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [from, to, inner] = [draw.name(), draw.name(), draw.noun()];
    let txt = draw.files(2, "txt");
    let log = draw.file("log");
    let paths = [
        txt[0].clone(),
        format!("{inner}/{}", txt[1]),
        format!("{inner}/{log}"),
    ];
    for path in &paths {
        world.file(format!("{from}/{path}"), draw.lines(3));
    }
    let mut goal = world.clone();
    for path in &paths {
        if level < 3 || path.ends_with(".txt") {
            goal.file(
                format!("{to}/{path}"),
                world.text(&format!("{from}/{path}")),
            );
        }
    }
    let mut prompt = format!("Copy the folder {from} with everything in it to {to}.");
    let mut solution = vec![format!("cp -r {from} {to}")];
    let mut count = "3";
    if level == 2 {
        prompt = format!("{prompt} Then rename {to}/{} to {to}/first.txt.", paths[0]);
        solution.push(format!("mv {to}/{} {to}/first.txt", paths[0]));
        goal.rename(&format!("{to}/{}", paths[0]), format!("{to}/first.txt"));
    } else if level == 3 {
        prompt =
            format!("{prompt} The copy must not have the .log files, the original must keep them.");
        solution.push(format!("find {to} -name '*.log' -delete"));
        count = "2";
    }
    Task::new(prompt, world, goal, solution).need(format!("find /work/{to} -type f | wc -l"), count)
}

fn move_files(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [from, tables, texts] = [draw.name(), draw.name(), draw.name()];
    let (csv, txt) = (draw.files(3, "csv"), draw.files(2, "txt"));
    for name in csv.iter().chain(&txt) {
        world.file(format!("{from}/{name}"), draw.lines(2));
    }
    let mut goal = world.clone();
    if level == 1 {
        let name = &csv[0];
        world.folder(&tables);
        goal.rename(&format!("{from}/{name}"), format!("{tables}/{name}"));
        goal.folder(&tables);
        let prompt = format!("Move the file {from}/{name} into the folder {tables}.");
        return Task::new(prompt, world, goal, [format!("mv {from}/{name} {tables}/")]);
    }
    for name in &csv {
        goal.rename(&format!("{from}/{name}"), format!("{tables}/{name}"));
    }
    let mut prompt =
        format!("Create the folder {tables} and move every .csv file of {from} into it.");
    let mut solution = vec![format!("mkdir {tables} && mv {from}/*.csv {tables}/")];
    if level == 3 {
        for name in &txt {
            goal.rename(&format!("{from}/{name}"), format!("{texts}/{name}"));
        }
        prompt = format!(
            "{prompt} Create the folder {texts} and move every .txt file of {from} into it. Then remove the empty folder {from}."
        );
        solution.push(format!(
            "mkdir {texts} && mv {from}/*.txt {texts}/ && rmdir {from}"
        ));
        return Task::new(prompt, world, goal, solution).need(format!("show {from}"), "nothing");
    }
    Task::new(prompt, world, goal, solution)
}

fn rename_extension(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [folder, inner] = [draw.name(), draw.noun()];
    let mut paths = vec![draw.file("txt")];
    if level > 1 {
        let names = draw.files(3, "txt");
        paths = names
            .iter()
            .map(|name| format!("{folder}/{name}"))
            .collect();
    }
    if level > 2 {
        paths.push(format!("{folder}/{inner}/{}", draw.file("txt")));
    }
    for path in &paths {
        world.file(path, draw.lines(2));
    }
    world.file(format!("{folder}/{}", draw.file("csv")), draw.lines(2));
    let mut goal = world.clone();
    for path in &paths {
        goal.rename(path, path.replace(".txt", ".md"));
    }
    let loop_over =
        |files: &str| format!("{files} | while read -r f; do mv \"$f\" \"${{f%.txt}}.md\"; done");
    let (prompt, solution) = match level {
        1 => {
            let new = paths[0].replace(".txt", ".md");
            (
                format!("Rename the file {} to {new}.", paths[0]),
                format!("mv {} {new}", paths[0]),
            )
        }
        2 => (
            format!(
                "In the folder {folder}, rename every .txt file so that it ends in .md instead."
            ),
            loop_over(&format!("ls {folder}/*.txt")),
        ),
        _ => (
            format!(
                "In the folder {folder} and all folders below it, rename every .txt file so that it ends in .md instead."
            ),
            loop_over(&format!("find {folder} -name '*.txt'")),
        ),
    };
    Task::new(prompt, world, goal, [solution])
}

fn delete_files(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [folder, inner] = [draw.name(), draw.noun()];
    let (tmp, txt) = (draw.files(4, "tmp"), draw.files(2, "txt"));
    for name in txt.iter().chain(&tmp[..2]) {
        world.file(format!("{folder}/{name}"), draw.lines(2));
    }
    world.file(format!("{folder}/{inner}/{}", tmp[2]), draw.lines(1));
    world.file(format!("{folder}/keep/{}", tmp[3]), draw.lines(1));
    let mut goal = world.clone();
    goal.remove(&format!("{folder}/{}", tmp[0]));
    let (prompt, solution) = match level {
        1 => {
            let path = format!("{folder}/{}", tmp[0]);
            (format!("Delete the file {path}."), format!("rm {path}"))
        }
        2 => {
            goal.remove(&format!("{folder}/{}", tmp[1]));
            let prompt = format!(
                "Delete every .tmp file that is directly in the folder {folder}. Leave the folders in it alone."
            );
            (prompt, format!("rm {folder}/*.tmp"))
        }
        _ => {
            goal.remove(&format!("{folder}/{}", tmp[1]));
            goal.remove(&format!("{folder}/{inner}/{}", tmp[2]));
            let prompt = format!(
                "Delete every .tmp file in the folder {folder} and in all folders below it, except those in the folder {folder}/keep."
            );
            (
                prompt,
                format!("find {folder} -name '*.tmp' -not -path '*/keep/*' -delete"),
            )
        }
    };
    Task::new(prompt, world, goal, [solution])
}

fn empty_file(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let folder = draw.name();
    let (logs, txt) = (draw.files(3, "log"), draw.file("txt"));
    for name in &logs {
        let count = draw.between(3, 5);
        world.file(format!("{folder}/{name}"), draw.lines(count));
    }
    world.file(format!("{folder}/{txt}"), draw.lines(2));
    let long = format!("{folder}/{}", logs[0]);
    if level == 3 {
        world.file(&long, draw.bytes(900));
    }
    let mut goal = world.clone();
    let (prompt, solution) = match level {
        1 => {
            goal.file(&long, "");
            let prompt = format!("Make the file {long} empty, but do not delete it.");
            (prompt, format!("> {long}"))
        }
        2 => {
            for name in &logs {
                goal.file(format!("{folder}/{name}"), "");
            }
            let prompt =
                format!("Make every .log file in the folder {folder} empty, but delete none.");
            (prompt, format!("for f in {folder}/*.log; do > $f; done"))
        }
        _ => {
            goal.file(&long, "");
            let prompt = format!(
                "Make every .log file in the folder {folder} that is larger than 500 bytes empty, but delete none."
            );
            (
                prompt,
                format!("find {folder} -name '*.log' -size +500c -exec truncate -s 0 {{}} +"),
            )
        }
    };
    Task::new(prompt, world, goal, [solution])
}

fn append_line(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let folder = draw.name();
    let (names, line) = (draw.files(3, "txt"), draw.words(4));
    for name in &names {
        world.file(format!("{folder}/{name}"), draw.lines(3));
    }
    world.file(format!("{folder}/{}", draw.file("csv")), draw.lines(2));
    let mut goal = world.clone();
    let path = format!("{folder}/{}", names[0]);
    let (prompt, solution) = match level {
        1 => {
            goal.file(&path, format!("{}{line}\n", world.text(&path)));
            let prompt = format!("Add this line at the end of the file {path}: {line}");
            (prompt, format!("echo '{line}' >> {path}"))
        }
        2 => {
            goal.file(&path, format!("{line}\n{}", world.text(&path)));
            let prompt = format!(
                "Add this line at the start of the file {path}, before its first line: {line}"
            );
            (prompt, format!("sed -i '1i {line}' {path}"))
        }
        _ => {
            for name in &names {
                let path = format!("{folder}/{name}");
                goal.file(&path, format!("{}{line}\n", world.text(&path)));
            }
            let prompt = format!(
                "Add this line at the end of every .txt file in the folder {folder}: {line}"
            );
            (
                prompt,
                format!("for f in {folder}/*.txt; do echo '{line}' >> $f; done"),
            )
        }
    };
    Task::new(prompt, world, goal, [solution])
}

fn join_files(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (mut names, out) = (draw.files([2, 4, 3][level - 1], "txt"), draw.file("out"));
    let folder = if level == 1 {
        String::new()
    } else {
        format!("{}/", draw.name())
    };
    if level > 1 {
        names.sort();
    }
    for name in &names {
        world.file(format!("{folder}{name}"), draw.lines(2));
    }
    let texts: Vec<_> = names
        .iter()
        .map(|name| world.text(&format!("{folder}{name}")))
        .collect();
    let joined = texts.join(if level == 3 { "---\n" } else { "" });
    let (prompt, solution) = match level {
        1 => (
            format!(
                "Write the content of {} and then of {} to {out}.",
                names[0], names[1]
            ),
            format!("cat {} {} > {out}", names[0], names[1]),
        ),
        2 => (
            format!(
                "Join all .txt files of the folder {folder} in the order of their names, and write the result to {out}."
            ),
            format!("cat {folder}*.txt > {out}"),
        ),
        _ => (
            format!(
                "Join all .txt files of the folder {folder} in the order of their names, with the line --- between one file and the next, and write the result to {out}."
            ),
            format!(
                "first=1; for f in {folder}*.txt; do [ $first ] || echo ---; first=; cat $f; done > {out}"
            ),
        ),
    };
    let mut goal: World = world.clone();
    goal.file(&out, joined);
    Task::new(prompt, world, goal, [solution])
}
