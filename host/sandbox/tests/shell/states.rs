//! Keeping states of `/work`, going back to them, and what differs; as layers and as copies.

use sandbox::shell::{ChangeKind, Config, Ending, Machine};

use crate::support::{Host, LONG, appears, host, image, machine, run, said};

/// The same test with layers, where this host may mount them, and with copies.
fn both_ways(files: &[(&str, &str)], test: impl Fn(&mut Machine)) {
    for overlay in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let image = image(folder.path(), files);
        let change = |config: &mut Config| {
            config.overlay = overlay;
            if image.exists() {
                config.images.insert("image".into(), image.clone());
            }
        };
        let Host {
            machines,
            folder: _folder,
        } = host(change);
        let name = if image.exists() { "image" } else { "empty" };
        test(&mut machines.create(name).unwrap());
    }
}

fn changes(machine: &mut Machine, since: u32) -> Vec<(String, ChangeKind)> {
    let changes = machine.changes(since).unwrap();
    changes
        .into_iter()
        .map(|change| (change.path, change.kind))
        .collect()
}

fn listed(changes: &[(&str, ChangeKind)]) -> Vec<(String, ChangeKind)> {
    let own = |(path, kind): &(&str, ChangeKind)| (format!("/work/{path}"), *kind);
    changes.iter().map(own).collect()
}

use ChangeKind::{Added, Modified, Removed};

#[test]
fn a_state_is_put_back_as_it_was() {
    both_ways(
        &[("a", "a"), ("below/b", "b"), ("below/c", "c")],
        |machine| {
            said(
                machine,
                "echo 1 > one; ln -s one link; mkdir -p x/y; chmod 750 x; mkfifo pipe",
            );
            let first = machine.snapshot().unwrap();
            said(
                machine,
                "rm -r below a link; echo 2 > one; mkdir below; echo new > below/new; chmod 700 x; rmdir x/y",
            );
            let second = machine.snapshot().unwrap();
            assert_ne!(first, second);
            said(machine, "rm -rf * .[a-z]*; ls -A");
            machine.roll_back(first).unwrap();
            let all = "cat a below/b below/c one link; stat -c %a x; ls below x";
            assert_eq!(said(machine, all), "abc1\n1\n750\nbelow:\nb\nc\n\nx:\ny\n");
            machine.roll_back(second).unwrap();
            assert_eq!(
                said(machine, "cat one below/new; ls below x; stat -c %a x"),
                "2\nnew\nbelow:\nnew\n\nx:\n700\n"
            );
            machine.roll_back(first).unwrap();
            assert_eq!(said(machine, "cat a"), "a");
        },
    );
}

#[test]
fn changes_are_what_differs_and_nothing_else() {
    both_ways(
        &[
            ("a", "a"),
            ("same", "same"),
            ("below/b", "b"),
            ("gone/c", "c"),
        ],
        |machine| {
            let first = machine.snapshot().unwrap();
            assert_eq!(changes(machine, first), []);
            // Touched, rewritten with the same content, or changed and put back: no change.
            said(
                machine,
                "touch same; printf a > a; rm below/b; printf b > below/b; chmod 644 below/b",
            );
            assert_eq!(changes(machine, first), []);
            said(
                machine,
                "echo more >> a; rm -r gone; mkdir -p new/x; echo y > new/x/y; chmod 755 same; ln -s a link; mkfifo pipe",
            );
            let differs = [
                ("a", Modified),
                ("gone", Removed),
                ("gone/c", Removed),
                ("link", Added),
                ("new", Added),
                ("new/x", Added),
                ("new/x/y", Added),
                ("same", Modified),
            ];
            assert_eq!(changes(machine, first), listed(&differs));
            let second = machine.snapshot().unwrap();
            assert_eq!(changes(machine, second), []);
            said(machine, "rm link; mkdir link; rm -r new; echo file > new");
            let differs = [
                ("link", Modified),
                ("new", Modified),
                ("new/x", Removed),
                ("new/x/y", Removed),
            ];
            assert_eq!(changes(machine, second), listed(&differs));
            machine.roll_back(first).unwrap();
            assert_eq!(changes(machine, first), []);
            // Seen from the first state, what the second had is gone.
            let back = changes(machine, second);
            assert!(back.contains(&("/work/gone/c".into(), Added)), "{back:?}");
            assert!(
                back.contains(&("/work/new/x/y".into(), Removed)),
                "{back:?}"
            );
        },
    );
}

