//! Nothing of the host is in a machine, and nothing of a machine is outside.

use std::{fs, io::Write, net::TcpListener};

use crate::support::{host, machine, run, said};

#[test]
fn no_file_and_no_variable_of_the_host_is_there() {
    let (host, mut machine) = machine();
    let mut canary = tempfile::Builder::new()
        .prefix("canary-")
        .tempfile_in("/tmp")
        .unwrap();
    writeln!(canary, "the host's secret").unwrap();
    let machine = &mut machine;
    assert_eq!(said(machine, "ls -A /tmp /work"), "/tmp:\n\n/work:\n");
    let path = canary.path().to_string_lossy().into_owned();
    for path in [
        &path,
        &host.folder.path().to_string_lossy().into_owned(),
        &env!("CARGO_MANIFEST_DIR").to_owned(),
    ] {
        assert_eq!(
            said(
                machine,
                &format!("[ -e {path} ] && echo there || echo none")
            ),
            "none\n"
        );
    }
    let found = said(
        machine,
        "ls -d /etc/shadow /etc/ssh /etc/sudoers /root /home /var/log /run /boot /sys /proc/1/root/ 2>/dev/null || true",
    );
    assert_eq!(found, "");
    // Set by cargo for every test; a machine begins with nothing of it.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")));
    let variables = said(machine, "env | cut -d= -f1 | sort | tr '\\n' ' '");
    assert_eq!(
        variables,
        "GIT_CONFIG_SYSTEM HOME LANG LOGNAME PATH PWD SHELL SHLVL TERM USER _ "
    );
    let everywhere = said(
        machine,
        "cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c -e [C]ARGO -e cana[r]y || true",
    );
    assert_eq!(everywhere, "0\n");
    assert_eq!(
        said(machine, "id -u; id -g; id -G; hostname"),
        "1000\n1000\n1000\nmachine\n"
    );
}

#[test]
fn what_a_host_holds_open_without_care_does_not_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let open = fs::File::open(folder.path()).unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let (_host, mut machine) = machine();
    // Three streams, and the one that `ls` reads with.
    assert_eq!(said(&mut machine, "ls /proc/self/fd | wc -l"), "4\n");
    drop(open);
}

#[test]
fn there_is_no_network() {
    let (_host, mut machine) = machine();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = |address: &str, port: u16| {
        format!(
            "python3 -c \"import socket; socket.create_connection(('{address}', {port}), 2)\" 2>&1 | tail -1"
        )
    };
    for address in ["127.0.0.1", "1.1.1.1", "::1"] {
        let why = run(&mut machine, &connect(address, port)).stdout;
        assert!(why.contains("Error"), "{address}: {why}");
    }
    let devices = said(
        &mut machine,
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '",
    );
    assert_eq!(devices, "lo\n");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "someone came through");
}

#[test]
fn machines_do_not_see_each_other() {
    let host = host(|_| {});
    let mut one = host.machines.create("empty").unwrap();
    let mut two = host.machines.create("empty").unwrap();
    said(
        &mut one,
        "echo secret > /tmp/one; sleep 1234 & ipcmk -Q >/dev/null 2>&1; true",
    );
    assert_eq!(
        said(
            &mut two,
            "ls -A /tmp; pgrep -c sleep; ipcs -q | grep -c '^0x' ; true"
        ),
        "0\n0\n"
    );
    assert_eq!(run(&mut two, "kill -9 -1; true").stdout, "");
    assert_eq!(said(&mut one, "pgrep -c sleep"), "1\n");
}

#[test]
fn no_one_in_a_machine_can_gain_rights() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    let rights = said(
        machine,
        "grep -E 'Cap(Inh|Prm|Eff|Amb)|NoNewPrivs' /proc/self/status | tr -d ' \\t'",
    );
    let none = "0".repeat(16);
    assert_eq!(
        rights,
        format!("CapInh:{none}\nCapPrm:{none}\nCapEff:{none}\nNoNewPrivs:1\n")
            .replace("NoNewPrivs", &format!("CapAmb:{none}\nNoNewPrivs"))
    );
    for attempt in [
        "unshare -U true",
        "unshare -r true",
        "unshare -m true",
        "unshare -n true",
        "mount -t tmpfs none /work",
        "umount /work",
        "chroot / true",
        "chown 0 /work",
        "mknod device c 1 1",
        "touch /usr/x",
        "touch /etc/x",
        "touch /x",
        "ls /.layers",
        "cd /.layers",
        "echo 1000 > /proc/sys/user/max_user_namespaces",
        "echo x > /proc/sys/kernel/core_pattern",
        "cat /proc/1/environ",
        "readlink /proc/1/fd/0",
        "ls /proc/1/root/",
        "python3 -c 'import os; os.setuid(0)'",
        "ulimit -x unlimited",
        "ulimit -u 100000",
        "nsenter -t 1 -m true",
        "dmesg",
    ] {
        let output = run(machine, &format!("({attempt}) 2>/dev/null && echo worked"));
        assert_eq!(
            output.stdout.lines().last().unwrap_or_default(),
            "",
            "{attempt}: {output:?}"
        );
    }
}

#[test]
fn the_folder_of_a_host_is_closed_to_others() {
    let (host, mut machine) = machine();
    machine.snapshot().unwrap();
    let folder = host.folder.path().join("machines");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&folder).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}
