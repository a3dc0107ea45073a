//! Measures this machine's GPU: what its driver loads, what its tensor cores compute, what it can copy and multiply at
//! most, and each op against that. Prints the table of `kernels/README.md`.
//!
//! `kernels/check-gpu` packs it with the tests of parity, so that a machine without Rust can run both. `--small` is for
//! the stand-in driver: every path, sizes that an emulator can do. A new op adds its file and its line in [`OPS`].
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod adapted;
mod attention;
mod meter;
mod probes;
mod products;
mod rows;

use kernels::cuda::{Gpu, Priority, devices};
use kernels::{Error, Result};
use meter::{Meter, Row};

/// Measures one op.
type Measure = fn(&Meter) -> Result<Vec<Row>>;

/// Each op's measurements.
const OPS: &[Measure] = &[
    rows::embed,
    rows::rmsnorm,
    rows::rope,
    rows::swiglu,
    rows::adamw,
    rows::loss,
    rows::sample,
    products::gemm,
    products::output,
    adapted::decode,
    adapted::lora,
    adapted::output,
    attention::prompts,
    attention::steps,
];

fn main() -> std::process::ExitCode {
    let small = std::env::args()
        .skip(1)
        .any(|argument| argument == "--small");
    match run(small) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(small: bool) -> Result<()> {
    let found = devices::find()?;
    let first = found
        .first()
        .ok_or(Error::NoGpu(devices::Absent::NoDevice))?;
    println!(
        "{}, compute capability {}, driver of CUDA {}.{}; kernels: {}",
        first.name,
        first.compute,
        first.driver / 1000,
        first.driver % 1000 / 10,
        first.image
    );
    let gpu = Gpu::open(first.index)?;
    println!("every kernel is loaded");
    let stream = gpu.stream(Priority::High)?;
    let mut meter = Meter::new(stream, small)?;
    probes::instructions(&meter)?;
    probes::ceilings(&mut meter)?;
    products::agreement(&meter)?;
    println!(
        "\n| op | shape | µs | GB/s | of copy | TFLOP/s | of peak |\n|---|---|---|---|---|---|---|"
    );
    for op in OPS {
        for row in op(&meter)? {
            println!("{}", meter.line(&row));
        }
    }
    Ok(())
}
