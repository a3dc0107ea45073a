//! Repositories: commits, branches, tags and history.
//!
//! Checks go by what the objects of a repository hold, never by what its own config could change. A message alone earns nothing: an empty
//! commit can have it, too.

use super::{Family, bystander};
use crate::{draw::Draw, task::Task, world::World};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("git-init", "a new repository", git_init),
    Family::new("git-commit", "changes into commits", git_commit),
    Family::new(
        "git-branch",
        "branches made, switched and merged",
        git_branch,
    ),
    Family::new("git-restore", "files as they were", git_restore),
    Family::new("git-tag", "names for commits", git_tag),
    Family::new("git-log", "what the history says", git_log),
    Family::new("git-ignore", "files that git leaves alone", git_ignore),
];

/// The messages of a branch's commits, the newest first.
fn messages(repo: &str, of: &str) -> String {
    format!("gitq {repo} log --no-show-signature --format=%s {of} --")
}

/// A file as a commit has it.
fn committed(repo: &str, of: &str, file: &str) -> String {
    format!("gitq {repo} cat-file -p {of}:{file}")
}

/// What a branch's last commit holds.
fn listed(repo: &str, of: &str) -> String {
    format!("gitq {repo} ls-tree -r --name-only {of} | sort")
}

/// A repository with two files, and the setup that commits them as they are.
struct Repo {
    name: String,
    files: Vec<String>,
    first: String,
}

impl Repo {
    fn new(draw: &mut Draw, world: &mut World) -> Self {
        let repo = Self {
            name: draw.name(),
            files: draw.files(2, "txt"),
            first: draw.words(3),
        };
        for file in &repo.files {
            world.file(repo.path(file), draw.lines(3));
        }
        repo
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }

    fn begin(&self) -> String {
        let Self { name, first, .. } = self;
        format!(
            "git init -q -b main {name}; git -C {name} add .; git -C {name} commit -qm '{first}'"
        )
    }

    fn commit(&self, message: &str) -> String {
        format!(
            "git -C {0} add .; git -C {0} commit -qm '{message}'",
            self.name
        )
    }
}

fn git_init(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let Repo { name, files, first } = Repo::new(draw, &mut world);
    let log = draw.file("log");
    world.file(format!("{name}/{log}"), draw.lines(2));
    let made = format!("[ -d /work/{name}/.git ] && gitq {name} rev-parse --git-dir");
    let (prompt, solution) = match level {
        1 => (
            format!("Make the folder {name} a git repository."),
            format!("git init {name}"),
        ),
        2 => (
            format!(
                "Make the folder {name} a git repository and commit all its files with the message: {first}"
            ),
            format!("cd {name} && git init && git add . && git commit -m '{first}'"),
        ),
        _ => (
            format!(
                "Make the folder {name} a git repository with the branch trunk. Commit all its files but {log} with the message: {first}"
            ),
            format!("cd {name} && git init -b trunk && git add *.txt && git commit -m '{first}'"),
        ),
    };
    let task = Task::question(prompt, world, [solution]).part(made, ".git");
    if level == 1 {
        return task;
    }
    let mut all = files;
    if level == 2 {
        all.push(log);
    }
    all.sort();
    let task = task
        .need(messages(&name, "HEAD"), first)
        .part(listed(&name, "HEAD"), all.join("\n"));
    if level == 3 {
        task.part(format!("gitq {name} symbolic-ref --short HEAD"), "trunk")
    } else {
        task
    }
}

