//! Permissions, links, processes and scripts.

use super::{Family, bystander};
use crate::{draw::Draw, task::Task};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("permissions", "who may read, write and run", permissions),
    Family::new("find-mode", "files by their permissions", find_mode),
    Family::new("link-make", "symbolic links", link_make),
    Family::new(
        "link-broken",
        "symbolic links that lead nowhere",
        link_broken,
    ),
    Family::new(
        "kill-process",
        "ending one process and no other",
        kill_process,
    ),
    Family::new(
        "start-process",
        "processes in the background",
        start_process,
    ),
    Family::new(
        "script-make",
        "scripts that print what they should",
        script_make,
    ),
];

fn permissions(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [top, inner] = [draw.name(), draw.noun()];
    let (scripts, other) = (draw.files(2, "sh"), draw.file("txt"));
    let mut paths: Vec<_> = scripts.iter().map(|name| format!("{top}/{name}")).collect();
    paths.push(format!("{top}/{other}"));
    paths.push(format!("{top}/{inner}/{}", draw.file("txt")));
    for path in &paths {
        world.file(path, format!("echo {}\n", draw.words(2)));
        world.mode(path, 0o644);
    }
    let mut goal = world.clone();
    match level {
        1 => {
            let mode = draw.pick(&["600", "640", "700", "750", "755", "444", "664"]);
            goal.mode(&paths[2], u32::from_str_radix(mode, 8).unwrap_or(0o600));
            let prompt = format!("Set the permissions of the file {} to {mode}.", paths[2]);
            Task::new(prompt, world, goal, [format!("chmod {mode} {}", paths[2])])
        }
        2 => {
            // Any way of making them executable is right: only whether its owner can run each is asked.
            for path in &paths[..2] {
                goal.modes.remove(path);
            }
            let prompt =
                format!("Make every .sh file in the folder {top} executable, and no other file.");
            let task = Task::new(prompt, world, goal, [format!("chmod +x {top}/*.sh")]);
            let runs = |path: &String| format!("[ -x /work/{path} ] && echo runs");
            paths[..2]
                .iter()
                .fold(task, |task, path| task.part(runs(path), "runs"))
        }
        _ => {
            for path in &paths {
                goal.mode(path, 0o600);
            }
            goal.mode(&top, 0o700);
            goal.mode(format!("{top}/{inner}"), 0o700);
            let prompt = format!(
                "Set the permissions of the folder {top} and of all folders below it to 700, and of all files in them to 600."
            );
            let solution = format!(
                "find {top} -type d -exec chmod 700 {{}} + ; find {top} -type f -exec chmod 600 {{}} +"
            );
            Task::new(prompt, world, goal, [solution])
        }
    }
}

fn find_mode(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (top, names) = (draw.name(), draw.files(7, "dat"));
    let special = [0o755, 0o666, 0o666][level - 1];
    let mut chosen = draw.distinct(3, 0, 6);
    chosen.sort_unstable();
    for (at, name) in names.iter().enumerate() {
        let path = format!("{top}/{name}");
        world.file(&path, draw.lines(1));
        world.mode(&path, if chosen.contains(&at) { special } else { 0o644 });
    }
    let found: Vec<_> = chosen.iter().map(|at| &names[*at]).collect();
    match level {
        1 => {
            let prompt = format!(
                "Find the files in the folder {top} that are executable. Write their names to answer.txt, one on each line."
            );
            let solution = format!("find {top} -type f -executable > answer.txt");
            Task::question(prompt, world, [solution]).answer_names(&found)
        }
        2 => {
            let prompt = format!(
                "Find the files in the folder {top} that everybody may write to. Write their names to answer.txt, one on each line."
            );
            let solution = format!("find {top} -type f -perm -o+w > answer.txt");
            Task::question(prompt, world, [solution]).answer_names(&found)
        }
        _ => {
            let mut goal = world.clone();
            for name in found {
                goal.mode(format!("{top}/{name}"), 0o644);
            }
            let prompt = format!(
                "Some files in the folder {top} can be written by everybody. Take the permission to write from the group and from others, and change nothing else."
            );
            Task::new(
                prompt,
                world,
                goal,
                [format!("find {top} -type f -exec chmod go-w {{}} +")],
            )
        }
    }
}

