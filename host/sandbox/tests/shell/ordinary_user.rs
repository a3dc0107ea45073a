//! The same machines, made by a host that is not root.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use sandbox::shell::{ChangeKind, Config, Ending, Machines};

/// A user that exists everywhere and owns nothing.
const NOBODY: &str = "65534";
const FOLDER: &str = "SANDBOX_TEST_FOLDER";

/// Runs this test binary again as an ordinary user, with only the ignored test below.
#[test]
fn an_ordinary_user_gets_the_same_machine() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let program = folder.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let root = fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Uid:\t0\t0");
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .arg(&program);
        command
    } else {
        Command::new(&program)
    };
    let name = "ordinary_user::as_an_ordinary_user";
    let output = command
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(FOLDER, folder.path().join("machines"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "run by the test above"]
fn as_an_ordinary_user() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let long = Duration::from_secs(30);
    let machines =
        Machines::new(Config::default(), folder.as_ref()).unwrap_or_else(|why| panic!("{why}"));
    let mut machine = machines.create("empty").unwrap();
    let output = machine
        .run("id -u; echo text > file; sleep 1000 & true", "/work", long)
        .unwrap();
    assert_eq!(output.stdout, "1000\n");
    machine
        .write_file("/work/below/own", b"own", false)
        .unwrap();
    let state = machine.snapshot().unwrap();
    let output = machine.run(
        "cat below/own; rm -r below; mkdir shut; chmod 000 shut; sleep 1000",
        "/work",
        Duration::from_secs(2),
    );
    let output = output.unwrap();
    assert_eq!(
        (output.ending, output.stdout.as_str()),
        (Ending::TimedOut, "own")
    );
    machine
        .run("rmdir shut; echo more >> file", "/work", long)
        .unwrap();
    let changes = machine.changes(state).unwrap();
    let changes: Vec<_> = changes.iter().map(|c| (c.path.as_str(), c.kind)).collect();
    assert_eq!(
        changes,
        [
            ("/work/below", ChangeKind::Removed),
            ("/work/below/own", ChangeKind::Removed),
            ("/work/file", ChangeKind::Modified),
        ]
    );
    machine
        .run("mkdir -p shut/x; chmod 000 shut", "/work", long)
        .unwrap();
    machine.roll_back(state).unwrap();
    let output = machine
        .run("cat file below/own; ls; pgrep -c sleep", "/work", long)
        .unwrap();
    assert_eq!(output.stdout, "text\nownbelow\nfile\n0\n");
    let output = machine
        .run(
            "ls /proc/1/root/ /root; unshare -U true; cat /etc/shadow; echo x > /usr/x",
            "/work",
            long,
        )
        .unwrap();
    assert_eq!(output.stdout, "");
    assert!(
        machine
            .read_file("/work/../etc/passwd")
            .unwrap_err()
            .is_refusal()
    );
}
