//! `cuda/exp2.cuh`: the powers and logarithms of every kernel, against the library's in f64.

use std::path::Path;
use std::process::Command;

/// Prints the largest relative errors of 2^x and of log2(x), then what the special numbers become.
const PROGRAM: &str = r#"
#include "device.cuh"
#include "exp2.cuh"
int main() {
  double power = 0, low = 0, log = 0;
  for (double x = -126; x < 128; x += 1e-5 * (1 + fabs(x))) {
    float f = (float)x;
    double expected = exp2((double)f);
    power = fmax(power, fabs(ns_exp2(f) - expected) / expected);
    if (f <= 127.0f) low = fmax(low, fabs(ns_exp2_low(f) - expected) / expected);
  }
  for (u32 u = 0x00800000; u < 0x7f800000; u += 977) {
    float f = ns_u2f(u);
    double expected = log2((double)f);
    log = fmax(log, expected == 0 ? fabs(ns_log2(f)) : fabs(ns_log2(f) - expected) / fabs(expected));
  }
  printf("%.9f %.9f %.9f", power, low, log);
  for (float x : {-INFINITY, -1e30f, -126.5f, -126.0f, 0.0f, 127.5f, 128.0f, INFINITY, NAN}) printf(" %g", fabs(ns_exp2(x)));
  for (float x : {NAN, -1.0f, 0.0f, 1e-40f, 1.0f, 512.0f, INFINITY}) {
    float y = ns_log2(x);
    printf(" %g", y != y ? NAN : y);
  }
}
"#;

#[test]
fn powers_and_logarithms_are_the_librarys_to_two_units_in_the_last_place() {
    // Of the sources, on the processor: a GPU's machine has none.
    if std::env::var_os("NEXTSTATE_TEST_GPU").is_some() {
        return;
    }
    if Command::new("g++").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("NEXTSTATE_REQUIRE_EMULATOR").is_none(),
            "no g++"
        );
        eprintln!("SKIPPED: no g++ on this machine");
        return;
    }
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("exp2.cpp"), folder.join("exp2"));
    std::fs::write(&source, PROGRAM).unwrap();
    let built = Command::new("g++")
        .args([
            "-std=c++17",
            "-O2",
            "-march=native",
            "-ffp-contract=off",
            "-Wno-unknown-pragmas",
            "-I",
        ])
        .arg(kernels.join("cuda"))
        .args([&source, &kernels.join("emulator/emu.cpp")])
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let said = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    let words: Vec<&str> = said.split(' ').collect();
    for (what, error) in ["2^x", "2^x up to 127", "log2"].iter().zip(&words) {
        let error: f64 = error.parse().unwrap();
        assert!(error > 1e-8 && error < 2e-7, "{what}: off by {error}");
    }
    let special = "0 0 0 1.17549e-38 1 2.40616e+38 inf inf nan nan nan -inf -126 0 9 inf";
    assert_eq!(words[3..].join(" "), special);
}
