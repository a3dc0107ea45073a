//! Every abuse ends in bounded time, hurts only its own machine, and leaves the next command working where it can.

use std::time::{Duration, Instant};

use sandbox::shell::{Ending, Machine, Output};

use crate::support::{Host, LONG, appears, host, machine, run, said};

/// Runs for at most some seconds, and checks that this is true.
fn bounded(machine: &mut Machine, command: &str) -> Output {
    let time = Duration::from_secs(4);
    let begin = Instant::now();
    let output = machine.run(command, "/work", time).unwrap();
    assert!(
        begin.elapsed() < time + LONG,
        "{command}: {:?}",
        begin.elapsed()
    );
    output
}

#[test]
fn a_flood_is_cut_and_stopped() {
    let (_host, mut machine) = machine();
    let output = bounded(&mut machine, "yes & yes >&2");
    assert_eq!(output.ending, Ending::TimedOut);
    assert!(output.cut);
    assert_eq!((output.stdout.len(), output.stderr.len()), (65_536, 65_536));
    let output = run(&mut machine, "head -c 65536 /dev/zero | tr '\\0' x");
    assert!(!output.cut && output.stdout.len() == 65_536);
    let output = run(&mut machine, "head -c 65537 /dev/zero | tr '\\0' x");
    assert!(output.cut && output.stdout.len() == 65_536);
    let output = run(&mut machine, "head -c 30000000 /dev/zero; echo late >&2");
    assert_eq!(
        (output.ending, output.stderr.as_str()),
        (Ending::Exited(0), "late\n")
    );
}

#[test]
fn a_flood_in_the_background_does_not_hold_later_commands() {
    let (_host, mut machine) = machine();
    for _ in 0..3 {
        said(&mut machine, "yes & yes >&2 & true");
    }
    let begin = Instant::now();
    assert_eq!(said(&mut machine, "echo works"), "works\n");
    assert!(begin.elapsed() < LONG);
}

#[test]
fn a_fork_bomb_ends_with_its_command() {
    let (_host, mut machine) = machine();
    for bomb in [
        "bomb() { bomb | bomb & }; bomb; sleep 1000",
        // Each one is gone before it can be looked at.
        "cat > b.py <<'END'\nimport os\nwhile True:\n    try:\n        if os.fork(): os._exit(0)\n    except OSError: pass\nEND\npython3 b.py & python3 b.py & sleep 1000",
        "python3 -c \"import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\"",
    ] {
        let output = bounded(&mut machine, bomb);
        assert_eq!(output.ending, Ending::TimedOut, "{bomb}: {output:?}");
        assert_eq!(
            said(&mut machine, "ps -e --no-headers | wc -l").trim(),
            "4",
            "{bomb}"
        );
    }
}

#[test]
fn processes_are_limited_for_the_whole_machine_and_not_for_others() {
    let host = host(|config| config.processes = 20);
    let mut one = host.machines.create("empty").unwrap();
    let mut two = host.machines.create("empty").unwrap();
    let many = "import subprocess\nn = 0\ntry:\n    while n < 100: subprocess.Popen(['sleep', '1000']); n += 1\nexcept OSError: pass\nprint(n)";
    one.write_file("/work/many.py", many.as_bytes(), false)
        .unwrap();
    let started: u32 = said(&mut one, "python3 many.py").trim().parse().unwrap();
    assert!((10..=20).contains(&started), "{started}");
    assert_eq!(
        said(
            &mut two,
            "for i in 1 2 3 4 5; do sleep 1000 & done; echo fine"
        ),
        "fine\n"
    );
}

#[test]
fn memory_is_limited() {
    let host = host(|config| {
        config.memory_mib = 128;
        config.disk_mib = 16;
    });
    let mut machine = host.machines.create("empty").unwrap();
    let output = bounded(&mut machine, "python3 -c \"x = bytearray(300 << 20)\"");
    assert!(
        matches!(output.ending, Ending::Exited(1 | 137) | Ending::Killed(9)),
        "{output:?}"
    );
    assert_eq!(
        said(
            &mut machine,
            "python3 -c 'x = bytearray(40 << 20)'; echo fine"
        ),
        "fine\n"
    );
}

/// Memory of a machine and not of a process; only groups can do that.
#[test]
fn memory_is_limited_for_all_processes_together() {
    let host = host(|config| {
        config.memory_mib = 128;
        config.disk_mib = 16;
    });
    let mut machine = host.machines.create("empty").unwrap();
    if std::fs::read_dir("/sys/fs/cgroup").is_err() || !is_root() {
        return;
    }
    let eat = "for i in 1 2 3 4 5 6; do python3 -c \"import time; x = bytearray(40 << 20); open('done', 'a').write('x'); time.sleep(1000)\" & done; sleep 3; wc -c < done; pgrep -c python3; true";
    let output = machine.run(eat, "/work", LONG).unwrap();
    let alive = output
        .stdout
        .lines()
        .last()
        .and_then(|n| n.trim().parse().ok());
    assert!(alive.is_none_or(|alive: u32| alive < 4), "{output:?}");
    assert_eq!(said(&mut machine, "echo fine"), "fine\n");
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .contains("Uid:\t0\t0")
}

