//! `nextstate devices`: what this machine can compute with, and exactly why not with more.

use indicatif::HumanBytes;
use kernels::cuda::devices::{Found, find};
use kernels::{Error, Isa, Pool};
use serde_json::{Value, json};

/// List what can compute: the processor, and each GPU with the kernels that fit it, or why there is none.
///
/// `[model] device` says where a model computes: `cpu`, `gpu`, `gpu:1` (a number of this list) or `auto`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// Runs the command. A machine without a GPU is no failure.
///
/// # Errors
/// A driver is there and refuses to describe a device.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let gpus = match find() {
        Err(Error::NoGpu(why)) => Err(why.to_string()),
        found => Ok(found?),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&gpus))?);
    } else {
        print!("{}", page(&gpus));
    }
    Ok(())
}

fn as_json(gpus: &Result<Vec<Found>, String>) -> Value {
    let one = |gpu: &Found| {
        json!({
            "index": gpu.index,
            "name": gpu.name,
            "compute": gpu.compute.to_string(),
            "memory_bytes": gpu.memory_bytes,
            "driver": version(gpu.driver),
            "kernels": gpu.image.to_string(),
            "usable": gpu.image.is_any(),
        })
    };
    json!({
        "cpu": { "isa": isa(), "threads": Pool::default_threads() },
        "gpus": gpus.iter().flatten().map(one).collect::<Vec<_>>(),
        "no_gpu": gpus.as_ref().err(),
    })
}

/// The same as a person reads it.
fn page(gpus: &Result<Vec<Found>, String>) -> String {
    let mut lines = vec![format!(
        "cpu     {}, {} threads",
        isa(),
        Pool::default_threads()
    )];
    match gpus {
        Err(why) => lines.push(format!("gpu     none: {why}")),
        Ok(gpus) => lines.extend(gpus.iter().map(|gpu| {
            format!(
                "gpu {}   {}, compute capability {}, {}, driver of CUDA {}; kernels: {}",
                gpu.index,
                gpu.name,
                gpu.compute,
                HumanBytes(gpu.memory_bytes),
                version(gpu.driver),
                gpu.image
            )
        })),
    }
    lines.push(String::new());
    lines.join("\n")
}

fn isa() -> &'static str {
    match Isa::best() {
        Isa::Avx512Bf16 => "AVX-512 with BF16",
        Isa::Avx512 => "AVX-512",
        Isa::Avx2 => "AVX2",
        Isa::Portable => "no vector instructions that are used",
    }
}

/// 13000 is 13.0.
fn version(driver: u32) -> String {
    format!("{}.{}", driver / 1000, driver % 1000 / 10)
}
