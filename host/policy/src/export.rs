//! Whole models on disk: a base model with an adapter merged into it, as GGUF or as a Hugging Face folder.
//!
//! The seven adapted linear maps of every layer become W + (α/rank)·B·A, computed in f32 and stored as BF16. One tensor is in
//! memory at a time. What is written appears under its name only when it is whole and flushed. Writes no adapters;
//! [`crate::peft`] does. Start at [`merged_gguf`] and [`merged_safetensors`].

use std::path::Path;

use crate::adapter::Adapter;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

mod folder;
mod gguf;
mod merge;
mod part;

use merge::Merge;

/// Hears how many bytes of how many are written.
pub type Progress<'a> = dyn Fn(u64, u64) + 'a;

/// Writes a GGUF file like the base model's, with the adapter merged into it. An existing file of that name is replaced.
///
/// Metadata, names, the order of the tensors and every tensor that the adapter leaves alone are the base's, byte for byte.
///
/// # Errors
/// [`Error::NotAModel`] when the base model is no GGUF file, [`Error::AdapterSetting`] when the adapter is another model's,
/// [`Error::TensorShape`] and [`Error::MissingTensor`] before anything is written, [`Error::Field`] when a merged weight is not
/// finite, [`Error::Io`]. After each of them nothing new is under the name.
pub fn merged_gguf(
    base: &Checkpoint,
    adapter: &Adapter,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<()> {
    let Some(file) = base.gguf() else {
        let reason = "only a GGUF file can be written as GGUF, and this is a folder of safetensors";
        let path = base.path().into();
        return Err(Error::NotAModel { path, reason });
    };
    let merge = Merge::new(base, adapter)?;
    let plans = gguf::plan(file, &merge)?;
    part::file(out, |sink| {
        gguf::write(file, &merge, &plans, sink, progress)
    })
}

/// Writes a Hugging Face folder with the adapter merged into the base model: `config.json`, `model.safetensors` (all in BF16),
/// `tokenizer.json`, `tokenizer_config.json` with the chat template.
///
/// The small files are copied when the base is such a folder, and made from the metadata when it is a GGUF file. There must be
/// nothing of that name, or an empty folder.
///
/// # Errors
/// As [`merged_gguf`], but a tensor that is missing or has another shape shows on the way; and what is wrong with the base model's tokenizer.
pub fn merged_safetensors(
    base: &Checkpoint,
    adapter: &Adapter,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<()> {
    let merge = Merge::new(base, adapter)?;
    part::folder(out, |part| folder::write(&merge, part, progress))
}

#[cfg(test)]
mod tests;
