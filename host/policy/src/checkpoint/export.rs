//! A model with an adapter's update added to its weights, written in the format that it came in.
//!
//! A Hugging Face folder becomes a folder (f32), a GGUF file a GGUF file (changed tensors f32, the others byte for byte as they
//! were, metadata too). Merged weights are kept in f32: what was learned is smaller than what 16 bits round away. Trains nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::gguf::Gguf;
use super::{Checkpoint, Dtype, Source, hf, names};
use crate::adapter::Adapter;
use crate::config::Architecture;
use crate::error::{Error, Result, io};

/// The files of a folder's model that hold its weights; they are written anew.
const WEIGHTS: &str = "model.safetensors";
/// ggml's number for f32.
const GGML_F32: u32 = 0;

/// The factors of one linear map.
#[derive(Clone, Copy, Default)]
struct Factors<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

/// An adapter's updates by the Hugging Face name of the tensor that they change.
struct Updates<'a> {
    maps: BTreeMap<String, Factors<'a>>,
    rank: usize,
    scale: f32,
}

impl<'a> Updates<'a> {
    fn new(adapter: &'a Adapter) -> Self {
        let mut maps: BTreeMap<String, Factors<'a>> = BTreeMap::new();
        for (name, _, values) in adapter.tensors() {
            let name = name.strip_prefix("base_model.model.").unwrap_or(&name);
            if let Some((module, _)) = name.split_once(".lora_A.") {
                maps.entry(format!("{module}.weight")).or_default().a = values;
            } else if let Some((module, _)) = name.split_once(".lora_B.") {
                maps.entry(format!("{module}.weight")).or_default().b = values;
            }
        }
        Self {
            maps,
            rank: adapter.rank(),
            scale: adapter.alpha() / adapter.rank() as f32,
        }
    }

    /// Adds α/r·B·A to a weight matrix (outputs, inputs).
    fn add(&self, factors: Factors<'_>, weights: &mut [f32]) {
        let inputs = factors.a.len() / self.rank;
        let rows = weights.chunks_exact_mut(inputs);
        for (row, of_row) in rows.zip(factors.b.chunks_exact(self.rank)) {
            for (factor, direction) in of_row.iter().zip(factors.a.chunks_exact(inputs)) {
                let factor = self.scale * factor;
                for (weight, along) in row.iter_mut().zip(direction) {
                    *weight += factor * along;
                }
            }
        }
    }
}

impl Checkpoint {
    /// Writes the model with the adapter's update merged into it: a folder when the model is a Hugging Face folder, a GGUF file
    /// when it is one. It is at `out` whole or not at all.
    ///
    /// # Errors
    /// [`Error::AdapterSetting`] when the adapter is of another model; [`Error::Io`]; those of [`Checkpoint::tensor`].
    pub fn export_merged(&self, adapter: &Adapter, out: &Path) -> Result<()> {
        if !adapter.fits(&self.config) {
            return Err(Error::AdapterSetting {
                what: "rank",
                found: adapter.rank() as f64,
                rule: "its matrices have the shapes of another model",
            });
        }
        let updates = Updates::new(adapter);
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let part = out.with_file_name(format!(".{name}.part"));
        match &self.source {
            Source::Folder(folder) => write_folder(self.path(), folder, &updates, &part)?,
            Source::Gguf(file) => write_gguf(self, file, &updates, &part)?,
        }
        fs::rename(&part, out).map_err(io("rename", &part))
    }

    /// Whether the model is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        matches!(self.source, Source::Gguf(_))
    }
}

fn write_folder(path: &Path, folder: &hf::Folder, updates: &Updates<'_>, out: &Path) -> Result<()> {
    fs::create_dir_all(out).map_err(io("create", out))?;
    for file in folder.files(path) {
        let name = file.file_name().unwrap_or_default();
        let to = out.join(name);
        if name == "config.json" {
            let text = fs::read(&file).map_err(io("read", &file))?;
            let mut config: Value = serde_json::from_slice(&text).unwrap_or_default();
            config["torch_dtype"] = "float32".into();
            fs::write(&to, config.to_string()).map_err(io("write", &to))?;
        } else if file.extension().is_none_or(|end| end != "safetensors") {
            fs::copy(&file, &to).map_err(io("copy", &file))?;
        }
    }
    let mut header = Map::new();
    let mut offset = 0u64;
    for (name, shape) in folder.shapes() {
        let bytes = 4 * shape.iter().map(|axis| *axis as u64).product::<u64>();
        let place = json!([offset, offset + bytes]);
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": place});
        header.insert(name.to_owned(), entry);
        offset += bytes;
    }
    let mut header = Value::Object(header).to_string();
    let padded = header.len().next_multiple_of(8);
    header.push_str(&" ".repeat(padded - header.len()));
    let to = out.join(WEIGHTS);
    let file = File::create(&to).map_err(io("create", &to))?;
    let mut file = BufWriter::new(file);
    let write =
        |file: &mut BufWriter<File>, bytes: &[u8]| file.write_all(bytes).map_err(io("write", &to));
    write(&mut file, &(header.len() as u64).to_le_bytes())?;
    write(&mut file, header.as_bytes())?;
    for (name, shape) in folder.shapes() {
        let mut values = folder.tensor(path, name, shape)?;
        if let Some(factors) = updates.maps.get(name) {
            updates.add(*factors, &mut values);
        }
        write(&mut file, &bytes_of(&values))?;
    }
    finish(file, &to)
}

