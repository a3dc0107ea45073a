//! What a sealed process can still do, tried by a program that seals itself and then tries.

use std::process::Command;

use crate::rig::program;

#[test]
fn nothing_outside_is_left_and_computing_still_works() {
    let output = Command::new(program().path).arg("probe").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let (refused, works): (Vec<_>, Vec<_>) = said
        .lines()
        .partition(|line| line.ends_with(": PermissionDenied") || line.ends_with(": Unsupported"));
    assert_eq!(refused.len(), 12, "{said}");
    assert_eq!(
        works,
        ["use a thread: Some(55)", "use memory: 67108864"],
        "{said}"
    );
}
