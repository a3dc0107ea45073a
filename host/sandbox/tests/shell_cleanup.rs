//! Nothing is left behind: not after a drop, and not after the end of a host, however it ends.
//!
//! The tests of this file count what the whole process has, and so run one at a time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod needs;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use sandbox::shell::{Config, Ending, Machines};

const LONG: Duration = Duration::from_secs(30);
const FOLDER: &str = "SANDBOX_TEST_FOLDER";
/// Jails of this file belong to a user of their own, by which they are found.
const USER: u32 = 2_000_000_777;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    needs::one_of(&["bwrap"]);
    ONE_AT_A_TIME.lock()
}

fn machines(folder: &Path) -> Machines {
    let config = Config {
        user: USER,
        ..Config::default()
    };
    Machines::new(config, folder).unwrap_or_else(|why| panic!("{why}"))
}

/// What could be left behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    processes: Vec<String>,
    groups: Vec<String>,
    mounts: usize,
    descriptors: usize,
}

impl Left {
    fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut groups = Vec::new();
        for line in mounts.lines().filter(|line| line.contains("- cgroup")) {
            find_groups(Path::new(line.split(' ').nth(4).unwrap()), &mut groups);
        }
        Self {
            processes: processes(),
            groups,
            mounts: mounts.lines().count(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        }
    }
}

fn find_groups(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path();
            // Other processes' machines are not counted: theirs have another number.
            let own = [format!("nextstate-{}-", std::process::id()), child_groups()];
            let name = entry.file_name().to_string_lossy().into_owned();
            if own
                .iter()
                .any(|own| !own.is_empty() && name.starts_with(own))
            {
                found.push(path.to_string_lossy().into_owned());
            }
            find_groups(&path, found);
        }
    }
}

static CHILD: Mutex<Option<u32>> = Mutex::new(None);

fn child_groups() -> String {
    let child = *CHILD.lock();
    child
        .map(|child| format!("nextstate-{child}-"))
        .unwrap_or_default()
}

/// Processes of this file's jails. For an ordinary user: its own processes in another namespace.
fn processes() -> Vec<String> {
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Ok(status) = fs::read_to_string(path.join("status")) else {
            continue;
        };
        let theirs = status.contains(&format!("Uid:\t{USER}"));
        let elsewhere = !is_root() && fs::read_link(path.join("ns/pid")).is_ok_and(|ns| ns != own);
        if theirs || elsewhere {
            found.push(status.lines().take(3).collect::<Vec<_>>().join(" "));
        }
    }
    found
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Uid:\t0\t0")
}

/// Dying takes the kernel a moment.
fn soon(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        if holds() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    holds()
}

#[test]
fn two_hundred_machines_leave_nothing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let host = machines(&folder.path().join("machines"));
    let before = Left::now();
    for round in 0..200 {
        let mut machine = host.create("empty").unwrap();
        if round % 4 == 0 {
            machine
                .run("sleep 1000 & setsid sleep 1000 & echo x > x", "/work", LONG)
                .unwrap();
            machine.snapshot().unwrap();
        }
        if round % 20 == 0 {
            machine.run("rm x", "/work", LONG).unwrap();
            machine.roll_back(0).unwrap();
            machine
                .run("yes", "/work", Duration::from_millis(50))
                .unwrap();
        }
        assert_eq!(host.live(), 1);
    }
    assert_eq!(host.live(), 0);
    assert!(
        soon(|| Left::now() == before),
        "{:?}, not {before:?}",
        Left::now()
    );
    let inside = folder.path().join("machines/machines");
    assert_eq!(fs::read_dir(inside).unwrap().count(), 0);
    drop(host);
    let left: Vec<_> = fs::read_dir(folder.path().join("machines"))
        .unwrap()
        .flatten()
        .collect();
    let left: Vec<_> = left.iter().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["owner"]);
}