fn write_gguf(
    checkpoint: &Checkpoint,
    file: &Gguf,
    updates: &Updates<'_>,
    out: &Path,
) -> Result<()> {
    let path = checkpoint.path();
    let changed: BTreeMap<String, (&String, Factors<'_>)> = updates
        .maps
        .iter()
        .filter_map(|(name, factors)| Some((names::to_gguf(name)?, (name, *factors))))
        .collect();
    let align = file.alignment();
    // The counts, the metadata and everything before the table stay as they are.
    let mut head = vec![0; usize::try_from(file.table_at()).unwrap_or(usize::MAX)];
    let mut source = File::open(path).map_err(io("open", path))?;
    source.read_exact(&mut head).map_err(io("read", path))?;
    let mut offset = 0u64;
    for (name, info) in file.tensors() {
        let (id, bytes) = match changed.contains_key(name) {
            true => (GGML_F32, 4 * numbers(&info.shape)),
            false => (ggml_id(info.dtype), info.bytes),
        };
        head.extend((name.len() as u64).to_le_bytes());
        head.extend(name.as_bytes());
        let axes = u32::try_from(info.shape.len()).unwrap_or(u32::MAX);
        head.extend(axes.to_le_bytes());
        for axis in info.shape.iter().rev() {
            head.extend((*axis as u64).to_le_bytes());
        }
        head.extend(id.to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + bytes).next_multiple_of(align);
    }
    let target = File::create(out).map_err(io("create", out))?;
    let mut target = BufWriter::new(target);
    let put = |target: &mut BufWriter<File>, mut bytes: Vec<u8>| {
        let padded = bytes
            .len()
            .next_multiple_of(usize::try_from(align).unwrap_or(1));
        bytes.resize(padded, 0);
        target.write_all(&bytes).map_err(io("write", out))
    };
    put(&mut target, head)?;
    for (name, info) in file.tensors() {
        let bytes = match changed.get(name) {
            Some((canonical, factors)) => {
                let mut values = checkpoint.tensor(canonical, &info.shape)?;
                updates.add(*factors, &mut values);
                bytes_of(&in_file_order(checkpoint, name, values, &info.shape))
            }
            None => {
                let size = usize::try_from(info.bytes).unwrap_or(usize::MAX);
                let mut bytes = vec![0; size];
                let at = SeekFrom::Start(info.offset);
                source.seek(at).map_err(io("read", path))?;
                source.read_exact(&mut bytes).map_err(io("read", path))?;
                bytes
            }
        };
        put(&mut target, bytes)?;
    }
    finish(target, out)
}

/// Llama's query and key rows go back to the order in which ggml's rotary embedding wants them.
fn in_file_order(
    checkpoint: &Checkpoint,
    name: &str,
    values: Vec<f32>,
    shape: &[usize],
) -> Vec<f32> {
    let rotary = name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight");
    let (config, half) = (&checkpoint.config, checkpoint.config.head_dim / 2);
    let [_, columns] = shape else { return values };
    if !rotary || config.architecture != Architecture::Llama {
        return values;
    }
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(config.head_dim * columns) {
        for row in 0..config.head_dim {
            let from = (row / 2 + half * (row % 2)) * columns;
            out.extend_from_slice(&head[from..from + columns]);
        }
    }
    out
}

fn numbers(shape: &[usize]) -> u64 {
    shape.iter().map(|axis| *axis as u64).product()
}

fn ggml_id(dtype: Dtype) -> u32 {
    let mut known = (0..64).filter(|id| Dtype::from_ggml(*id) == Some(dtype));
    known.next().unwrap_or(GGML_F32)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn finish(mut file: BufWriter<File>, path: &Path) -> Result<()> {
    file.flush().map_err(io("write", path))?;
    file.get_ref().sync_all().map_err(io("write", path))
}
