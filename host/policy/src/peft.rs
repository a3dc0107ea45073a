//! LoRA adapters on disk as Hugging Face's PEFT reads and writes them.
//!
//! A folder with `adapter_config.json` and `adapter_model.safetensors` (f32, names as PEFT gives them). Variants that would change
//! the arithmetic (DoRA, rank-stabilised scaling, biases, per-layer ranks, further trained modules, other targets) are refused by the
//! name of their field. Does not know how adapters are trained or versioned. Start at [`load`] and [`save`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype as StoredDtype, TensorView, View, serialize};
use serde_json::{Value, json};

use crate::adapter::{Adapter, Projection, put};
use crate::checkpoint::{Dtype, read_json, read_small};
use crate::config::{ModelConfig, in_range, positive};
use crate::error::{Error, Problem, Result, field, io};

/// The name of the settings' file.
pub const CONFIG: &str = "adapter_config.json";
/// The name of the weights' file.
pub const WEIGHTS: &str = "adapter_model.safetensors";

const MAX_CONFIG: u64 = 1 << 20;
/// An adapter of rank 256 on a 70 B model is about 3 GB.
const MAX_WEIGHTS: u64 = 8 << 30;
const MAX_RANK: usize = 1 << 12;
/// The names of the seven linear maps, sorted, as PEFT lists them.
const TARGETS: [&str; 7] = [
    "down_proj",
    "gate_proj",
    "k_proj",
    "o_proj",
    "q_proj",
    "up_proj",
    "v_proj",
];

/// What `adapter_config.json` says, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Which linear maps are adapted, sorted.
    pub targets: Vec<String>,
    /// The model that the adapter was made for, when the file says.
    pub base_model: Option<String>,
}

/// The text of `adapter_config.json` for an adapter on all seven linear maps.
pub fn config_json(base_model: &str, rank: usize, alpha: f32) -> String {
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "use_rslora": false,
        "use_dora": false,
        "modules_to_save": null,
        "target_modules": TARGETS,
    });
    format!("{config:#}\n")
}

/// Reads the text of `adapter_config.json`. `path` only names it in errors.
///
/// # Errors
/// [`Error::Field`] with the name of what is missing or not supported.
pub fn parse_config(config: &Value, path: &Path) -> Result<LoraConfig> {
    let fail = |name: &str, problem| Err(field(path, name, problem));
    let unsupported = |name: &str, value: &Value| {
        fail(
            name,
            Problem::Unsupported {
                value: value.to_string(),
            },
        )
    };
    match config.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return unsupported("peft_type", &Value::from(other)),
        None => return fail("peft_type", Problem::Missing),
    }
    let off = [
        Value::Null,
        json!(false),
        json!([]),
        json!({}),
        json!("none"),
    ];
    for name in [
        "use_dora",
        "use_rslora",
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "fan_in_fan_out",
        "bias",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "layers_pattern",
        "layer_replication",
        "target_parameters",
        "trainable_token_indices",
        "exclude_modules",
        "alora_invocation_tokens",
    ] {
        if let Some(value) = config.get(name).filter(|value| !off.contains(value)) {
            return unsupported(name, value);
        }
    }
    let Some(rank) = config.get("r").and_then(Value::as_u64) else {
        return fail(
            "r",
            Problem::Type {
                expected: "a positive integer",
            },
        );
    };
    let Some(alpha) = config.get("lora_alpha").and_then(Value::as_f64) else {
        return fail(
            "lora_alpha",
            Problem::Type {
                expected: "a number",
            },
        );
    };
    let targets = targets(config, path)?;
    Ok(LoraConfig {
        rank: in_range(path, "r", rank, MAX_RANK)?,
        alpha: positive(path, "lora_alpha", alpha, 0.0, 1e6)?,
        targets,
        base_model: config
            .get("base_model_name_or_path")
            .and_then(Value::as_str)
            .map(str::to_owned),
    })
}

/// The adapted linear maps, sorted.
fn targets(config: &Value, path: &Path) -> Result<Vec<String>> {
    let name = "target_modules";
    let unsupported = |value: &Value| {
        Err(field(
            path,
            name,
            Problem::Unsupported {
                value: value.to_string(),
            },
        ))
    };
    let mut targets = Vec::new();
    match config.get(name) {
        Some(Value::String(all)) if all == "all-linear" => {
            targets.extend(TARGETS.map(str::to_owned));
        }
        Some(Value::Array(list)) => {
            for target in list {
                match target.as_str() {
                    Some(name) if TARGETS.contains(&name) => targets.push(name.to_owned()),
                    _ => return unsupported(target),
                }
            }
        }
        Some(other) if !other.is_null() => return unsupported(other),
        _ => {}
    }
    targets.sort_unstable();
    targets.dedup();
    if targets.is_empty() {
        return Err(field(path, name, Problem::Missing));
    }
    Ok(targets)
}

/// Loads an adapter folder for a model. Linear maps that the adapter leaves alone get zeros.
///
/// # Errors
/// [`Error::Field`] with the field or tensor that is missing, of another shape, or not supported; [`Error::Io`]; [`Error::Json`].
pub fn load(folder: &Path, model: &ModelConfig) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    let config = parse_config(&read_json(&path, MAX_CONFIG)?, &path)?;
    let path = folder.join(WEIGHTS);
    let bytes = read_small(&path, MAX_WEIGHTS)?;
    read_adapter(&bytes, &path, model, &config)
}