fn git_commit(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let repo = Repo::new(draw, &mut world);
    let before = world.clone();
    let [one, two] = [&repo.files[0], &repo.files[1]];
    let changed: Vec<_> = repo.files.iter().take(level.min(2)).collect();
    let mut prepared = vec![repo.begin()];
    for file in &changed {
        let line = draw.words(4);
        prepared.push(format!("echo '{line}' >>{}", repo.path(file)));
        world.file(
            repo.path(file),
            format!("{}{line}\n", before.text(&repo.path(file))),
        );
    }
    let [message, second] = [draw.words(3), draw.words(4)];
    let name = &repo.name;
    let (prompt, solution) = match level {
        1 => (
            format!(
                "In the git repository {name}, commit the change of the file {one} with the message: {message}"
            ),
            format!("cd {name} && git commit -am '{message}'"),
        ),
        2 => (
            format!(
                "In the git repository {name}, two files have changed. Commit only the change of {one}, with the message: {message}"
            ),
            format!("cd {name} && git commit {one} -m '{message}'"),
        ),
        _ => (
            format!(
                "In the git repository {name}, two files have changed. Commit first the change of {one} with the message: {message}\nThen commit the change of {two} with the message: {second}"
            ),
            format!(
                "cd {name} && git commit {one} -m '{message}' && git commit {two} -m '{second}'"
            ),
        ),
    };
    let mut history = vec![message, repo.first.clone()];
    if level == 3 {
        history.insert(0, second);
    }
    let text = |world: &World, file: &str| world.text(&repo.path(file)).trim_end().to_owned();
    let other = if level == 2 { &before } else { &world };
    let (one_text, two_text) = (text(&world, one), text(other, two));
    let (previous, until_then) = (text(&world, one), text(&before, two));
    let mut task = Task::question(prompt, world, [solution])
        .need(messages(name, "main"), history.join("\n"))
        .part(committed(name, "main", one), one_text);
    let after = committed(name, "main", two);
    task = if level == 3 {
        task.part(after, two_text)
    } else {
        task.need(after, two_text)
    };
    if level == 3 {
        task = task
            .need(committed(name, "main~1", one), previous)
            .need(committed(name, "main~1", two), until_then);
    }
    prepared.into_iter().fold(task.built(before), Task::prepare)
}

fn git_branch(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let repo = Repo::new(draw, &mut world);
    let [branch, file] = [draw.name(), draw.file("txt")];
    let [message, line] = [draw.words(3), draw.words(4)];
    let name = &repo.name;
    let head = format!("gitq {name} symbolic-ref --short HEAD");
    let first = repo.first.clone();
    match level {
        1 => {
            let prompt =
                format!("Create the branch {branch} in the git repository {name}. Stay on main.");
            Task::question(prompt, world, [format!("cd {name} && git branch {branch}")])
                .prepare(repo.begin())
                .part(messages(name, branch.as_str()), first)
                .guard(head, "main")
        }
        2 => {
            let path = repo.path(&file);
            let prompt = format!(
                "In the git repository {name}, create the branch {branch} and switch to it. Create the file {file} there with the line: {line}\nCommit it with the message: {message}"
            );
            let solution = format!(
                "cd {name} && git checkout -q -b {branch} && echo '{line}' > {file} && git add {file} && git commit -qm '{message}'"
            );
            let mut goal = world.clone();
            goal.file(path, format!("{line}\n"));
            Task::new(prompt, world, goal, [solution])
                .prepare(repo.begin())
                .part(head, &branch)
                .need(messages(name, &branch), format!("{message}\n{first}"))
                .part(committed(name, &branch, &file), line)
                .guard(messages(name, "main"), first)
        }
        _ => {
            let prompt = format!(
                "In the git repository {name}, merge the branch {branch} into main, and then delete the branch {branch}."
            );
            let solution = format!("cd {name} && git merge -q {branch} && git branch -d {branch}");
            let mut goal = world.clone();
            goal.file(repo.path(&file), format!("{line}\n"));
            let path = repo.path(&file);
            Task::new(prompt, world, goal, [solution])
                .prepare(repo.begin())
                .prepare(format!(
                    "git -C {name} checkout -q -b {branch}; echo '{line}' >{path}"
                ))
                .prepare(repo.commit(&message))
                .prepare(format!("git -C {name} checkout -q main"))
                .need(
                    format!("{} | grep -cx '{message}'", messages(name, "main")),
                    "1",
                )
                .part(committed(name, "main", &file), line)
                .need(
                    format!("gitq {name} for-each-ref --format='%(refname)' refs/heads"),
                    "refs/heads/main",
                )
                .guard(head, "main")
        }
    }
}

