//! Every family's scripts, run for real in a jail of bubblewrap: setups set up, checks say no before and after vandalism, and yes after the
//! reference solution.
//!
//! Not the machine of the host, and no model: only that setups, checks and solutions agree with one another.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use terminal::{
    draw::FIRST_HELD_OUT,
    families,
    task::{Task, Verdict},
};

/// A working folder on this machine and a jail around each script: no network, a read-only system, an unprivileged user. The scripts of one
/// call share processes, as on a machine.
struct Jail {
    place: tempfile::TempDir,
}

/// Without bubblewrap there is nothing to test: said, and a failure only where `NEXTSTATE_REQUIRE_SANDBOX` says so, as in CI.
fn needs_bubblewrap() {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join("bwrap").is_file());
    if !found && std::env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_none() {
        // Not by `eprintln!`, which the test harness keeps for itself.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: bubblewrap is not on the path\n",
        );
        std::process::exit(0);
    }
}

impl Jail {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        for folder in ["work", "out"] {
            fs::create_dir(place.path().join(folder)).unwrap();
        }
        Self { place }
    }

    /// Runs scripts one after another, each in a shell of its own, and gives what each printed; none for one that failed.
    fn run(&self, scripts: &[&str]) -> Vec<Option<String>> {
        needs_bubblewrap();
        let out = self.place.path().join("out");
        for (at, script) in scripts.iter().enumerate() {
            fs::write(out.join(format!("{at}.sh")), script).unwrap();
        }
        let all = format!(
            "for ((n = 0; n < {}; n++)); do bash -c \"$(</out/$n.sh)\" </dev/null >/out/$n.stdout 2>/out/$n.stderr; echo $? >/out/$n.code; done",
            scripts.len()
        );
        let mut command = Command::new("bwrap");
        command.args([
            "--die-with-parent",
            "--unshare-all",
            "--uid",
            "65534",
            "--gid",
            "65534",
            "--clearenv",
        ]);
        for folder in ["/usr", "/etc/alternatives"] {
            command.args(["--ro-bind", folder, folder]);
        }
        for (target, link) in [
            ("usr/bin", "/bin"),
            ("usr/lib", "/lib"),
            ("usr/lib64", "/lib64"),
        ] {
            command.args(["--symlink", target, link]);
        }
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        for folder in ["work", "out"] {
            command
                .arg("--bind")
                .arg(self.place.path().join(folder))
                .arg(format!("/{folder}"));
        }
        command.args([
            "--setenv",
            "PATH",
            "/usr/local/bin:/usr/bin:/bin",
            "--chdir",
            "/work",
        ]);
        let status = command.args(["bash", "-c", &all]).status();
        let status = status.expect("bwrap has to be there: install the package bubblewrap");
        assert!(
            status.success(),
            "bwrap made no jail; it needs unprivileged user namespaces, or root"
        );
        (0..scripts.len()).map(|at| read(&out, at)).collect()
    }

    fn errors(&self, at: usize) -> String {
        fs::read_to_string(self.place.path().join(format!("out/{at}.stderr"))).unwrap_or_default()
    }
}

fn read(out: &Path, at: usize) -> Option<String> {
    let code = fs::read_to_string(out.join(format!("{at}.code"))).ok()?;
    let stdout = fs::read_to_string(out.join(format!("{at}.stdout"))).ok()?;
    (code.trim() == "0").then_some(stdout)
}

fn verdict(task: &Task, printed: Option<&String>) -> Verdict {
    printed.map_or_else(Verdict::default, |printed| task.judge(printed))
}

