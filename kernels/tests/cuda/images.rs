//! The embedded images are those of the sources beside them. Needs no nvcc.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// As `digest` in `kernels/build-cuda`.
fn digest(cuda: &Path) -> String {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(cuda).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".cu") || name.ends_with(".cuh") || name == "toolchain.toml" {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    let mut total = Sha256::new();
    for (name, bytes) in files {
        total.update(name.as_bytes());
        total.update([0]);
        total.update(bytes);
        total.update([0]);
    }
    total
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[test]
fn the_images_were_made_from_these_sources() {
    let cuda = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let kept = fs::read_to_string(cuda.join("images/digest.txt")).unwrap();
    assert_eq!(kept.trim(), digest(&cuda), "run kernels/build-cuda");
}

#[test]
fn every_source_has_an_image_and_no_image_is_left_over() {
    let cuda = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
    let stems = |folder: &Path, ending: &str| -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let mut stems: Vec<String> = names
            .filter(|p| p.extension().is_some_and(|e| e == ending))
            .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        stems.sort();
        stems
    };
    assert_eq!(stems(&cuda, "cu"), stems(&cuda.join("images"), "fatbin"));
}