/// Where a link leads, if it is one: a relative and an absolute target are both right.
fn leads(path: &str) -> String {
    format!("[ -L /work/{path} ] && readlink -e /work/{path}")
}

fn link_make(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [top, link, links] = [draw.name(), draw.name(), draw.name()];
    let (names, new) = (draw.files(3, "txt"), draw.name());
    for name in &names {
        world.file(format!("{top}/{name}"), draw.lines(2));
    }
    let path = format!("{top}/{}", names[0]);
    match level {
        1 => {
            let prompt = format!("Create the symbolic link {link} that points to {path}.");
            Task::question(prompt, world, [format!("ln -s {path} {link}")])
                .part(leads(&link), format!("/work/{path}"))
        }
        2 => {
            let prompt = format!(
                "Create the folder {links}. In it, create for every file in the folder {top} a symbolic link of the same name that leads to it."
            );
            let solution = format!("mkdir {links} && ln -s /work/{top}/* {links}/");
            let task = Task::question(prompt, world, [solution]);
            names.iter().fold(task, |task, name| {
                task.part(
                    leads(&format!("{links}/{name}")),
                    format!("/work/{top}/{name}"),
                )
            })
        }
        _ => {
            world.folder(&new);
            world.link(&link, &top);
            let mut goal = world.clone();
            for name in &names {
                goal.rename(&format!("{top}/{name}"), format!("{new}/{name}"));
            }
            let prompt = format!(
                "The symbolic link {link} points to the folder {top}. Move all files of {top} into the folder {new}, remove {top}, and make {link} point to {new}."
            );
            let solution = format!("mv {top}/* {new}/ && rmdir {top} && ln -sfn {new} {link}");
            Task::new(prompt, world, goal, [solution])
                .ignore(&link)
                .need(format!("show {top}"), "nothing")
                .part(leads(&link), format!("/work/{new}"))
        }
    }
}

fn link_broken(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [top, links, lost] = [draw.name(), draw.name(), draw.name()];
    let (names, targets) = (draw.nouns(6), draw.files(6, "txt"));
    let broken = draw.distinct([1, 3, 3][level - 1], 0, 5);
    for at in 0..6 {
        let (folder, moved) = if broken.contains(&at) {
            (&lost, level == 3)
        } else {
            (&top, true)
        };
        if moved {
            world.file(format!("{top}/{}", targets[at]), draw.lines(1));
        }
        world.link(
            format!("{links}/{}", names[at]),
            format!("../{folder}/{}", targets[at]),
        );
    }
    let mut goal = world.clone();
    let path = |at: &usize| format!("{links}/{}", names[*at]);
    match level {
        1 => {
            let prompt = format!(
                "Find the broken symbolic link in the folder {links}. Write its name to answer.txt."
            );
            let solution = format!("find {links} -xtype l > answer.txt");
            Task::question(prompt, world, [solution]).answer_names(&[&names[broken[0]]])
        }
        2 => {
            broken.iter().for_each(|at| goal.remove(&path(at)));
            let prompt =
                format!("Delete all broken symbolic links in the folder {links}, and no other.");
            Task::new(
                prompt,
                world,
                goal,
                [format!("find {links} -xtype l -delete")],
            )
        }
        _ => {
            let prompt = format!(
                "Some symbolic links in the folder {links} point into the folder {lost}, which is gone: its files are in {top} now, under the same names. Make these links point there."
            );
            let solution = format!(
                "cd {links} && for l in $(find . -xtype l); do ln -sf ../{top}/$(basename $(readlink $l)) $l; done"
            );
            let task = Task::question(prompt, world, [solution]);
            broken.iter().fold(task, |task, at| {
                let to = format!("/work/{top}/{}", targets[*at]);
                task.ignore(path(at)).part(leads(&path(at)), to)
            })
        }
    }
}

