//! Weights on disk, in the two formats that models are published in, behind one set of names.
//!
//! [`Checkpoint::open`] takes a Hugging Face folder or a GGUF file; [`Checkpoint::tensor`] gives f32 numbers under Hugging
//! Face's names whatever the file calls them. Every length, offset and product in a file is checked before it is used. Does no
//! arithmetic with weights and keeps none in memory. Read next: [`gguf`], [`safetensors`], [`dequant`].

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::error::{Error, Problem, Result, field, io};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

pub mod dequant;
pub mod gguf;
mod hf;
pub(crate) mod names;
pub mod safetensors;

pub use dequant::Dtype;

/// A model's files: opened and checked, the weights not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    /// The shape of the model.
    pub config: ModelConfig,
    /// What the model is called: the folder's or file's name.
    pub name: String,
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Folder(hf::Folder),
    Gguf(Box<gguf::Gguf>),
}

/// One tensor of a table: where its bytes are and what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How the numbers are stored.
    pub dtype: Dtype,
    /// Slowest axis first, as PyTorch writes it.
    pub shape: Vec<usize>,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes; equals what `dtype` and `shape` imply.
    pub bytes: u64,
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a `.gguf` file, or a folder that holds exactly one `.gguf` file.
    ///
    /// # Errors
    /// [`Error::NotAModel`], or what is wrong with the file and which field says so. Missing tensors show when they are read.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path
            .file_stem()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let is_dir = std::fs::metadata(path).map_err(io("open", path))?.is_dir();
        if !is_dir {
            return Self::open_gguf(path, name);
        }
        if path.join("config.json").is_file() {
            let name = path
                .file_name()
                .map_or(name, |n| n.to_string_lossy().into_owned());
            let (folder, config) = hf::Folder::open(path)?;
            return Ok(Self {
                config,
                name,
                path: path.into(),
                source: Source::Folder(folder),
            });
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io("list", path))? {
            let file = entry.map_err(io("list", path))?.path();
            if file
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
            {
                found.push(file);
            }
        }
        let reason = match found.as_slice() {
            [one] => {
                let name = one
                    .file_stem()
                    .map_or(name, |n| n.to_string_lossy().into_owned());
                return Self::open_gguf(one, name);
            }
            [] => "the folder has neither config.json nor a .gguf file",
            _ => "the folder has several .gguf files; name one",
        };
        Err(Error::NotAModel {
            path: path.into(),
            reason,
        })
    }

    fn open_gguf(path: &Path, name: String) -> Result<Self> {
        let file = gguf::Gguf::open(path)?;
        let config = file.config()?;
        Ok(Self {
            config,
            name,
            path: path.into(),
            source: Source::Gguf(Box::new(file)),
        })
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GGUF file, when the model is one.
    pub(crate) fn gguf(&self) -> Option<&gguf::Gguf> {
        match &self.source {
            Source::Folder(_) => None,
            Source::Gguf(file) => Some(file),
        }
    }

    /// Whether there is a tensor of that (Hugging Face) name.
    pub fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Folder(folder) => folder.has(name),
            Source::Gguf(file) => names::to_gguf(name).is_some_and(|name| file.has(&name)),
        }
    }

    /// Reads a tensor by its Hugging Face name, as f32, slowest axis first.
    ///
    /// Quantised numbers are dequantised, and the query and key rows of a Llama GGUF (stored for interleaved rotary
    /// embedding) are put back into Hugging Face's order (first half, second half).
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::TensorShape`] when it is not `shape`, [`Error::Field`] with the tensor's name when
    /// its numbers are not finite, [`Error::Io`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match &self.source {
            Source::Folder(folder) => folder.tensor(&self.path, name, shape),
            Source::Gguf(file) => file.canonical_tensor(&self.config, name, shape),
        }
    }

    /// The tokenizer: `tokenizer.json`, or built from GGUF metadata.
    ///
    /// # Errors
    /// When there is none, or of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.source {
            Source::Folder(folder) => folder.tokenizer(&self.path),
            Source::Gguf(file) => file.tokenizer(),
        }
    }

    /// The chat template; ChatML when the model has none.
    ///
    /// # Errors
    /// When the model's template does not parse.
    pub fn template(&self) -> Result<ChatTemplate> {
        match &self.source {
            Source::Folder(folder) => folder.template(&self.path),
            Source::Gguf(file) => file.template(),
        }
    }

    /// SHA-256, as hex, over every file that the model is made of (weights, configuration, tokenizer, template): each file's
    /// name without folders, its length and its bytes. Reads the files whole, about a second per GB.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn fingerprint(&self) -> Result<String> {
        let files = match &self.source {
            Source::Folder(folder) => folder.files(&self.path),
            Source::Gguf(_) => vec![self.path.clone()],
        };
        let mut hash = Sha256::new();
        for path in files {
            let mut file = File::open(&path).map_err(io("open", &path))?;
            let len = file.metadata().map_err(io("open", &path))?.len();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(len.to_le_bytes());
            let mut buffer = vec![0; 1 << 20];
            loop {
                let n = file.read(&mut buffer).map_err(io("read", &path))?;
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
            }
        }
        Ok(hex::encode(hash.finalize()))
    }
}

/// Reads a whole small file, refusing one that is larger than `limit`.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(io("open", path))?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read", path))?;
    let count = bytes.len() as u64;
    if count > limit {
        return Err(field(path, "file size", Problem::TooMany { count, limit }));
    }
    Ok(bytes)
}

/// Reads and parses a small JSON file.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path, limit: u64) -> Result<T> {
    let bytes = read_small(path, limit)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json {
        path: path.into(),
        source,
    })
}

/// Compares a stored shape with the one that the caller needs.
fn check_shape(path: &Path, name: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::TensorShape {
        path: path.into(),
        name: name.into(),
        expected: expected.into(),
        found: found.into(),
    })
}

/// Reads a tensor's bytes piece by piece and turns them into f32.
fn read_numbers(file: &File, path: &Path, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
    let (block, block_bytes) = info.dtype.block();
    let too_many = |count| {
        field(
            path,
            name,
            Problem::TooMany {
                count,
                limit: isize::MAX as u64,
            },
        )
    };
    let elements = info.bytes / block_bytes as u64 * block as u64;
    let elements = usize::try_from(elements).map_err(|_| too_many(elements))?;
    let mut numbers = Vec::new();
    numbers
        .try_reserve_exact(elements)
        .map_err(|_| too_many(elements as u64))?;
    // Pieces of whole blocks, about 1 MiB: large enough for the disk, small enough for the cache.
    let piece = (1 << 20) / block_bytes * block_bytes;
    let mut buffer = vec![0; piece];
    let mut at = 0;
    while at < info.bytes {
        let n = usize::try_from(info.bytes - at).map_or(piece, |left| left.min(piece));
        read_at(file, &mut buffer[..n], info.offset + at).map_err(io("read", path))?;
        info.dtype.decode(&buffer[..n], &mut numbers);
        at += n as u64;
    }
    match numbers.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(field(path, name, Problem::NonFinite { index })),
        None => Ok(numbers),
    }
}

#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(not(unix))]
pub(crate) fn read_at(mut file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// The number of elements of a shape, or `None` when it overflows.
fn product(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))
}

#[cfg(test)]
pub(crate) mod tests;