#[test]
fn a_folder_that_was_replaced_hides_what_was_in_it() {
    both_ways(&[("d/old", "old"), ("d/e/deep", "deep")], |machine| {
        let first = machine.snapshot().unwrap();
        said(machine, "rm -r d; mkdir d; echo new > d/new");
        let second = machine.snapshot().unwrap();
        let differs = [
            ("d/e", Removed),
            ("d/e/deep", Removed),
            ("d/new", Added),
            ("d/old", Removed),
        ];
        assert_eq!(changes(machine, first), listed(&differs));
        machine.roll_back(second).unwrap();
        assert_eq!(said(machine, "find d | sort | tr '\\n' ' '"), "d d/new ");
        assert_eq!(changes(machine, first), listed(&differs));
    });
}

#[test]
fn what_runs_is_killed_by_going_back_and_not_by_keeping() {
    both_ways(&[], |machine| {
        said(
            machine,
            "mkdir below; (cd below; while true; do date > tick; sleep 0.02; done) & echo first > file",
        );
        assert!(appears(machine, "/work/below/tick"));
        let state = machine.snapshot().unwrap();
        // It goes on, and writes where it is seen, not into what was kept.
        said(machine, "rm below/tick");
        assert!(appears(machine, "/work/below/tick"));
        said(machine, "echo second > file; rm -r gone 2>/dev/null; true");
        machine.roll_back(state).unwrap();
        assert_eq!(said(machine, "cat file; pgrep sleep | wc -l"), "first\n0\n");
        said(machine, "rm below/tick; sleep 0.3; [ ! -e below/tick ]");
    });
}

#[test]
fn a_state_that_is_kept_while_something_runs_is_whole() {
    both_ways(
        &[("lower/file", "lower"), ("gone", "gone"), ("d/x", "x")],
        |machine| {
            said(
                machine,
                "sleep 1000 & echo own > own; rm gone; rm -r d; mkdir d; echo y > d/y; truncate -s 100M sparse",
            );
            let state = machine.snapshot().unwrap();
            said(machine, "rm -rf *; echo other > own");
            machine.roll_back(state).unwrap();
            let all = "cat lower/file own d/y; ls . d; stat -c %s sparse";
            assert_eq!(
                said(machine, all),
                "lowerown\ny\n.:\nd\nlower\nown\nsparse\n\nd:\ny\n104857600\n"
            );
        },
    );
}

#[test]
fn at_most_sixteen_states_are_kept_and_unknown_ones_are_refused() {
    both_ways(&[], |machine| {
        let why = machine.roll_back(0).unwrap_err();
        assert!(why.is_refusal(), "{why}");
        for number in 0..16 {
            said(machine, &format!("echo {number} > file"));
            assert_eq!(machine.snapshot().unwrap(), number);
        }
        let why = machine.snapshot().unwrap_err();
        assert!(why.is_refusal() && why.to_string().contains("16"), "{why}");
        for why in [
            machine.roll_back(16).unwrap_err(),
            machine.changes(16).unwrap_err(),
        ] {
            assert!(why.is_refusal(), "{why}");
        }
        machine.roll_back(3).unwrap();
        assert_eq!(said(machine, "cat file"), "3\n");
        machine.roll_back(15).unwrap();
        assert_eq!(said(machine, "cat file"), "15\n");
    });
}

