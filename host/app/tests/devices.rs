//! `nextstate devices` on a machine without a driver, and on the stand-in driver of the kernels' tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../kernels/tests/cuda/standin.rs"]
mod standin;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The program with what is between it and a driver.
fn devices(folder: Option<&Path>, variables: &[(&str, &str)]) -> (Value, String) {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nextstate"));
        command.args(arguments).env_remove("LD_LIBRARY_PATH");
        if let Some(folder) = folder {
            command.env("LD_LIBRARY_PATH", folder);
        }
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json = serde_json::from_str(&run(&["devices", "--json"])).unwrap();
    (json, run(&["devices"]))
}

/// The stand-in's folder; none without g++.
fn stand_in() -> Option<PathBuf> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    match standin::build(&kernels, Path::new(env!("CARGO_TARGET_TMPDIR")), 0) {
        Ok(folder) => Some(folder),
        Err(error) => {
            let required = std::env::var_os("NEXTSTATE_REQUIRE_EMULATOR").is_some()
                || error.kind() != std::io::ErrorKind::NotFound;
            assert!(!required, "the stand-in driver was not built: {error}");
            eprintln!("SKIPPED: no g++ on this machine");
            None
        }
    }
}

#[test]
fn without_a_driver_the_processor_is_listed_and_the_reason_said() {
    let (json, page) = devices(None, &[]);
    assert!(json["cpu"]["threads"].as_u64().unwrap() > 0);
    assert!(page.starts_with("cpu "), "{page}");
    // On a machine with a driver there is a GPU, or another reason.
    let gpus = json["gpus"].as_array().unwrap();
    assert_eq!(gpus.is_empty(), json["no_gpu"].is_string(), "{json}");
    if gpus.is_empty() {
        let why = json["no_gpu"].as_str().unwrap();
        assert!(page.contains(why), "{page}");
    }
}

#[test]
fn a_driver_with_a_device_is_described() {
    let Some(folder) = stand_in() else { return };
    let (json, page) = devices(Some(&folder), &[]);
    let gpu = &json["gpus"][0];
    assert_eq!(gpu["name"], "emulated GPU");
    assert_eq!(gpu["compute"], "9.0");
    assert_eq!(gpu["driver"], "13.0");
    assert_eq!(gpu["memory_bytes"], 1 << 30);
    assert!(json["no_gpu"].is_null());
    assert!(
        page.contains("emulated GPU, compute capability 9.0, 1.00 GiB"),
        "{page}"
    );
}

#[test]
fn a_driver_that_cannot_be_used_says_why() {
    let Some(folder) = stand_in() else { return };
    for (variable, why) in [
        (
            ("NEXTSTATE_EMULATED_DRIVER", "12040"),
            "the NVIDIA driver is too old: it knows CUDA 12.4, and 13.0 is needed",
        ),
        (
            ("NEXTSTATE_EMULATED_NONE", "1"),
            "the NVIDIA driver finds no device",
        ),
    ] {
        let (json, page) = devices(Some(&folder), &[variable]);
        assert_eq!(json["no_gpu"], why);
        assert_eq!(json["gpus"], serde_json::json!([]));
        assert!(page.contains(why), "{page}");
    }
}
