//! Packing and unpacking: tar, gzip, zip (by python3), and files in pieces.

use super::{Family, bystander};
use crate::{
    check::archive_listing,
    draw::{Draw, lines},
    task::Task,
    world::World,
};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("tar-make", "a folder into a tar archive", tar_make),
    Family::new("tar-extract", "files out of a tar archive", tar_extract),
    Family::new("tar-list", "what a tar archive holds", tar_list),
    Family::new("gzip-file", "files compressed and back", gzip_file),
    Family::new("zip-make", "a zip archive", zip_make),
    Family::new("zip-extract", "files out of a zip archive", zip_extract),
    Family::new("split-file", "a file in pieces, and back", split_file),
];

/// A folder with three texts and a table, and what it holds: paths from `/work` and texts.
fn folder(draw: &mut Draw, world: &mut World, name: &str) -> Vec<(String, String)> {
    let inner = draw.noun();
    let mut names = draw.files(2, "txt");
    names.push(format!("{inner}/{}", draw.file("txt")));
    names.push(draw.file("csv"));
    let files = names.into_iter().map(|file| {
        let count = draw.between(2, 4);
        (format!("{name}/{file}"), draw.lines(count))
    });
    let files: Vec<_> = files.collect();
    for (path, text) in &files {
        world.file(path, text);
    }
    files
}

fn tar_make(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [name, out] = [draw.name(), draw.name()];
    let mut files = folder(draw, &mut world, &name);
    let out = format!("{out}.{}", ["tar", "tar.gz", "tar.gz"][level - 1]);
    let (prompt, solution) = match level {
        1 => (
            format!("Pack the folder {name} into the tar archive {out}."),
            format!("tar -cf {out} {name}"),
        ),
        2 => (
            format!("Pack the folder {name} into the tar archive {out}, compressed with gzip."),
            format!("tar -czf {out} {name}"),
        ),
        _ => {
            files.retain(|(path, _)| path.ends_with(".txt"));
            (
                format!(
                    "Pack only the .txt files of the folder {name}, and of all folders below it, into the tar archive {out}, compressed with gzip. Keep their paths, beginning with {name}."
                ),
                format!("find {name} -name '*.txt' | tar -czf {out} -T -"),
            )
        }
    };
    let kind = if level == 1 { "tar" } else { "tar.gz" };
    Task::question(prompt, world, [solution])
        .part(format!("members {out}"), archive_listing(kind, &files))
}

fn tar_extract(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let mut packed = World::default();
    let [name, archive, to] = [draw.name(), draw.name(), draw.name()];
    let files = folder(draw, &mut packed, &name);
    let archive = format!("{archive}.{}", ["tar", "tar.gz", "tar.gz"][level - 1]);
    let mut goal = world.clone();
    let (wanted, single) = (&files[2], level == 3);
    for (path, text) in files.iter().filter(|file| !single || *file == wanted) {
        let before = if level == 1 {
            String::new()
        } else {
            format!("{to}/")
        };
        goal.file(format!("{before}{path}"), text);
    }
    let (prompt, solution) = match level {
        1 => (
            format!("Unpack the archive {archive}."),
            format!("tar -xf {archive}"),
        ),
        2 => (
            format!("Create the folder {to} and unpack the archive {archive} into it."),
            format!("mkdir {to} && tar -xzf {archive} -C {to}"),
        ),
        _ => (
            format!(
                "Create the folder {to} and unpack only the file {} of the archive {archive} into it, with its path.",
                wanted.0
            ),
            format!("mkdir {to} && tar -xzf {archive} -C {to} {}", wanted.0),
        ),
    };
    let count = if single { "1" } else { "4" };
    let at = if level == 1 { &name } else { &to };
    let pack = if level == 1 { "-cf" } else { "-czf" };
    let kind = if level == 1 { "tar" } else { "tar.gz" };
    Task::new(prompt, world, goal, [solution])
        .prepare(packed.setup())
        .prepare(format!("tar {pack} {archive} {name} && rm -r {name}"))
        .need(format!("find /work/{at} -type f | wc -l"), count)
        .guard(format!("members {archive}"), archive_listing(kind, &files))
}

