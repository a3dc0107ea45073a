//! Lists the CUDA kernels' images for `src/cuda/images.rs`: one entry for each `cuda/*.cu`, with its bytes when
//! `kernels/build-cuda` has made them. Needs neither nvcc nor CUDA.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("cuda");
    let mut modules: Vec<String> = fs::read_dir(&root)?
        .filter_map(|entry| source_name(&entry.ok()?.path()))
        .collect();
    modules.sort();
    let mut text = String::from("static IMAGES: &[(&str, Option<&[u8]>)] = &[\n");
    let mut any = false;
    for module in modules {
        let image = root.join("images").join(format!("{module}.fatbin"));
        if image.exists() {
            any = true;
            writeln!(
                text,
                "    ({module:?}, Some(&Aligned(*include_bytes!({image:?})).0)),"
            )?;
        } else {
            writeln!(text, "    ({module:?}, None),")?;
        }
    }
    text.push_str("];\n");
    if any {
        // Fat binaries are read in words.
        text.push_str("#[repr(C, align(64))]\nstruct Aligned<const N: usize>([u8; N]);\n");
    }
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("images.rs"), text)?;
    println!("cargo::rerun-if-changed=cuda");
    println!("cargo::rerun-if-changed=cuda/images");
    Ok(())
}

fn source_name(path: &Path) -> Option<String> {
    let source = path.extension().is_some_and(|e| e == "cu");
    source.then(|| path.file_stem()?.to_str().map(str::to_owned))?
}