/// Writes an adapter folder: into a new folder beside it, flushed to disk, then renamed. An existing folder of that name is
/// replaced.
///
/// # Errors
/// [`Error::Io`], after which the old folder, if there was one, is still there.
pub fn save(folder: &Path, base_model: &str, adapter: &Adapter) -> Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let parent: PathBuf = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    };
    let temporary = parent.join(format!(".{name}.{}.new", std::process::id()));
    let retired = parent.join(format!(".{name}.{}.old", std::process::id()));
    let written = write_files(&temporary, base_model, adapter).and_then(|()| {
        if folder.exists() {
            fs::rename(folder, &retired).map_err(io("move aside", folder))?;
        }
        fs::rename(&temporary, folder).map_err(|source| {
            let _still_there = fs::rename(&retired, folder);
            Error::Io {
                action: "rename",
                path: temporary.clone(),
                source,
            }
        })
    });
    // Whatever is left over belongs to this call alone; failing to remove it harms nothing.
    let _leftovers = (fs::remove_dir_all(&temporary), fs::remove_dir_all(&retired));
    written?;
    sync_folder(&parent)
}

fn write_files(folder: &Path, base_model: &str, adapter: &Adapter) -> Result<()> {
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    let config = config_json(base_model, adapter.rank(), adapter.alpha());
    for (name, bytes) in [
        (CONFIG, config.into_bytes()),
        (WEIGHTS, adapter.to_safetensors()?),
    ] {
        let path = folder.join(name);
        let mut file = File::create(&path).map_err(io("create", &path))?;
        file.write_all(&bytes).map_err(io("write", &path))?;
        file.sync_all().map_err(io("flush", &path))?;
    }
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(io("flush", folder))
}

/// A matrix whose bytes are made when they are written: all matrices' beside the file would be twice its memory.
struct Matrix<'a> {
    shape: [usize; 2],
    values: &'a [f32],
}

impl View for Matrix<'_> {
    fn dtype(&self) -> StoredDtype {
        StoredDtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::new();
        put(self.values, &mut bytes);
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

impl Adapter {
    /// The bytes of `adapter_model.safetensors`. Equal adapters give equal bytes.
    ///
    /// # Errors
    /// [`Error::Safetensors`], which only a file beyond the format's limits causes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let fail = |source| Error::Safetensors {
            action: "write an adapter as",
            source,
        };
        let tensors = self
            .tensors()
            .map(|(name, shape, values)| (name, Matrix { shape, values }));
        let metadata = [("format".to_owned(), "pt".to_owned())]
            .into_iter()
            .collect();
        serialize(tensors, Some(metadata)).map_err(fail)
    }

    /// Reads the bytes of an `adapter_model.safetensors` that holds all seven linear maps of every layer. The rank is that of its
    /// tensors.
    ///
    /// # Errors
    /// As [`load`].
    pub fn from_safetensors(bytes: &[u8], model: &ModelConfig, alpha: f32) -> Result<Adapter> {
        let path = Path::new(WEIGHTS);
        let file = parse(bytes)?;
        let first = file.iter().find(|(name, _)| name.contains("lora_A"));
        let rank = first.and_then(|(_, view)| view.shape().first().copied());
        let rank = in_range(path, "lora_A rank", rank.unwrap_or(0) as u64, MAX_RANK)?;
        let targets = TARGETS.map(str::to_owned).to_vec();
        let config = LoraConfig {
            rank,
            alpha,
            targets,
            base_model: None,
        };
        read_adapter(bytes, path, model, &config)
    }
}

fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>> {
    SafeTensors::deserialize(bytes).map_err(|source| Error::Safetensors {
        action: "read an adapter as",
        source,
    })
}

fn read_adapter(
    bytes: &[u8],
    path: &Path,
    model: &ModelConfig,
    config: &LoraConfig,
) -> Result<Adapter> {
    let file = parse(bytes)?;
    let mut found: BTreeMap<&str, TensorView<'_>> = file.iter().collect();
    let size: usize = Projection::ALL
        .iter()
        .map(|p| p.shape(model))
        .map(|(o, i)| o + i)
        .sum();
    let zeros = vec![0.0; model.layers * config.rank * size];
    let mut adapter = Adapter::from_params(model, config.rank, config.alpha, zeros)?;
    let mut params = adapter.params().to_vec();
    for (name, shape, range) in adapter.names_and_shapes() {
        let target = name.split('.').rev().nth(2).unwrap_or_default();
        let Some(view) = found.remove(name.as_str()) else {
            if config.targets.iter().any(|t| t == target) {
                return Err(Error::MissingTensor {
                    path: path.into(),
                    name,
                });
            }
            continue;
        };
        if view.shape() != shape {
            let (expected, found) = (shape.to_vec(), view.shape().to_vec());
            return Err(Error::TensorShape {
                path: path.into(),
                name,
                expected,
                found,
            });
        }
        let dtype = match view.dtype() {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::F16 => Dtype::F16,
            StoredDtype::BF16 => Dtype::BF16,
            other => {
                let problem = Problem::Unsupported {
                    value: format!("dtype {other:?}"),
                };
                return Err(field(path, name, problem));
            }
        };
        let mut values = Vec::with_capacity(range.len());
        dtype.decode(view.data(), &mut values);
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(field(path, name, Problem::NonFinite { index }));
        }
        params[range].copy_from_slice(&values);
    }
    if let Some(name) = found.keys().next() {
        let problem = Problem::Unsupported {
            value: "a tensor that no target explains".into(),
        };
        return Err(field(path, *name, problem));
    }
    adapter.update(|all| all.copy_from_slice(&params));
    Ok(adapter)
}

#[cfg(test)]
mod tests;
