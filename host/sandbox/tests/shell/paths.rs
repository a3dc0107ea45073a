//! Reading and writing files from outside, and paths that try to lead elsewhere.

use sandbox::shell::Machine;

use crate::support::{host, machine, run, said};

fn refused(outcome: sandbox::Result<impl std::fmt::Debug>, what: &str) {
    match outcome {
        Err(why) => assert!(why.is_refusal(), "{what}: {why}"),
        Ok(got) => panic!("{what} was allowed: {got:?}"),
    }
}

#[test]
fn files_go_in_and_out_as_the_machine_sees_them() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    machine
        .write_file("/work/a/b/c.sh", b"echo hello", true)
        .unwrap();
    assert_eq!(said(machine, "a/b/c.sh 2>&1 || bash a/b/c.sh"), "hello\n");
    assert_eq!(
        said(machine, "stat -c '%U %a' a a/b a/b/c.sh"),
        "user 755\nuser 755\nuser 755\n"
    );
    machine
        .write_file("/work/a/b/c.sh", b"\0\xff", false)
        .unwrap();
    assert_eq!(
        said(machine, "stat -c '%s %a' a/b/c.sh; echo more >> a/b/c.sh"),
        "2 644\n"
    );
    assert_eq!(
        machine.read_file("/work/a/b/c.sh").unwrap().unwrap(),
        b"\0\xffmore\n"
    );
    machine.write_file("/tmp/x", b"in tmp", false).unwrap();
    assert_eq!(said(machine, "cat /tmp/x"), "in tmp");
    for none in ["/work/none", "/work/none/below", "/work/a/b/c.sh/below"] {
        assert_eq!(machine.read_file(none).unwrap(), None, "{none}");
    }
}

#[test]
fn a_file_of_a_mebibyte_passes_and_a_larger_one_does_not() {
    let (_host, mut machine) = machine();
    let most = vec![7; 1 << 20];
    machine.write_file("/work/most", &most, false).unwrap();
    assert_eq!(machine.read_file("/work/most").unwrap().unwrap(), most);
    refused(
        machine.write_file("/work/more", &vec![7; (1 << 20) + 1], false),
        "a write",
    );
    run(&mut machine, "echo >> most; truncate -s 100M hole");
    refused(machine.read_file("/work/most"), "a read");
    refused(machine.read_file("/work/hole"), "a read of a hole");
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let (_host, mut machine) = machine();
    let links = "ln -s /etc/passwd passwd; ln -s ../etc/passwd relative; ln -s / root; ln -s /proc/self/root proc; \
                 ln -s /proc/1/environ environ; ln -s passwd chain; ln -s loop loop; ln -s /work/../usr up; mkdir d; \
                 ln -s ../../../../../../etc d/far; ln -s /nothing/here nowhere; mkfifo pipe; ln -s /dev/null null; \
                 python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('socket')\"";
    said(&mut machine, links);
    let long = format!("/work/{}", "x".repeat(5_000));
    let name = format!("/work/{}", "x".repeat(300));
    for path in [
        "",
        "/",
        "work/x",
        "/etc/passwd",
        "/workx",
        "/tmpx/y",
        "//work/x",
        "/work/../etc/passwd",
        "/work/../../../../etc/passwd",
        "/tmp/../usr/bin/bash",
        "/work/passwd",
        "/work/relative",
        "/work/root/etc/passwd",
        "/work/proc/etc/passwd",
        "/work/environ",
        "/work/chain",
        "/work/loop",
        "/work/up/bin/bash",
        "/work/d/far/passwd",
        "/work/nowhere",
        "/work/pipe",
        "/work/socket",
        "/work/null",
        "/work/d",
        "/work",
        "/work/x\0y",
        &long,
        &name,
    ] {
        refused(machine.read_file(path), &format!("read {path:?}"));
        refused(
            machine.write_file(path, b"x", false),
            &format!("write {path:?}"),
        );
    }
    for path in [
        "/work/passwd/x",
        "/work/root/new",
        "/work/root/etc/new",
        "/work/d/far/new",
        "/work/nowhere/new",
        "/work/new/../../usr/new",
        "/work/new/",
        "/work/..",
    ] {
        refused(
            machine.write_file(path, b"x", false),
            &format!("write {path:?}"),
        );
    }
}

#[test]
fn paths_that_stay_inside_are_followed() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    said(
        machine,
        "mkdir d; echo text > d/file; ln -s d/file one; ln -s /work/d two; ln -s /tmp three; echo t > /tmp/t",
    );
    for path in [
        "/work/one",
        "/work/two/file",
        "/work/d/../one",
        "/work/./d//file",
        "/work/root/../one",
    ] {
        let content = machine.read_file(path);
        if path.contains("root") {
            assert_eq!(content.unwrap(), None);
        } else {
            assert_eq!(content.unwrap().unwrap(), b"text\n", "{path}");
        }
    }
    assert_eq!(machine.read_file("/work/three/t").unwrap().unwrap(), b"t\n");
    machine.write_file("/work/two/new", b"new", false).unwrap();
    machine.write_file("/work/one", b"changed", false).unwrap();
    assert_eq!(
        said(machine, "cat d/new d/file; readlink one"),
        "newchangedd/file\n"
    );
}

/// A process that swaps a folder and a link as fast as it can, against reads and writes through that name.
#[test]
fn a_link_that_appears_in_the_middle_leads_nowhere_else() {
    let (_host, mut machine) = machine();
    let swap = "import os\nos.makedirs('real/etc'); open('real/etc/hosts', 'w').write('inner'); os.symlink('/', 'link')\nwhile True:\n    os.rename('real', 'name'); os.rename('name', 'real'); os.rename('link', 'name'); os.rename('name', 'link')";
    machine
        .write_file("/work/swap.py", swap.as_bytes(), false)
        .unwrap();
    said(
        &mut machine,
        "python3 swap.py & while [ ! -L link ] && [ ! -L name ]; do sleep 0.02; done",
    );
    let mut inner = 0;
    for _ in 0..3_000 {
        if let Ok(Some(content)) = machine.read_file("/work/name/etc/hosts") {
            assert!(content == b"inner" || content == b"x", "{content:?}");
            inner += 1;
        }
        drop(machine.write_file("/work/name/etc/hosts", b"x", false));
    }
    assert!(inner > 0, "the swap never showed the folder");
    assert!(said(&mut machine, "cat /etc/hosts").contains("localhost"));
    outside_is_as_it_was(&mut machine);
}

fn outside_is_as_it_was(machine: &mut Machine) {
    assert_eq!(
        run(machine, "touch /etc/x /usr/x /dev/x /x /var/x").stdout,
        ""
    );
    assert_eq!(
        said(
            machine,
            "ls /etc/x /usr/x /dev/x /x /var/x 2>/dev/null | wc -l"
        ),
        "0\n"
    );
    assert_ne!(std::fs::read("/etc/hosts").unwrap_or_default(), b"x");
}

#[test]
fn a_write_that_finds_no_room_says_so() {
    let host = host(|config| {
        config.disk_mib = 2;
        config.memory_mib = 64;
    });
    let mut machine = host.machines.create("empty").unwrap();
    machine
        .write_file("/work/a", &vec![1; 1 << 20], false)
        .unwrap();
    said(&mut machine, "echo more > more");
    let why = machine
        .write_file("/work/b", &vec![1; 1 << 20], false)
        .unwrap_err();
    assert!(why.to_string().contains("full"), "{why}");
    machine
        .write_file("/tmp/b", &vec![1; 1 << 20], false)
        .unwrap();
}
