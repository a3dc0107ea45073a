//! Reads GGUF (versions 2 and 3, little-endian), trusting nothing in it.
//!
//! A file is: magic `GGUF`, u32 version, u64 tensors, u64 metadata pairs, the pairs, the tensor table, padding, the data. Every
//! count, length, type, offset and product is checked against a limit and against the file's size before memory is asked for.
//! Does not interpret metadata beyond its types: [`crate::config`] and the tokenizer do. Start at [`Gguf::open`].
//!
//! Source: `gguf.md` in ggml's documentation; llama.cpp's `convert_hf_to_gguf.py` for the order of query and key rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::{Dtype, TensorInfo, check_shape, names, product, read_numbers, safetensors};
use crate::config::{Architecture, ModelConfig};
use crate::error::{Error, Problem, Result, field, io};
use crate::template::ChatTemplate;
use crate::tokenizer::{self, Tokenizer};

mod metadata;
mod reader;

pub use metadata::Metadata;
use reader::Reader;

/// Published files have at most a few dozen pairs and a few thousand tensors.
const MAX_PAIRS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 17;
const MAX_AXES: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
/// No published file aligns to more than a page.
const MAX_ALIGNMENT: usize = 1 << 16;

/// An open file, its metadata and its tensor table.
#[derive(Debug)]
pub struct Gguf {
    file: File,
    version: u32,
    /// Where the metadata pairs lie, and how many there are.
    pairs: (Range<u64>, u64),
    alignment: u64,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens a file and checks its metadata and its tensor table.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Field`] with the name of the key or tensor.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io("open", path))?;
        let mut reader = Reader::new(&file, path)?;
        if reader.u32("magic")?.to_le_bytes() != *b"GGUF" {
            let problem = Problem::Unsupported {
                value: "another file type".into(),
            };
            return Err(field(path, "magic", problem));
        }
        let version = reader.u32("version")?;
        if !(2..=3).contains(&version) {
            let problem = Problem::Range {
                value: version.into(),
                min: 2.0,
                max: 3.0,
            };
            return Err(field(path, "version", problem));
        }
        let tensor_count = reader.count("tensor count", MAX_TENSORS)?;
        let pair_count = reader.count("metadata count", MAX_PAIRS)?;
        let start = reader.position();
        let metadata = Metadata::read(&mut reader, pair_count)?;
        let pairs = (start..reader.position(), pair_count);
        let table = read_table(&mut reader, tensor_count)?;
        let align = match metadata.size("general.alignment", None, MAX_ALIGNMENT) {
            Ok(align) if align.is_multiple_of(8) => align as u64,
            Ok(align) => {
                let value = align.to_string();
                let problem = Problem::Inconsistent {
                    value,
                    rule: "it must be a multiple of 8",
                };
                return Err(field(path, "general.alignment", problem));
            }
            Err(_) if !metadata.has("general.alignment") => DEFAULT_ALIGNMENT,
            Err(error) => return Err(error),
        };
        let data = reader.position().next_multiple_of(align);
        let tensors = place(path, table, data, align, reader.size())?;
        safetensors::refuse_overlap(path, &tensors)?;
        Ok(Self {
            file,
            version,
            pairs,
            alignment: align,
            metadata,
            tensors,
        })
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensor table, under GGUF's names.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// The version of the format.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// Where the metadata pairs lie in the file, and how many there are.
    pub(crate) fn pairs(&self) -> (Range<u64>, u64) {
        self.pairs.clone()
    }

    /// What every tensor's place is a multiple of.
    pub(crate) fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Hands over a range of the file as it is, piece by piece.
    pub(crate) fn copy(
        &self,
        range: Range<u64>,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        let mut at = range.start;
        while at < range.end {
            let n =
                usize::try_from(range.end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            super::read_at(&self.file, &mut buffer[..n], at)
                .map_err(io("read", self.metadata.path()))?;
            write(&buffer[..n])?;
            at += n as u64;
        }
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads one tensor as f32, under GGUF's name and in the file's order.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Io`], [`Error::Field`] when a number is not finite.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let path = self.metadata.path();
        let Some(info) = self.tensors.get(name) else {
            return Err(Error::MissingTensor {
                path: path.into(),
                name: name.into(),
            });
        };
        read_numbers(&self.file, path, name, info)
    }

    pub(super) fn config(&self) -> Result<ModelConfig> {
        let freqs = if self.has("rope_freqs.weight") {
            Some(self.read("rope_freqs.weight")?)
        } else {
            None
        };
        ModelConfig::from_gguf(&self.metadata, !self.has("output.weight"), freqs.as_deref())
    }

    /// Reads a tensor under Hugging Face's name and in its order.
    pub(super) fn canonical_tensor(
        &self,
        config: &ModelConfig,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>> {
        let path = self.metadata.path();
        let missing = || Error::MissingTensor {
            path: path.into(),
            name: name.into(),
        };
        let own = names::to_gguf(name).ok_or_else(missing)?;
        let info = self.tensors.get(&own).ok_or_else(missing)?;
        check_shape(path, name, &info.shape, shape)?;
        let numbers = self.read(&own)?;
        Ok(match paired_columns(config, &own, shape) {
            Some(columns) => halves_from_pairs(&numbers, config.head_dim, columns),
            None => numbers,
        })
    }

    /// Numbers under Hugging Face's order in the order in which the file has the tensor of that (GGUF) name.
    pub(crate) fn own_order(
        config: &ModelConfig,
        name: &str,
        shape: &[usize],
        numbers: Vec<f32>,
    ) -> Vec<f32> {
        match paired_columns(config, name, shape) {
            Some(columns) => pairs_from_halves(&numbers, config.head_dim, columns),
            None => numbers,
        }
    }

    /// Builds the tokenizer that the metadata describe.
    ///
    /// # Errors
    /// [`Error::Field`] with the key that is missing or of an unsupported kind.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        tokenizer::from_gguf(&self.metadata)
    }

    pub(super) fn template(&self) -> Result<ChatTemplate> {
        let Some(source) = self.metadata.optional_string("tokenizer.chat_template")? else {
            return Ok(ChatTemplate::chatml());
        };
        let tokens = self
            .metadata
            .strings("tokenizer.ggml.tokens")
            .unwrap_or(&[]);
        let text = |key: &str| -> Result<Option<&str>> {
            let id = self
                .metadata
                .token(key)?
                .and_then(|id| usize::try_from(id).ok());
            Ok(id.and_then(|id| tokens.get(id)).map(String::as_str))
        };
        let bos = text("tokenizer.ggml.bos_token_id")?;
        let eos = text("tokenizer.ggml.eos_token_id")?;
        ChatTemplate::new(source, bos, eos)
    }
}