fn tar_list(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let mut packed = World::default();
    let [name, archive] = [draw.name(), draw.file("tar.gz")];
    let mut files = folder(draw, &mut packed, &name);
    for file in draw.files(4, "log") {
        let count = draw.between(2, 9);
        files.push((format!("{name}/{file}"), draw.lines(count)));
        let (path, text) = &files[files.len() - 1];
        packed.file(path, text);
    }
    let prepare = |task: Task| {
        task.prepare(packed.setup())
            .prepare(format!("tar -czf {archive} {name} && rm -r {name}"))
            .guard(
                format!("members {archive}"),
                archive_listing("tar.gz", &files),
            )
    };
    match level {
        1 => {
            let prompt = format!(
                "Write the content of the file {} in the archive {archive} to answer.txt.",
                files[0].0
            );
            let solution = format!("tar -xzOf {archive} {} > answer.txt", files[0].0);
            prepare(Task::question(prompt, world, [solution]).answer(files[0].1.trim_end()))
        }
        2 => {
            let prompt = format!(
                "Write the names of the .log files in the archive {archive} to answer.txt, one on each line."
            );
            let solution = format!("tar -tzf {archive} | grep '\\.log$' > answer.txt");
            let found: Vec<_> = files[4..]
                .iter()
                .filter_map(|(path, _)| path.rsplit('/').next())
                .collect();
            prepare(Task::question(prompt, world, [solution]).answer_names(&found))
        }
        _ => {
            let prompt = format!(
                "Add up the lines of all .log files in the archive {archive}. Write the number to answer.txt."
            );
            let solution = format!("tar -xzOf {archive} --wildcards '*.log' | wc -l > answer.txt");
            let count: usize = files[4..]
                .iter()
                .map(|(_, text)| text.lines().count())
                .sum();
            prepare(Task::question(prompt, world, [solution]).answer(count.to_string()))
        }
    }
}

fn gzip_file(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (top, names) = (draw.name(), draw.files(3, "log"));
    let text = draw.lines(6);
    let path = format!("{top}/{}", names[0]);
    world.file(format!("{top}/{}", draw.file("txt")), draw.lines(2));
    let unpacked = |path: &str| format!("gzip -t /work/{path}.gz && gzip -dc /work/{path}.gz");
    if level == 2 {
        let mut goal = world.clone();
        goal.file(&path, &text);
        let mut packed = World::default();
        packed.file(&path, &text);
        let prompt =
            format!("Decompress the file {path}.gz with gzip, so that {path} is there again.");
        return Task::new(prompt, world, goal, [format!("gunzip {path}.gz")])
            .prepare(packed.setup())
            .prepare(format!("gzip {path}"));
    }
    let count = if level == 1 { 1 } else { 3 };
    for name in &names {
        world.file(format!("{top}/{name}"), format!("{name}\n{text}"));
    }
    let mut goal = world.clone();
    for name in &names[..count] {
        goal.remove(&format!("{top}/{name}"));
    }
    let (prompt, solution) = match level {
        1 => (
            format!("Compress the file {path} with gzip, so that only {path}.gz remains of it."),
            format!("gzip {path}"),
        ),
        _ => (
            format!(
                "Compress every .log file in the folder {top} with gzip, so that only the .gz files remain of them."
            ),
            format!("gzip {top}/*.log"),
        ),
    };
    let task = Task::new(prompt, world, goal, [solution]);
    names[..count].iter().fold(task, |task, name| {
        task.part(
            unpacked(&format!("{top}/{name}")),
            format!("{name}\n{}", text.trim_end()),
        )
    })
}