fn git_restore(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let repo = Repo::new(draw, &mut world);
    let (name, file) = (&repo.name, &repo.files[0]);
    let path = repo.path(file);
    let [text, message, worse] = [world.text(&path).to_owned(), draw.words(4), draw.lines(2)];
    let spoil = format!("printf %s '{worse}' >{path}");
    let mut history = vec![repo.first.clone()];
    if level > 1 {
        history.insert(0, message.clone());
    }
    let (prompt, solution) = match level {
        1 => (
            format!(
                "The file {file} was deleted from the folder of the git repository {name}. Restore it from the last commit."
            ),
            format!("cd {name} && git checkout {file}"),
        ),
        2 => (
            format!(
                "In the git repository {name}, the last commit changed the file {file}. Bring the file back to what it was in the commit before, without a new commit."
            ),
            format!("cd {name} && git checkout HEAD~1 -- {file}"),
        ),
        _ => (
            format!(
                "In the git repository {name}, undo the last commit with a new commit, as git revert does."
            ),
            format!("cd {name} && git revert --no-edit HEAD"),
        ),
    };
    let goal = world.clone();
    match level {
        1 => world.remove(&path),
        _ => world.file(&path, &worse),
    }
    let task = Task::new(prompt, world, goal.clone(), [solution])
        .built(goal)
        .prepare(repo.begin());
    let task = match level {
        1 => task.prepare(format!("rm {path}")),
        _ => task.prepare(spoil).prepare(repo.commit(&message)),
    };
    if level < 3 {
        return task.guard(messages(name, "main"), history.join("\n"));
    }
    let worse = worse.trim_end().to_owned();
    task.part(committed(name, "main", file), text.trim_end())
        .need(committed(name, "main~1", file), worse)
        .need(format!("gitq {name} rev-list --count main"), "3")
}

/// A repository with commits of known messages on a file each, and the setup lines.
fn history(
    draw: &mut Draw,
    repo: &Repo,
    world: &mut World,
    count: usize,
) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (messages, files) = (draw.list(count), draw.files(count, "txt"));
    let mut lines = vec![repo.begin()];
    for (message, file) in messages.iter().zip(&files) {
        let path = repo.path(file);
        let line = draw.words(3);
        lines.push(format!("echo '{line}' >{path}; {}", repo.commit(message)));
        world.file(path, format!("{line}\n"));
    }
    (messages, files, lines)
}

fn git_tag(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let repo = Repo::new(draw, &mut world);
    let bare = world.clone();
    let count = draw.between(4, 6);
    let (mut messages, _, prepared) = history(draw, &repo, &mut world, count);
    messages.reverse();
    let [tag, other] = [draw.name(), draw.name()];
    let (name, at) = (&repo.name, draw.between(1, count - 1));
    let of = |at: usize| {
        if at == 0 {
            "HEAD".to_owned()
        } else {
            format!("HEAD~{at}")
        }
    };
    let (prompt, solution, wanted) = match level {
        1 => (
            format!("Tag the last commit of the git repository {name} as {tag}."),
            format!("cd {name} && git tag {tag}"),
            vec![(tag, 0)],
        ),
        2 => (
            format!(
                "In the git repository {name}, tag the commit with the message \"{}\" as {tag}.",
                messages[at]
            ),
            format!(
                "cd {name} && git tag {tag} $(git log --format='%h %s' | grep ' {}$' | cut -d' ' -f1)",
                messages[at]
            ),
            vec![(tag, at)],
        ),
        _ => (
            format!(
                "In the git repository {name}, tag the last commit as {tag} and its very first commit as {other}."
            ),
            format!(
                "cd {name} && git tag {tag} && git tag {other} $(git rev-list --max-parents=0 HEAD)"
            ),
            vec![(tag, 0), (other, count)],
        ),
    };
    let mut task = Task::question(prompt, world, [solution]);
    for (tag, at) in wanted {
        let same = format!(
            "[ \"$(gitq {name} rev-parse -q --verify 'refs/tags/{tag}^{{commit}}')\" = \"$(gitq {name} rev-parse -q --verify {})\" ] && echo same",
            of(at)
        );
        task = task.part(same, "same");
    }
    messages.push(repo.first.clone());
    let task = task
        .guard(self::messages(name, "HEAD"), messages.join("\n"))
        .built(bare);
    prepared.into_iter().fold(task, Task::prepare)
}