fn kill_process(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let [top, other] = [draw.name(), draw.file("pid")];
    let files = draw.files(3, "pid");
    let times = draw.distinct(4, 20_000, 99_999);
    let count = if level == 2 { 3 } else { 1 };
    let start = |time: usize, file: &str| {
        format!("setsid sleep {time} </dev/null >/dev/null 2>&1 & echo $! >{file}")
    };
    let (prompt, solution) = match level {
        1 => (
            format!(
                "A process is running, and its process id is in the file {top}/{}. End it.",
                files[0]
            ),
            format!("kill $(cat {top}/{})", files[0]),
        ),
        2 => (
            format!(
                "Some processes are running, and their process ids are in the .pid files of the folder {top}. End all of these processes."
            ),
            format!("cat {top}/*.pid | xargs kill"),
        ),
        _ => (
            format!(
                "End the process that was started as: sleep {}\nOther processes must go on. Look for it in /proc, where the file cmdline of each process has the words of its command, with a zero byte after each.",
                times[0]
            ),
            format!(
                "for p in /proc/[0-9]*; do [ \"$(tr '\\0' ' ' <$p/cmdline)\" = 'sleep {} ' ] && kill ${{p#/proc/}}; done",
                times[0]
            ),
        ),
    };
    let mut task = Task::question(prompt, world, [solution]).prepare(format!("mkdir -p {top}"));
    for (at, time) in times.iter().enumerate() {
        let file = files.get(at).filter(|_| at < count);
        let file = file.map_or(other.clone(), |name| format!("{top}/{name}"));
        let file = if level == 3 { "/dev/null" } else { &file };
        task = task.prepare(start(*time, file));
        task = if at < count {
            task.part(format!("ended 'sleep {time}' && echo ended"), "ended")
        } else {
            task.guard(format!("running 'sleep {time}' && echo running"), "running")
        };
    }
    task
}

fn start_process(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let files = draw.files(2, "pid");
    let times = draw.distinct(2, 20_000, 99_999);
    let background = |at: usize| format!("sleep {} </dev/null >/dev/null 2>&1 &", times[at]);
    let (prompt, solution) = match level {
        1 => (
            format!("Start this command in the background: sleep {}", times[0]),
            background(0),
        ),
        2 => (
            format!(
                "Start this command in the background: sleep {}\nWrite its process id to {}.",
                times[0], files[0]
            ),
            format!("{} echo $! > {}", background(0), files[0]),
        ),
        _ => (
            format!(
                "Start these two commands in the background: sleep {} and sleep {}\nWrite the process id of the first to {}, of the second to {}.",
                times[0], times[1], files[0], files[1]
            ),
            format!(
                "{} echo $! > {}; {} echo $! > {}",
                background(0),
                files[0],
                background(1),
                files[1]
            ),
        ),
    };
    let task = Task::question(prompt, world, [solution]);
    if level == 1 {
        return task.part(
            format!("running 'sleep {}' && echo running", times[0]),
            "running",
        );
    }
    (0..level - 1).fold(task, |task, at| {
        let command = format!("command_of \"$(plain {})\"", files[at]);
        task.part(command, format!("sleep {} ", times[at]))
    })
}

fn script_make(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let path = draw.file("sh");
    let [a, b] = [draw.noun(), draw.noun()];
    let numbers = draw.distinct(3, 10, 99);
    let line = draw.words(4);
    let (prompt, body, arguments, expected) = match level {
        1 => (
            format!("Create the executable script {path} that prints this line: {line}"),
            format!("echo \"{line}\""),
            String::new(),
            line,
        ),
        2 => (
            format!(
                "Create the executable script {path} that prints its first argument twice, on two lines."
            ),
            "echo $1; echo $1".to_owned(),
            format!("{a} {b}"),
            format!("{a}\n{a}"),
        ),
        _ => (
            format!(
                "Create the executable script {path} that takes any number of whole numbers as arguments and prints their sum."
            ),
            "s=0; for n in $@; do s=$((s + n)); done; echo $s".to_owned(),
            format!("{} {} {}", numbers[0], numbers[1], numbers[2]),
            numbers.iter().sum::<usize>().to_string(),
        ),
    };
    let solution = format!("printf '#!/bin/bash\\n%s\\n' '{body}' > {path} && chmod +x {path}");
    Task::question(prompt, world, [solution])
        .part(format!("timeout 3 /work/{path} {arguments}"), expected)
}