fn zip_make(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [name, out, file] = [draw.name(), draw.file("zip"), draw.file("txt")];
    let mut files = folder(draw, &mut world, &name);
    let text = draw.lines(3);
    world.file(&file, &text);
    let (prompt, solution) = match level {
        1 => {
            files = vec![(file.clone(), text)];
            (
                format!(
                    "Use python3 -m zipfile to pack the file {file} into the zip archive {out}."
                ),
                format!("python3 -m zipfile -c {out} {file}"),
            )
        }
        2 => (
            format!("Use python3 -m zipfile to pack the folder {name} into the zip archive {out}."),
            format!("python3 -m zipfile -c {out} {name}"),
        ),
        _ => {
            files.retain(|(path, _)| path.ends_with(".csv"));
            files[0].0 = files[0].0.rsplit('/').next().unwrap_or_default().to_owned();
            files.push((file.clone(), text));
            (
                format!(
                    "Use python3 -m zipfile to pack the file {file} and every .csv file of the folder {name} into the zip archive {out}. The archive must not have folders in it."
                ),
                format!("python3 -m zipfile -c {out} {file} {name}/*.csv"),
            )
        }
    };
    Task::question(prompt, world, [solution])
        .part(format!("members {out}"), archive_listing("zip", &files))
}

fn zip_extract(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let mut packed = World::default();
    let [name, archive, to] = [draw.name(), draw.file("zip"), draw.name()];
    let files = folder(draw, &mut packed, &name);
    let prepare = |task: Task| {
        task.prepare(packed.setup())
            .prepare(format!(
                "python3 -m zipfile -c {archive} {name} && rm -r {name}"
            ))
            .guard(format!("members {archive}"), archive_listing("zip", &files))
    };
    let mut goal = world.clone();
    for (path, text) in files
        .iter()
        .filter(|(path, _)| level < 3 || path.ends_with(".csv"))
    {
        goal.file(
            if level == 1 {
                path.clone()
            } else {
                format!("{to}/{path}")
            },
            text,
        );
    }
    let (prompt, solution) = match level {
        1 => (
            format!(
                "Use python3 -m zipfile to unpack the archive {archive} into the current folder."
            ),
            format!("python3 -m zipfile -e {archive} ."),
        ),
        2 => (
            format!(
                "Use python3 -m zipfile to unpack the archive {archive} into the new folder {to}."
            ),
            format!("python3 -m zipfile -e {archive} {to}"),
        ),
        _ => (
            format!(
                "Unpack the archive {archive} into the new folder {to}, then delete every .txt file that came out of it."
            ),
            format!("python3 -m zipfile -e {archive} {to} && find {to} -name '*.txt' -delete"),
        ),
    };
    let at = if level == 1 { &name } else { &to };
    let count = if level == 3 { "1" } else { "4" };
    prepare(Task::new(prompt, world, goal, [solution]))
        .need(format!("find /work/{at} -type f | wc -l"), count)
}

fn split_file(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, prefix, out] = [draw.file("txt"), draw.name(), draw.file("txt")];
    let size = draw.between(4, 6);
    let rows = draw.list(3 * size);
    let pieces: Vec<_> = rows.chunks(size).map(lines).collect();
    let piece = |at: usize| format!("{prefix}.a{}", ["a", "b", "c"][at]);
    let mut order = [0, 1, 2];
    if level == 1 {
        world.file(&path, lines(&rows));
        let mut goal = world.clone();
        for (at, text) in pieces.iter().enumerate() {
            goal.file(piece(at), text);
        }
        let prompt = format!(
            "Split the file {path} into pieces of {size} lines, named {} and so on.",
            piece(0)
        );
        return Task::new(
            prompt,
            world,
            goal,
            [format!("split -l {size} {path} {prefix}.")],
        );
    }
    for (at, text) in pieces.iter().enumerate() {
        world.file(piece(at), text);
    }
    if level == 3 {
        order.reverse();
    }
    let mut goal = world.clone();
    goal.file(
        &out,
        order
            .iter()
            .map(|at| pieces[*at].as_str())
            .collect::<String>(),
    );
    for at in 0..3 {
        goal.remove(&piece(at));
    }
    let (how, glob) = match level {
        2 => ("in the order of their names", format!("{prefix}.a?")),
        _ => (
            "in the reverse order of their names",
            format!("$(ls -r {prefix}.a?)"),
        ),
    };
    let prompt = format!(
        "Join the pieces {}, {} and {} {how} into the file {out}, then delete the pieces.",
        piece(0),
        piece(1),
        piece(2)
    );
    Task::new(
        prompt,
        world,
        goal,
        [format!("cat {glob} > {out} && rm {prefix}.a?")],
    )
}
