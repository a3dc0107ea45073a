//! Builds the stand-in driver: `kernels/emulator` and every `kernels/cuda/*.cu`, compiled by g++ into one `libcuda.so`.
//!
//! Objects and library are named after the digest of what they were made from, so a build is done once. Needs nothing
//! but g++; the driver's tests and those of the command line share it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What g++ is told; contraction is off as nvcc's is, so that a kernel's own `ns_fma` are the only ones.
const FLAGS: [&str; 7] = [
    "-std=c++17",
    "-O2",
    "-march=native",
    "-ffp-contract=off",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wno-unknown-pragmas",
];

/// A folder with `libcuda.so` and `libcuda.so.1`, for the bug `plant` (0 is none).
///
/// # Errors
/// What g++ says; that there is no g++ is [`io::ErrorKind::NotFound`].
pub(crate) fn build(kernels: &Path, target: &Path, plant: u32) -> io::Result<PathBuf> {
    // What is being made is named after the process: its tests, which are threads, take turns.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _turn = BUILDING.lock();
    let version = Command::new("g++").arg("-dumpfullversion").output()?;
    let files = sources(kernels)?;
    let headers = |path: &Path| path.extension().is_some_and(|e| e != "cu" && e != "cpp");
    let shared = digest(&(
        files
            .iter()
            .filter(|(path, _)| headers(path))
            .collect::<Vec<_>>(),
        FLAGS,
        version.stdout,
    ));
    let store = target.join("stand-in");
    fs::create_dir_all(&store)?;
    let objects: Vec<(PathBuf, PathBuf, bool)> = files
        .iter()
        .filter(|(path, _)| !headers(path))
        .map(|(path, text)| {
            let planted = plant != 0 && mentions(text, &files, plant);
            let of = digest(&(shared, text, if planted { plant } else { 0 }));
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            (
                path.clone(),
                store.join(format!("{stem}-{of:016x}.o")),
                planted,
            )
        })
        .collect();
    compile(&objects, plant)?;
    let names: Vec<&PathBuf> = objects.iter().map(|(_, object, _)| object).collect();
    let folder = store.join(format!("{:016x}", digest(&names)));
    if !folder.join("libcuda.so.1").exists() {
        let making = store.join(format!("making-{}-{plant}", std::process::id()));
        fs::create_dir_all(&making)?;
        let library = making.join("libcuda.so");
        let link = Command::new("g++")
            .args(["-shared", "-pthread", "-Wl,-soname,libcuda.so", "-o"])
            .arg(&library)
            .args(&names)
            .output()?;
        succeeded("link", &link)?;
        fs::copy(&library, making.join("libcuda.so.1"))?;
        // Another process may have been first; then its folder is as good.
        if fs::rename(&making, &folder).is_err() {
            fs::remove_dir_all(&making)?;
        }
    }
    Ok(folder)
}

/// Compiles what is missing, on every processor.
fn compile(objects: &[(PathBuf, PathBuf, bool)], plant: u32) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        while let Some((source, object, planted)) =
            objects.get(next.fetch_add(1, Ordering::Relaxed))
        {
            if object.exists() {
                continue;
            }
            let making = object.with_extension(format!("{}.making", std::process::id()));
            let plant = if *planted { plant } else { 0 };
            let one = Command::new("g++")
                .args(FLAGS)
                .arg(format!("-DNS_PLANT={plant}"))
                .args(["-x", "c++", "-c"])
                .arg(source)
                .arg("-o")
                .arg(&making)
                .output()
                .and_then(|output| succeeded(&source.display().to_string(), &output))
                .and_then(|()| fs::rename(&making, object));
            if let (Err(error), Ok(mut failed)) = (one, failed.lock()) {
                *failed = Some(error);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the source, or a header that it may include, itself or by others, has the planted bug.
fn mentions(text: &str, files: &BTreeMap<PathBuf, String>, plant: u32) -> bool {
    let includes = |text: &str, path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        text.contains(&format!("\"{name}\""))
    };
    let marker = format!("NS_PLANTED({plant})");
    let (mut reached, mut left) = (BTreeSet::new(), vec![text]);
    while let Some(text) = left.pop() {
        if text.contains(&marker) {
            return true;
        }
        for (path, header) in files {
            if includes(text, path) && reached.insert(path) {
                left.push(header);
            }
        }
    }
    false
}

fn sources(kernels: &Path) -> io::Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    for folder in ["emulator", "cuda"] {
        for entry in fs::read_dir(kernels.join(folder))? {
            let path = entry?.path();
            let known = path
                .extension()
                .is_some_and(|e| ["cu", "cuh", "h", "cpp"].iter().any(|k| e == *k));
            if known {
                let text = fs::read_to_string(&path)?;
                files.insert(path, text);
            }
        }
    }
    Ok(files)
}

fn digest(what: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn succeeded(what: &str, output: &std::process::Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let mut text = format!("g++ {what}: {}\n", output.status);
    write!(text, "{}", String::from_utf8_lossy(&output.stderr)).map_err(io::Error::other)?;
    Err(io::Error::other(text))
}