fn git_log(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let repo = Repo::new(draw, &mut world);
    let bare = world.clone();
    let count = draw.between(5, 14);
    let (messages, files, prepared) = history(draw, &repo, &mut world, count);
    let (name, at) = (&repo.name, draw.between(1, count - 2));
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "How many commits has the git repository {name}? Write the number to answer.txt."
            ),
            format!("git -C {name} rev-list --count HEAD > answer.txt"),
            (count + 1).to_string(),
        ),
        2 => (
            format!(
                "In the git repository {name}, which commit added the file {}? Write its message to answer.txt.",
                files[at]
            ),
            format!(
                "git -C {name} log --format=%s -- {} > answer.txt",
                files[at]
            ),
            messages[at].clone(),
        ),
        _ => (
            format!(
                "In the git repository {name}, find the commit with the message \"{}\". Write the name of the file that it added to answer.txt.",
                messages[at]
            ),
            format!(
                "cd {name} && git show --format= --name-only $(git log --format='%h %s' | grep ' {}$' | cut -d' ' -f1) > ../answer.txt",
                messages[at]
            ),
            files[at].clone(),
        ),
    };
    let task = Task::question(prompt, world, [solution])
        .answer(answer)
        .built(bare);
    prepared.into_iter().fold(task, Task::prepare)
}

fn git_ignore(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let repo = Repo::new(draw, &mut world);
    let (name, folder, log) = (&repo.name, draw.noun(), draw.file("log"));
    world.file(format!("{name}/{log}"), draw.lines(1));
    world.file(
        format!("{name}/{folder}/{}", draw.file("txt")),
        draw.lines(1),
    );
    let inner = format!("{folder}/new.txt");
    let message = draw.words(3);
    let ignored = |path: &str| {
        format!(
            "printf '%s\\n' {path} | gitq {name} -c core.excludesFile=/dev/null check-ignore --no-index --stdin | grep -q . && echo ignored || echo seen"
        )
    };
    let (prompt, solution) = match level {
        1 => (
            format!(
                "Create the file .gitignore in the git repository {name}, so that git ignores every .log file."
            ),
            format!("echo '*.log' > {name}/.gitignore"),
        ),
        2 => (
            format!(
                "Create the file .gitignore in the git repository {name}, so that git ignores every .log file and the folder {folder}, and nothing else."
            ),
            format!("printf '*.log\\n{folder}/\\n' > {name}/.gitignore"),
        ),
        _ => (
            format!(
                "Create the file .gitignore in the git repository {name}, so that git ignores every .log file and the folder {folder}, and nothing else. Commit only this file, with the message: {message}"
            ),
            format!(
                "cd {name} && printf '*.log\\n{folder}/\\n' > .gitignore && git add .gitignore && git commit -qm '{message}'"
            ),
        ),
    };
    let mut task = Task::question(prompt, world, [solution])
        .prepare(format!(
            "git init -q -b main {name}; git -C {name} add {}; git -C {name} commit -qm '{}'",
            repo.files.join(" "),
            repo.first
        ))
        .part(
            format!("{} && [ -f /work/{name}/.gitignore ]", ignored(&log)),
            "ignored",
        )
        .guard(ignored("readme.txt"), "seen");
    if level > 1 {
        task = task.part(ignored(&inner), "ignored");
    } else {
        task = task.guard(ignored(&inner), "seen");
    }
    if level == 3 {
        let mut all = [
            ".gitignore".to_owned(),
            repo.files[0].clone(),
            repo.files[1].clone(),
        ];
        all.sort();
        task = task
            .need(messages(name, "main"), format!("{message}\n{}", repo.first))
            .part(listed(name, "main"), all.join("\n"));
    }
    task
}