/// Something to be done with every task, on two threads; the failures of all are shown together.
fn for_every_task(numbers: &[u32], attempt: impl Fn(&str, &Task) -> Result<(), String> + Sync) {
    let mut ids = Vec::new();
    for family in families::all() {
        for level in 1..=3 {
            ids.extend(
                numbers
                    .iter()
                    .map(|number| format!("{}/{level}/{number}", family.name)),
            );
        }
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let task = families::task(id).unwrap();
            if let Err(failure) = attempt(id, &task) {
                failures.push(format!("{id}: {failure}\n  prompt: {}", task.prompt));
            }
        }
        failures
    };
    let failures = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(
        failures.is_empty(),
        "{} tasks:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Shows each probe that is wrong.
fn wrong(task: &Task, printed: Option<&String>) -> String {
    let Some(printed) = printed else {
        return "the check broke off".to_owned();
    };
    let probes = task.probes();
    let wrong = probes
        .iter()
        .zip(printed.lines())
        .filter(|(probe, line)| !probe.is_right(line));
    wrong
        .map(|(probe, line)| {
            format!(
                "\n  {:?} {:?}\n    wants {:?}\n    got {line}",
                probe.weight, probe.look, probe.expected
            )
        })
        .collect()
}

#[test]
fn every_task_is_unsolved_at_first_solved_by_its_solution_and_lost_when_all_is_destroyed() {
    for_every_task(&[0, FIRST_HELD_OUT], |id, task| {
        let jail = Jail::new();
        let (setup, check) = (task.setup(), task.check());
        let solution = task.solution.iter().map(|command| in_the_machine(command));
        let solution: Vec<_> = solution.collect();
        let mut scripts = vec![setup.as_str(), "true", &check];
        scripts.extend(solution.iter().map(String::as_str));
        let solved = scripts.len();
        scripts.push(&check);
        if id.ends_with("/0") {
            scripts.extend([DESTROY, &check]);
        }
        let printed = jail.run(&scripts);
        if printed[0].is_none() {
            return Err(format!("its setup failed: {}", jail.errors(0)));
        }
        let before = printed[2].as_ref().ok_or("its check broke off")?;
        if before.lines().count() != task.probes().len() {
            return Err(format!("its check is incomplete: {before}"));
        }
        if task.judge(before) != Verdict::default() {
            let verdict = task.judge(before);
            return Err(format!("something is earned by nothing: {verdict:?}"));
        }
        let after = verdict(task, printed[solved].as_ref());
        if !after.solved || after.value != 1.0 {
            let errors: Vec<_> = (3..solved).map(|at| jail.errors(at)).collect();
            return Err(format!(
                "not solved by {:?}: {} {}",
                task.solution,
                wrong(task, printed[solved].as_ref()),
                errors.concat()
            ));
        }
        match printed
            .get(solved + 2)
            .map(|last| verdict(task, last.as_ref()))
        {
            Some(destroyed) if destroyed.value > 0.0 => {
                Err(format!("destroying everything earns {destroyed:?}"))
            }
            _ => Ok(()),
        }
    });
}

/// Deletes every file and ends every process that a task may be about.
const DESTROY: &str = "find /work -mindepth 1 -delete
for p in /proc/[0-9]*; do
  case $(tr '\\0' ' ' <$p/cmdline) in 'sleep '*) kill ${p#/proc/} ;; esac
done
true";

#[test]
fn a_check_does_not_heed_what_the_model_left_in_its_way() {
    // Programs of its own, start-up files for bash and Python, settings for git, and, at the end, a working folder that is closed.
    let sabotage = "mkdir -p /tmp/bin; for n in git python3 cat head tr sed sort readlink env bash; do
          printf '#!/bin/sh\nexit 0\n' >/tmp/bin/$n; chmod +x /tmp/bin/$n; done
        echo 'exit 0' >/tmp/env; echo 'raise SystemExit' >/tmp/sitecustomize.py; printf '[log]\nshowSignature=true\n' >/tmp/.gitconfig
        export PATH=/tmp/bin:$PATH BASH_ENV=/tmp/env PYTHONPATH=/tmp HOME=/tmp GIT_DIR=/nowhere";
    for id in [
        "find-largest/1/0",
        "tar-make/2/0",
        "git-commit/3/0",
        "json-edit/1/0",
    ] {
        let task = families::task(id).unwrap();
        let jail = Jail::new();
        let (setup, check) = (task.setup(), task.check());
        let sabotaged = format!("{sabotage}\n{check}");
        let solution = in_the_machine(&task.solution.join("\n"));
        let closed = ["chmod 000 /work", &check, "chmod 755 /work"];
        let scripts = [
            &[setup.as_str(), &sabotaged, &solution, &sabotaged],
            &closed[..],
        ]
        .concat();
        let printed = jail.run(&scripts);
        let verdicts = [1, 3, 5].map(|at| verdict(&task, printed[at].as_ref()).value);
        assert_eq!(verdicts, [0.0, 1.0, 0.0], "{id}");
    }
}

#[test]
fn what_only_looks_like_a_solution_earns_nothing() {
    // Of each task, what its solution is turned into.
    for (id, from, to) in [
        ("find-largest/1/0", "| head -1 ", ""),
        ("find-name/1/0", "-name", "-not -name"),
        ("make-file/1/0", "echo", "echo the line:"),
        ("move-files/1/0", "mv", "cp"),
        ("move-files/1/0", "mv", "ls #"),
        ("delete-files/2/0", "rm ", "rm -r *; rm -f "),
        ("rename-extension/1/0", "mv", "cp"),
        ("link-make/1/0", "ln -s", "cp"),
        ("gzip-file/1/0", "gzip", "gzip -k"),
        ("tar-make/1/0", "tar -cf", "touch"),
        ("replace-word/1/0", "/g", "/"),
        ("permissions/1/0", "chmod", "echo"),
        ("kill-process/1/0", "kill", "rm"),
        ("git-commit/1/0", "-am", "--allow-empty -m"),
        ("git-branch/3/0", "merge -q", "branch -D"),
        ("git-tag/2/0", "$(", "HEAD #"),
        ("checksum-make/1/0", "sha256sum", "md5sum"),
        ("set-time/1/0", "touch -d", "touch -h -c #"),
    ] {
        let task = families::task(id).unwrap();
        let cheat = task.solution.join("\n").replace(from, to);
        assert_ne!(cheat, task.solution.join("\n"), "{id}");
        let printed = Jail::new().run(&[
            &task.setup(),
            &in_the_machine(&cheat),
            "true",
            &task.check(),
        ]);
        assert!(printed[0].is_some() && printed[3].is_some(), "{id}");
        assert_eq!(
            verdict(&task, printed[3].as_ref()).value,
            0.0,
            "{id}: {cheat}"
        );
    }
}

/// A command in the environment that a machine's commands have.
fn in_the_machine(command: &str) -> String {
    format!("umask 022; {}\n{command}", terminal::task::ENVIRONMENT)
}

#[test]
fn a_file_cannot_answer_for_another_probe_and_a_pipe_does_not_stop_the_check() {
    let task = families::task("make-file/3/0").unwrap();
    let jail = Jail::new();
    let check = task.check();
    // Every file that is asked for becomes a pipe that nobody writes to, or a link to a device without end.
    let traps: Vec<_> = task.solution[1..]
        .iter()
        .filter_map(|command| command.rsplit("> ").next())
        .collect();
    let pipes = format!(
        "{}; mkfifo {}; ln -s /dev/zero {}",
        task.solution[0], traps[0], traps[1]
    );
    let printed = jail.run(&[
        &task.setup(),
        &pipes,
        &format!("timeout 20 bash -c {}", quoted(&check)),
    ]);
    assert_eq!(verdict(&task, printed[2].as_ref()), Verdict::default());
    assert!(printed[2].is_some());
}

#[test]
fn part_of_a_solution_earns_part_of_half_and_destroying_takes_it_away() {
    let task = families::task("make-file/3/0").unwrap();
    let jail = Jail::new();
    let check = task.check();
    let one_of_three = task.solution[..2].join("\n");
    let printed = jail.run(&[&task.setup(), &one_of_three, &check, "rm -- *.md", &check]);
    let half = verdict(&task, printed[2].as_ref());
    assert_eq!((half.solved, half.parts), (false, 1));
    assert!((half.value - 0.5 / 3.0).abs() < 1e-9, "{half:?}");
    assert_eq!(verdict(&task, printed[4].as_ref()).value, 0.0);
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
