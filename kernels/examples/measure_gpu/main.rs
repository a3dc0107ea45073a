//! Measures this machine's GPU: what its driver loads, what its tensor cores compute, what it can copy and multiply at
//! most, and each op against that. Prints the table of `kernels/README.md`.
//!
//! `kernels/check-gpu` packs it with the tests of parity, so that a machine without Rust can run both. `--small` is for
//! the stand-in driver: every path, sizes that an emulator can do. `measure_gpu NAME…` measures the ops whose names contain one
//! of these, without the checks of instructions. A new op adds its file and its line in [`OPS`].
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
const OPS: &[(&str, Measure)] = &[
    ("embed", rows::embed),
    ("rmsnorm", rows::rmsnorm),
    ("rope", rows::rope),
    ("swiglu", rows::swiglu),
    ("adamw", rows::adamw),
    ("loss", rows::loss),
    ("sample", rows::sample),
    ("recorded", rows::recorded),
    ("gemm", products::gemm),
    ("output", products::output),
    ("adapted", adapted::decode),
    ("lora", adapted::lora),
    ("output-backward", adapted::output),
    ("attention", attention::prompts),
    ("decode-attention", attention::steps),
];

fn main() -> std::process::ExitCode {
    let (options, names): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|argument| argument == "--small");
    match run(!options.is_empty(), &names) {
        Ok(0) => std::process::ExitCode::SUCCESS,
        Ok(differ) => {
            eprintln!("failed: {differ} elements of products differ between variants");
            std::process::ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("failed: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Prints everything; how many elements of products differ that should not.
fn run(small: bool, names: &[String]) -> Result<usize> {
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
    if names.is_empty() {
        probes::instructions(&meter)?;
    }
    probes::ceilings(&mut meter)?;
    let differ = match names {
        [] => products::agreement(&meter)?,
        _ => 0,
    };
    println!(
        "\n| op | shape | µs | GB/s | of copy | TFLOP/s | of peak |\n|---|---|---|---|---|---|---|"
    );
    let asked = |op: &str| names.is_empty() || names.iter().any(|name| op.contains(name.as_str()));
    for (_, measure) in OPS.iter().filter(|(op, _)| asked(op)) {
        for row in measure(&meter)? {
            println!("{}", meter.line(&row));
        }
    }
    Ok(differ)
}
