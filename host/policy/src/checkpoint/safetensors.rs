//! Reads the table of a `.safetensors` file, trusting nothing in it.
//!
//! A file is: u64 little-endian header length, a JSON object `name -> {dtype, shape, data_offsets}`, the data. Tensors may not
//! overlap or run past the end. Reads ranges, not the whole file. Does not know what the names mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Dtype, TensorInfo, product, read_at, read_numbers};
use crate::error::{Error, Problem, Result, field, io};

/// The reference implementation's own limit on headers.
const MAX_HEADER: u64 = 100_000_000;
/// Tensors in one file; published shards have a few thousand.
const MAX_TENSORS: usize = 1 << 17;

/// An open file and its table.
#[derive(Debug)]
pub struct SafeTensors {
    file: File,
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// `__metadata__` is text about the file; everything else is a tensor.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Tensor(Entry),
    Other(IgnoredAny),
}

impl SafeTensors {
    /// Opens a file and checks its table.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] when the header is not what it must be, [`Error::Field`] with the tensor's name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io("open", path))?;
        let size = file.metadata().map_err(io("open", path))?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Err(field(
                path,
                "header length",
                Problem::PastEnd {
                    end: 8,
                    limit: size,
                },
            ));
        }
        read_at(&file, &mut length, 0).map_err(io("read", path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            let problem = Problem::TooMany {
                count: length,
                limit: MAX_HEADER,
            };
            return Err(field(path, "header length", problem));
        }
        let data = 8 + length;
        if data > size {
            return Err(field(
                path,
                "header length",
                Problem::PastEnd {
                    end: data,
                    limit: size,
                },
            ));
        }
        let mut header = vec![0; usize::try_from(length).unwrap_or(0)];
        read_at(&file, &mut header, 8).map_err(io("read", path))?;
        let items: BTreeMap<String, Item> =
            serde_json::from_slice(&header).map_err(|source| Error::Json {
                path: path.into(),
                source,
            })?;
        if items.len() > MAX_TENSORS {
            let problem = Problem::TooMany {
                count: items.len() as u64,
                limit: MAX_TENSORS as u64,
            };
            return Err(field(path, "header", problem));
        }
        let mut tensors = BTreeMap::new();
        for (name, item) in items {
            match item {
                Item::Tensor(entry) => {
                    let info = check(path, &name, &entry, data, size)?;
                    tensors.insert(name, info);
                }
                Item::Other(_) if name == "__metadata__" => {}
                Item::Other(_) => {
                    let expected = "an object with dtype, shape and data_offsets";
                    return Err(field(path, name, Problem::Type { expected }));
                }
            }
        }
        refuse_overlap(path, &tensors)?;
        Ok(Self {
            file,
            path: path.into(),
            tensors,
        })
    }

    /// The table.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Reads one tensor as f32.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Io`], [`Error::Field`] when a number is not finite.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let Some(info) = self.tensors.get(name) else {
            return Err(Error::MissingTensor {
                path: self.path.clone(),
                name: name.into(),
            });
        };
        read_numbers(&self.file, &self.path, name, info)
    }
}

fn check(path: &Path, name: &str, entry: &Entry, data: u64, size: u64) -> Result<TensorInfo> {
    let fail = |problem| Err(field(path, name, problem));
    let Some(dtype) = Dtype::from_safetensors(&entry.dtype) else {
        return fail(Problem::Unsupported {
            value: format!("dtype {:?}", entry.dtype),
        });
    };
    let (begin, end) = entry.data_offsets;
    let room = size - data;
    if begin > end || end > room {
        return fail(Problem::PastEnd { end, limit: room });
    }
    let bytes = end - begin;
    let implied = product(&entry.shape).and_then(|n| n.checked_mul(dtype.block().1 as u64));
    if implied != Some(bytes) {
        let value = format!(
            "{bytes} bytes for shape {:?} of {}",
            entry.shape, entry.dtype
        );
        return fail(Problem::Inconsistent {
            value,
            rule: "the two must agree",
        });
    }
    Ok(TensorInfo {
        dtype,
        shape: entry.shape.clone(),
        offset: data + begin,
        bytes,
    })
}

/// Two tensors on the same bytes would let a small file ask for unlimited memory.
pub(super) fn refuse_overlap(path: &Path, tensors: &BTreeMap<String, TensorInfo>) -> Result<()> {
    let mut spans: Vec<_> = tensors
        .iter()
        .map(|(name, t)| (t.offset, t.offset + t.bytes, name))
        .collect();
    spans.sort_unstable();
    for pair in spans.windows(2) {
        if let [(_, end, _), (begin, _, name)] = pair
            && begin < end
        {
            let value = format!("at byte {begin}");
            let rule = "the tensor before it ends later";
            return Err(field(path, *name, Problem::Inconsistent { value, rule }));
        }
    }
    Ok(())
}