/// One row of the tensor table as the file has it: offset from the start of the data.
struct Row {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    offset: u64,
}

fn read_table(reader: &mut Reader<'_>, count: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for _ in 0..count {
        let name = reader.string("tensor name", 1 << 10)?;
        let path = reader.path().to_path_buf();
        let fail = |problem| Err(field(&path, &name, problem));
        let axes = reader.u32(&name)?;
        if !(1..=MAX_AXES).contains(&axes) {
            let problem = Problem::Range {
                value: axes.into(),
                min: 1.0,
                max: MAX_AXES.into(),
            };
            return fail(problem);
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            let axis = reader.u64(&name)?;
            match usize::try_from(axis) {
                Ok(axis) if axis > 0 => shape.push(axis),
                _ => {
                    return fail(Problem::Range {
                        value: axis as f64,
                        min: 1.0,
                        max: usize::MAX as f64,
                    });
                }
            }
        }
        shape.reverse(); // ggml writes the fastest axis first
        let id = reader.u32(&name)?;
        let Some(dtype) = Dtype::from_ggml(id) else {
            return fail(Problem::Unsupported {
                value: format!("ggml type {id}"),
            });
        };
        let offset = reader.u64(&name)?;
        rows.push(Row {
            name,
            shape,
            dtype,
            offset,
        });
    }
    Ok(rows)
}

/// Turns offsets from the start of the data into offsets in the file, and checks them.
fn place(
    path: &Path,
    rows: Vec<Row>,
    data: u64,
    align: u64,
    size: u64,
) -> Result<BTreeMap<String, TensorInfo>> {
    let mut tensors = BTreeMap::new();
    for Row {
        name,
        shape,
        dtype,
        offset,
    } in rows
    {
        let fail = |problem| Err(field(path, &name, problem));
        let (block, block_bytes) = dtype.block();
        if shape
            .last()
            .is_none_or(|&fastest| !fastest.is_multiple_of(block))
        {
            let value = format!("of shape {shape:?}");
            return fail(Problem::Inconsistent {
                value,
                rule: "rows must be whole blocks of its type",
            });
        }
        if !offset.is_multiple_of(align) {
            let value = format!("at offset {offset}");
            return fail(Problem::Inconsistent {
                value,
                rule: "offsets must keep the alignment",
            });
        }
        let bytes =
            product(&shape).and_then(|n| (n / block as u64).checked_mul(block_bytes as u64));
        let begin = data.checked_add(offset);
        let end = begin
            .zip(bytes)
            .and_then(|(begin, bytes)| begin.checked_add(bytes));
        let (Some(offset), Some(bytes), Some(end)) = (begin, bytes, end) else {
            return fail(Problem::PastEnd {
                end: u64::MAX,
                limit: size,
            });
        };
        if end > size {
            return fail(Problem::PastEnd { end, limit: size });
        }
        if tensors.contains_key(&name) {
            return fail(Problem::Duplicate);
        }
        tensors.insert(
            name,
            TensorInfo {
                dtype,
                shape,
                offset,
                bytes,
            },
        );
    }
    Ok(tensors)
}

/// The columns of a matrix whose rows are interleaved for ggml's rotary embedding: Llama's queries and keys, not Qwen3's.
fn paired_columns(config: &ModelConfig, name: &str, shape: &[usize]) -> Option<usize> {
    let rotary = name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight");
    match shape {
        [rows, columns]
            if rotary
                && config.architecture == Architecture::Llama
                && rows.is_multiple_of(config.head_dim) =>
        {
            Some(*columns)
        }
        _ => None,
    }
}

/// What [`halves_from_pairs`] did, undone.
fn pairs_from_halves(numbers: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(numbers.len());
    for head in numbers.chunks_exact(head_dim * columns) {
        for row in 0..head_dim {
            let (pair, side) = (row / 2, row % 2);
            let from = (side * half + pair) * columns;
            out.extend_from_slice(&head[from..from + columns]);
        }
    }
    out
}

/// Within each head: rows (0, 1, 2, 3, …) hold (first half 0, second half 0, first half 1, …); puts the halves together.
fn halves_from_pairs(numbers: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut out = Vec::with_capacity(numbers.len());
    for head in numbers.chunks_exact(head_dim * columns) {
        for row in 0..head_dim {
            let (side, pair) = (row / half, row % half);
            let from = (2 * pair + side) * columns;
            out.extend_from_slice(&head[from..from + columns]);
        }
    }
    out
}