#[test]
fn the_disk_is_limited() {
    let host = host(|config| {
        config.disk_mib = 16;
        config.memory_mib = 256;
    });
    let mut machine = host.machines.create("empty").unwrap();
    for place in ["/work", "/tmp", "/dev/shm", "/var/tmp"] {
        let fill = format!(
            "cd {place}; for i in $(seq 40); do head -c 1000000 /dev/zero > full$i || break; done 2>/dev/null; cat full* | wc -c; rm full*"
        );
        let written: u64 = said(&mut machine, &fill).trim().parse().unwrap();
        assert!(
            (10_000_000..=16 << 20).contains(&written),
            "{place}: {written}"
        );
    }
    let inodes = "python3 -c \"\nn = 0\ntry:\n    while n < 100000: open('i%d' % n, 'w').close(); n += 1\nexcept OSError: pass\nprint(n)\"";
    let files: u32 = said(&mut machine, inodes).trim().parse().unwrap();
    assert!(files < 100_000 || !is_root(), "{files}");
    said(&mut machine, "find . -name 'i*' -delete; echo fine > fine");
}

#[test]
fn processor_time_is_limited() {
    let host = host(|config| config.cpu_seconds = 1);
    let mut machine = host.machines.create("empty").unwrap();
    let output = machine
        .run("while :; do :; done", "/work", LONG * 2)
        .unwrap();
    assert!(
        matches!(output.ending, Ending::Killed(9 | 24)),
        "{output:?}"
    );
}

#[test]
fn what_closes_its_output_or_stops_or_ignores_is_ended() {
    let (_host, mut machine) = machine();
    for command in [
        "exec >&- 2>&-; sleep 1000",
        "kill -STOP $$",
        "trap '' TERM INT HUP QUIT; while :; do sleep 1000; done",
        "sleep 1000 & kill -STOP $! $$",
        "python3 -c 'import time, signal; [signal.signal(s, signal.SIG_IGN) for s in range(1, 32) if s not in (9, 19)]; time.sleep(1000)'",
    ] {
        let output = machine
            .run(command, "/work", Duration::from_secs(1))
            .unwrap();
        assert_eq!(output.ending, Ending::TimedOut, "{command}: {output:?}");
        assert_eq!(
            said(&mut machine, "pgrep -c sleep; true"),
            "0\n",
            "{command}"
        );
    }
}

#[test]
fn killing_everything_kills_only_what_is_the_users() {
    let (_host, mut machine) = machine();
    said(&mut machine, "echo kept > file; sleep 1000 & true");
    // bash does not count itself among everything.
    assert_eq!(bounded(&mut machine, "kill -9 -1; echo on").stdout, "on\n");
    assert_eq!(
        bounded(
            &mut machine,
            "kill -9 1; kill -TERM 1; kill -STOP 1; cat file"
        )
        .stdout,
        "kept\n"
    );
    run(&mut machine, "(while :; do kill -9 -1; done) & sleep 0.1");
    // The killer may kill this one, too, but not for ever, and not the machine.
    let output = bounded(&mut machine, "echo hi; sleep 1000");
    assert!(matches!(output.ending, Ending::Killed(9)), "{output:?}");
    let state = machine.snapshot().unwrap();
    machine.roll_back(state).unwrap();
    assert_eq!(said(&mut machine, "cat file"), "kept\n");
}

#[test]
fn a_shell_that_waits_and_is_stopped_or_killed_costs_one_command_at_most() {
    let (_host, mut machine) = machine();
    for signal in ["KILL", "STOP"] {
        let harm = format!(
            "(for i in $(seq 100); do sleep 0.02; for p in /proc/[0-9]*; do p=${{p#/proc/}}; [ $p = 1 ] || [ $p = $BASHPID ] || kill -{signal} $p; done; done; touch over) 2>/dev/null & true"
        );
        said(&mut machine, &harm);
        assert!(appears(&mut machine, "/work/over"));
        let output = machine
            .run("rm over; echo fine", "/work", Duration::from_secs(2))
            .unwrap();
        assert!(
            output.stdout == "fine\n" || output.ending == Ending::TimedOut,
            "{output:?}"
        );
        assert_eq!(said(&mut machine, "rm -f over; echo fine"), "fine\n");
    }
}

#[test]
fn a_command_that_has_no_time_to_begin_does_not_run_later() {
    let (_host, mut machine) = machine();
    for _ in 0..10 {
        let output = machine.run(
            "sleep 0.3; touch /work/late",
            "/work",
            Duration::from_micros(100),
        );
        assert_eq!(output.unwrap().ending, Ending::TimedOut);
    }
    said(&mut machine, "sleep 1; [ ! -e late ]");
}

#[test]
fn one_machine_in_trouble_does_not_slow_another() {
    let Host {
        machines,
        folder: _folder,
    } = host(|_| {});
    std::thread::scope(|scope| {
        let mut bad = machines.create("empty").unwrap();
        let mut good = machines.create("empty").unwrap();
        let thread = scope.spawn(move || {
            let bomb = "bomb() { bomb | bomb & }; bomb; yes";
            bad.run(bomb, "/work", Duration::from_secs(5))
                .unwrap()
                .ending
        });
        for _ in 0..5 {
            assert_eq!(said(&mut good, "echo fine"), "fine\n");
        }
        assert_eq!(thread.join().unwrap(), Ending::TimedOut);
    });
}

#[test]
fn limits_hold_without_control_groups() {
    let host = host(|config| {
        config.control_groups = false;
        config.processes = 20;
        config.memory_mib = 256;
        config.disk_mib = 16;
    });
    let mut machine = host.machines.create("empty").unwrap();
    let output = bounded(&mut machine, "bomb() { bomb | bomb & }; bomb; sleep 1000");
    assert_eq!(output.ending, Ending::TimedOut, "{output:?}");
    let output = run(&mut machine, "python3 -c \"x = bytearray(400 << 20)\"");
    assert_eq!(output.ending, Ending::Exited(1), "{output:?}");
    assert!(output.stderr.contains("MemoryError"), "{output:?}");
    assert_eq!(said(&mut machine, "ulimit -u; ulimit -v"), "21\n262144\n");
}
