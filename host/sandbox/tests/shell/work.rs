//! What an agent does all day.

use std::time::Duration;

use sandbox::shell::Ending;

use crate::support::{LONG, appears, host, image, machine, run, said};

#[test]
fn the_programs_of_an_agent_work() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    assert_eq!(
        said(machine, "printf 'b\\na\\n' | sort | tr -d '\\n'"),
        "ab"
    );
    assert_eq!(said(machine, "python3 -c 'print(6 * 7)'"), "42\n");
    let git = "git init -q . && echo text > file && git add . && git commit -qm first && git log --oneline | wc -l";
    assert_eq!(said(machine, git).trim(), "1");
    assert_eq!(said(machine, "cat <<'END' | wc -c\nline\nEND"), "5\n");
    let many = "import concurrent.futures as c\nwith c.ProcessPoolExecutor(2) as p: print(sum(p.map(abs, [-1, -2])))";
    machine
        .write_file("/work/many.py", many.as_bytes(), false)
        .unwrap();
    assert_eq!(said(machine, "python3 many.py"), "3\n");
}

#[test]
fn a_command_tells_how_it_ended() {
    let (_host, mut machine) = machine();
    for (command, ending) in [
        ("true", Ending::Exited(0)),
        ("false", Ending::Exited(1)),
        ("exit 137", Ending::Exited(137)),
        ("no-such-program", Ending::Exited(127)),
        ("kill -9 $$", Ending::Killed(9)),
        ("kill -TERM $$", Ending::Killed(15)),
        ("kill -SEGV $$", Ending::Killed(11)),
        ("if", Ending::Exited(2)),
    ] {
        assert_eq!(run(&mut machine, command).ending, ending, "{command}");
    }
}

#[test]
fn both_streams_come_back_and_stdin_is_empty() {
    let (_host, mut machine) = machine();
    let output = run(&mut machine, "cat; echo out; echo err >&2; printf '\\xff'");
    assert_eq!(output.stdout, "out\n\u{fffd}");
    assert_eq!(output.stderr, "err\n");
    assert!(!output.cut);
}

#[test]
fn files_stay_from_one_command_to_the_next_and_variables_do_not() {
    let (_host, mut machine) = machine();
    said(
        &mut machine,
        "mkdir below; echo kept > below/file; X=1; export X",
    );
    let output = machine.run("cat file; echo [$X]; pwd", "/work/below", LONG);
    assert_eq!(output.unwrap().stdout, "kept\n[]\n/work/below\n");
}

#[test]
fn a_long_command_arrives_whole() {
    let (_host, mut machine) = machine();
    let text = "é x'y\"z\n".repeat(4_000);
    let command = format!("cat > file <<'END'\n{text}END\n\n");
    assert!(command.len() > 30_000);
    said(&mut machine, &command);
    let file = machine.read_file("/work/file").unwrap().unwrap();
    assert_eq!(String::from_utf8(file).unwrap(), text);
    let why = machine.run(&"x".repeat(65_537), "/work", LONG).unwrap_err();
    assert!(why.is_refusal(), "{why}");
    let why = machine.run("echo a\0b", "/work", LONG).unwrap_err();
    assert!(why.is_refusal(), "{why}");
}

#[test]
fn what_runs_in_the_background_lives_on() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    // It writes to its command's stdout after that command is over, and more than a pipe holds.
    said(
        machine,
        "(while [ ! -e go ]; do sleep 0.02; done; head -c 300000 /dev/zero && echo done > end) & echo $! > number",
    );
    said(machine, "kill -0 $(cat number) && touch go");
    let waits = "for i in $(seq 500); do [ -e end ] && exit 0; sleep 0.02; done; exit 1";
    said(machine, waits);
    said(machine, "sleep 1000 & echo $! > number");
    said(machine, "kill $(cat number)");
    said(
        machine,
        "for i in $(seq 500); do kill -0 $(cat number) || exit 0; sleep 0.02; done; exit 1",
    );
}

#[test]
fn a_background_process_does_not_hold_its_command() {
    let (_host, mut machine) = machine();
    let begin = std::time::Instant::now();
    assert_eq!(said(&mut machine, "sleep 1000 & echo at once"), "at once\n");
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_server_answers_later_commands() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    let server = "import http.server, socketserver\ns = socketserver.TCPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\nopen('port', 'w').write(str(s.server_address[1])); open('ready', 'w'); s.serve_forever()";
    machine
        .write_file("/work/server.py", server.as_bytes(), false)
        .unwrap();
    said(machine, "python3 server.py & echo started");
    if !appears(machine, "/work/ready") {
        panic!("{:?}", run(machine, "ps aux; ip link"));
    }
    let ask = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:' + open('port').read() + '/ready').status)\"";
    assert_eq!(said(machine, ask), "200\n");
}