#[test]
fn at_most_a_thousand_changes_are_told_the_first_by_path() {
    both_ways(&[], |machine| {
        let state = machine.snapshot().unwrap();
        said(machine, "for i in $(seq 10000 11499); do : > $i; done");
        let changes = changes(machine, state);
        assert_eq!(changes.len(), 1_000);
        assert_eq!(changes.first().unwrap().0, "/work/10000");
        assert_eq!(changes.last().unwrap().0, "/work/10999");
    });
}

#[test]
fn going_back_empties_a_full_disk() {
    for overlay in [true, false] {
        let host = host(|config| {
            config.disk_mib = 8;
            config.memory_mib = 128;
            config.overlay = overlay;
        });
        let mut machine = host.machines.create("empty").unwrap();
        let state = machine.snapshot().unwrap();
        for _ in 0..4 {
            assert_eq!(
                run(&mut machine, "head -c 20000000 /dev/zero > full").ending,
                Ending::Exited(1)
            );
            assert!(
                machine.snapshot().is_err() || !overlay,
                "a full disk has no room for a layer"
            );
            machine.roll_back(state).unwrap();
            said(&mut machine, "head -c 7000000 /dev/zero > most");
            machine.roll_back(state).unwrap();
        }
    }
}

#[test]
fn trees_that_are_made_to_hurt_end_in_bounded_time() {
    both_ways(&[("a", "a")], |machine| {
        let state = machine.snapshot().unwrap();
        // Deeper than any path can say, unreadable, huge and empty.
        let deep = "import os\nfor i in range(3000):\n    os.mkdir('dd'); os.chdir('dd')";
        said(machine, &format!("python3 -c \"{deep}\""));
        said(
            machine,
            "mkdir shut; echo x > shut/x; chmod 000 shut; for i in $(seq 50); do truncate -s 128M s$i; done; mkfifo p; ln -s /etc/passwd out; ln -s . self",
        );
        let begin = std::time::Instant::now();
        // Either is fine; that it ends, and leaves the machine usable, is the point.
        drop(machine.changes(state));
        drop(machine.snapshot());
        machine.roll_back(state).unwrap();
        assert!(begin.elapsed() < 3 * LONG, "{:?}", begin.elapsed());
        assert_eq!(said(machine, "cat a; ls"), "aa\n");
    });
}

#[test]
fn what_is_kept_in_layers_counts_for_the_disk() {
    for background in ["", "sleep 1000 & "] {
        let host = host(|config| {
            config.disk_mib = 8;
            config.memory_mib = 128;
        });
        if !host.layers() {
            return;
        }
        let mut machine = host.machines.create("empty").unwrap();
        said(
            &mut machine,
            &format!("{background}head -c 3000000 /dev/zero > a"),
        );
        let state = machine.snapshot().unwrap();
        let more = |most: u32| format!("head -c {most} /dev/zero > a");
        assert_eq!(
            run(&mut machine, &more(6_000_000)).ending,
            Ending::Exited(1)
        );
        said(&mut machine, &more(4_500_000));
        machine.roll_back(state).unwrap();
        assert_eq!(
            run(&mut machine, &more(6_000_000)).ending,
            Ending::Exited(1)
        );
        said(&mut machine, &more(4_500_000));
        machine.roll_back(state).unwrap();
        assert_eq!(said(&mut machine, "stat -c %s a"), "3000000\n");
    }
}

#[test]
fn a_state_of_many_folders_is_kept_while_something_runs() {
    let (_host, mut machine) = machine();
    // Folders take no room, and yet each is a file of the layer that is copied.
    said(
        &mut machine,
        "sleep 60 & mkdir -p d{1..300}; for n in {1..60}; do echo $n > d$n/file; done",
    );
    let kept = machine.snapshot().unwrap();
    said(&mut machine, "rm -r d1");
    assert_eq!(machine.changes(kept).unwrap().len(), 2);
}