#[test]
fn a_machine_whose_first_process_is_gone_says_so_and_leaves_nothing() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let host = machines(&folder.path().join("machines"));
    let before = Left::now();
    let mut machine = host.create("empty").unwrap();
    machine.run("sleep 1000 & true", "/work", LONG).unwrap();
    let records = fs::read_dir(folder.path().join("machines/machines")).unwrap();
    let record = records
        .flatten()
        .next()
        .unwrap()
        .path()
        .join("machine.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let first = record["first"]["number"].to_string();
    assert!(
        Command::new("kill")
            .args(["-9", &first])
            .status()
            .unwrap()
            .success()
    );
    assert!(soon(|| machine.read_file("/work/x").is_err()));
    for why in [
        machine.run("true", "/work", LONG).map(drop).unwrap_err(),
        machine.write_file("/work/x", b"", false).unwrap_err(),
        machine.snapshot().map(drop).unwrap_err(),
        machine.roll_back(0).unwrap_err(),
        machine.changes(0).map(drop).unwrap_err(),
    ] {
        assert!(
            !why.is_refusal() && why.to_string().contains("gone"),
            "{why}"
        );
    }
    drop(machine);
    assert!(
        soon(|| Left::now() == before),
        "{:?}, not {before:?}",
        Left::now()
    );
    let output = host
        .create("empty")
        .unwrap()
        .run("true", "/work", LONG)
        .unwrap();
    assert_eq!(output.ending, Ending::Exited(0));
}

/// Starts this test binary again as a host with machines, and waits until they are there.
fn start_host(folder: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_host_to_be_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    *CHILD.lock() = Some(child.id());
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let ready = lines
        .map_while(Result::ok)
        .any(|line| line.ends_with("ready"));
    assert!(ready, "the other host did not start");
    child
}

#[test]
#[ignore = "run by other tests, which kill it"]
fn a_host_to_be_killed() {
    let host = machines(std::env::var_os(FOLDER).unwrap().as_ref());
    let mut all = Vec::new();
    for number in 0..3 {
        let mut machine = host.create("empty").unwrap();
        let leaves =
            "sleep 1000 & setsid sleep 1000 & (trap '' TERM HUP; exec sleep 1000) & echo x > x";
        machine.run(leaves, "/work", LONG).unwrap();
        if number > 0 {
            machine.snapshot().unwrap();
        }
        all.push(machine);
    }
    std::thread::scope(|scope| {
        // One is in the middle of a command.
        let mut busy = all.pop().unwrap();
        scope.spawn(move || busy.run("echo y > y; sleep 50", "/work", Duration::from_secs(55)));
        tell("ready");
        // Until it is killed.
        let mut nothing = Vec::new();
        std::io::stdin().read_to_end(&mut nothing).unwrap();
    });
}

fn tell(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
}

#[test]
fn a_host_that_is_killed_leaves_nothing_to_the_next() {
    let _alone = alone();
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().join("machines");
    *CHILD.lock() = None;
    let before = Left::now();
    for _ in 0..3 {
        let mut child = start_host(&folder);
        assert!(processes().len() > 12, "{:?}", processes());
        let why = Machines::new(Config::default(), &folder).unwrap_err();
        assert!(
            why.is_refusal() && why.to_string().contains("another host"),
            "{why}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        // Without anyone's help: jails do not outlive their host.
        assert!(soon(|| processes().is_empty()), "{:?}", processes());
        assert!(folder.join("machines").read_dir().unwrap().count() > 0);
        drop(child);
        let host = machines(&folder);
        assert_eq!(host.live(), 0);
        assert_eq!(folder.join("machines").read_dir().unwrap().count(), 0);
        drop(host);
        assert!(
            soon(|| Left::now() == before),
            "{:?}, not {before:?}",
            Left::now()
        );
    }
}

#[test]
fn hosts_with_folders_of_their_own_leave_each_other_alone() {
    let _alone = alone();
    let own = tempfile::tempdir().unwrap();
    let first = machines(&own.path().join("first"));
    let mut machine = first.create("empty").unwrap();
    machine
        .run("sleep 1000 & echo x > x", "/work", LONG)
        .unwrap();
    drop(machines(&own.path().join("second")));
    let output = machine.run("cat x; pgrep -c sleep", "/work", LONG).unwrap();
    assert_eq!(output.stdout, "x\n1\n");
    let why = Machines::new(Config::default(), &own.path().join("first")).unwrap_err();
    assert!(why.is_refusal(), "{why}");
    let output = machine.run("cat x; pgrep -c sleep", "/work", LONG).unwrap();
    assert_eq!(output.stdout, "x\n1\n");
}

#[test]
fn a_folder_of_someone_else_is_refused_and_kept() {
    let _alone = alone();
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("machines/precious");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "text").unwrap();
    let why = Machines::new(Config::default(), own.path()).unwrap_err();
    assert!(
        why.is_refusal() && why.to_string().contains("not empty"),
        "{why}"
    );
    assert_eq!(fs::read(&file).unwrap(), b"text");
    let why = Machines::new(Config::default(), &file).unwrap_err();
    assert!(why.to_string().contains("precious"), "{why}");
}