#[test]
fn a_command_that_runs_too_long_is_killed_with_what_it_started_and_nothing_else() {
    let (_host, mut machine) = machine();
    let machine = &mut machine;
    said(machine, "sleep 1001 & disown");
    let hides = "sleep 1002 & setsid sleep 1003 & (setsid bash -c 'sleep 1004 & disown' &) ; env -i sleep 1005 & \
                 (ulimit -HS -x 5; exec setsid sleep 1006) & \
                 python3 -c 'import os; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); os.execvp(\"sleep\", [\"sleep\", \"1008\"])'; \
                 sleep 1007";
    let output = machine.run(hides, "/work", Duration::from_secs(3)).unwrap();
    assert_eq!(output.ending, Ending::TimedOut);
    let left = said(machine, "ps -eo args | grep '^sleep' || true");
    assert_eq!(left, "sleep 1001\n");
}

#[test]
fn what_a_command_said_before_its_time_was_over_is_kept() {
    let (_host, mut machine) = machine();
    let output = machine.run("echo before; sleep 1000", "/work", Duration::from_secs(2));
    let output = output.unwrap();
    assert_eq!(
        (output.ending, output.stdout.as_str()),
        (Ending::TimedOut, "before\n")
    );
}

#[test]
fn times_and_folders_that_make_no_sense_are_refused() {
    let (_host, mut machine) = machine();
    for time in [Duration::ZERO, Duration::from_millis(60_001)] {
        let why = machine.run("true", "/work", time).unwrap_err();
        assert!(why.is_refusal(), "{why}");
    }
    for folder in [
        "",
        "work",
        "/",
        "/usr",
        "/work/none",
        "/work/../usr",
        "/work\0",
    ] {
        let why = machine.run("true", folder, LONG).unwrap_err();
        assert!(why.is_refusal(), "{folder:?}: {why}");
    }
    machine.run("true", "/tmp", LONG).unwrap();
}

#[test]
fn work_begins_as_a_copy_of_the_image_and_the_image_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(
        folder.path(),
        &[("a", "old"), ("below/b", "b"), ("run.sh", "echo ran")],
    );
    std::os::unix::fs::symlink("a", image.join("link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    std::fs::set_permissions(image.join("run.sh"), mode).unwrap();
    let host = host(|config| drop(config.images.insert("first".into(), image.clone())));
    let mut one = host.machines.create("first").unwrap();
    let mut two = host.machines.create("first").unwrap();
    assert_eq!(
        said(&mut one, "cat link; ./run.sh; stat -c '%U %a' a run.sh"),
        "oldran\nuser 644\nuser 755\n"
    );
    said(
        &mut one,
        "echo new > a; rm -r below; chmod 600 run.sh; git init -q .",
    );
    assert_eq!(said(&mut two, "cat a below/b"), "oldb");
    assert_eq!(std::fs::read(image.join("a")).unwrap(), b"old");
    let why = host.machines.create("second").unwrap_err();
    assert!(
        why.is_refusal() && why.to_string().contains("first"),
        "{why}"
    );
}

#[test]
fn many_machines_work_at_once() {
    let host = host(|config| {
        config.machines = 32;
        config.memory_mib = 96;
        config.disk_mib = 16;
    });
    let all = std::thread::scope(|scope| {
        let start = |number: u32| {
            let machines = &host.machines;
            move || {
                let mut machine = machines.create("empty").unwrap();
                let said = said(
                    &mut machine,
                    &format!("echo {number} > own; sleep 0.2; cat own"),
                );
                assert_eq!(said, format!("{number}\n"));
                let state = machine.snapshot().unwrap();
                run(&mut machine, "rm own");
                machine.roll_back(state).unwrap();
                assert_eq!(run(&mut machine, "cat own").stdout, format!("{number}\n"));
                machine
            }
        };
        let threads: Vec<_> = (0..32).map(|number| scope.spawn(start(number))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(host.machines.live(), 32);
    let why = host.machines.create("empty").unwrap_err();
    assert!(why.is_refusal() && why.to_string().contains("32"), "{why}");
    drop(all);
    assert_eq!(host.machines.live(), 0);
    host.machines.create("empty").unwrap();
}
