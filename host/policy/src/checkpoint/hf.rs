//! A Hugging Face folder: `config.json`, one or sharded safetensors, `tokenizer.json`, a chat template.
//!
//! Runs no code from the folder and follows no name out of it. Does not download; the command line's model store does.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::safetensors::SafeTensors;
use super::{check_shape, read_json, read_small};
use crate::config::ModelConfig;
use crate::error::{Error, Problem, Result, field};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// Configuration files are a few KB; published tokenizers reach 35 MB and indexes 10 MB.
const MAX_CONFIG: u64 = 16 << 20;
const MAX_INDEX: u64 = 64 << 20;
const MAX_TOKENIZER: u64 = 256 << 20;
const MAX_SHARDS: usize = 4096;

/// The open weight files of a folder.
#[derive(Debug)]
pub(super) struct Folder {
    shards: Vec<(PathBuf, SafeTensors)>,
    /// Tensor name to position in `shards`.
    holder: BTreeMap<String, usize>,
    bos: Option<String>,
    eos: Option<String>,
    template: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<(Self, ModelConfig)> {
        let config_path = path.join("config.json");
        let config: Value = read_json(&config_path, MAX_CONFIG)?;
        let generation = optional(&path.join("generation_config.json"))?;
        let config = ModelConfig::from_hf(&config_path, &config, generation.as_ref())?;
        let (shards, holder) = open_shards(path)?;
        let settings = optional(&path.join("tokenizer_config.json"))?.unwrap_or(Value::Null);
        let template = chat_template(path, &settings)?;
        let folder = Self {
            shards,
            holder,
            bos: token_text(&settings, "bos_token"),
            eos: token_text(&settings, "eos_token"),
            template,
        };
        Ok((folder, config))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.holder.contains_key(name)
    }

    pub(super) fn tensor(&self, path: &Path, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let holder = self.holder.get(name).and_then(|&i| self.shards.get(i));
        let missing = || Error::MissingTensor {
            path: path.into(),
            name: name.into(),
        };
        let (file, shard) = holder.ok_or_else(missing)?;
        let info = shard.tensors().get(name).ok_or_else(missing)?;
        check_shape(file, name, &info.shape, shape)?;
        shard.read(name)
    }

    pub(super) fn tokenizer(&self, path: &Path) -> Result<Tokenizer> {
        let file = path.join("tokenizer.json");
        let bytes = read_small(&file, MAX_TOKENIZER)?;
        let tokenizer = Tokenizer::from_json(&bytes, &file)?;
        Ok(tokenizer.with_special_texts(self.bos.as_deref(), self.eos.as_deref()))
    }

    pub(super) fn template(&self, path: &Path) -> Result<ChatTemplate> {
        let Some(source) = &self.template else {
            return Ok(ChatTemplate::chatml());
        };
        // The template may name tokens that only the tokenizer's file knows; without one they are empty.
        let tokenizer = path
            .join("tokenizer.json")
            .is_file()
            .then(|| self.tokenizer(path))
            .transpose()?;
        let text = |own: &Option<String>, id: Option<u32>| {
            own.clone()
                .or_else(|| id.and_then(|id| tokenizer.as_ref()?.token_text(id)))
        };
        let bos = text(&self.bos, tokenizer.as_ref().and_then(Tokenizer::bos));
        let eos = text(&self.eos, tokenizer.as_ref().and_then(Tokenizer::eos));
        ChatTemplate::new(source, bos.as_deref(), eos.as_deref())
    }

    /// Every file that decides what the model says, in a fixed order.
    pub(super) fn files(&self, path: &Path) -> Vec<PathBuf> {
        let names = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
        ];
        let small = names
            .iter()
            .map(|name| path.join(name))
            .filter(|file| file.is_file());
        small
            .chain(self.shards.iter().map(|(file, _)| file.clone()))
            .collect()
    }
}

fn optional(path: &Path) -> Result<Option<Value>> {
    if path.is_file() {
        read_json(path, MAX_CONFIG).map(Some)
    } else {
        Ok(None)
    }
}

type Shards = (Vec<(PathBuf, SafeTensors)>, BTreeMap<String, usize>);

fn open_shards(path: &Path) -> Result<Shards> {
    let single = path.join("model.safetensors");
    let index_path = path.join("model.safetensors.index.json");
    if single.is_file() {
        let file = SafeTensors::open(&single)?;
        let holder = file
            .tensors()
            .keys()
            .map(|name| (name.clone(), 0))
            .collect();
        return Ok((vec![(single, file)], holder));
    }
    if !index_path.is_file() {
        let reason = "the folder has neither model.safetensors nor model.safetensors.index.json";
        return Err(Error::NotAModel {
            path: path.into(),
            reason,
        });
    }
    let index: Index = read_json(&index_path, MAX_INDEX)?;
    let mut shards: Vec<(PathBuf, SafeTensors)> = Vec::new();
    let mut holder = BTreeMap::new();
    let mut position = BTreeMap::new();
    for (tensor, file) in &index.weight_map {
        let fail = |problem| Err(field(&index_path, format!("weight_map.{tensor}"), problem));
        let at = if let Some(&at) = position.get(file) {
            at
        } else {
            // A name with folders in it could point anywhere on the disk.
            let mut parts = Path::new(file).components();
            if !matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            ) {
                return fail(Problem::Unsupported {
                    value: format!("the file {file:?}"),
                });
            }
            if shards.len() == MAX_SHARDS {
                let limit = MAX_SHARDS as u64;
                return fail(Problem::TooMany {
                    count: limit + 1,
                    limit,
                });
            }
            let shard = path.join(file);
            shards.push((shard.clone(), SafeTensors::open(&shard)?));
            position.insert(file, shards.len() - 1);
            shards.len() - 1
        };
        if !shards[at].1.tensors().contains_key(tensor) {
            let rule = "that file does not hold the tensor";
            return fail(Problem::Inconsistent {
                value: file.clone(),
                rule,
            });
        }
        holder.insert(tensor.clone(), at);
    }
    Ok((shards, holder))
}

/// `bos_token` and `eos_token` are texts, or objects with `content`.
fn token_text(settings: &Value, name: &str) -> Option<String> {
    let value = settings.get(name)?;
    value
        .as_str()
        .or_else(|| value.get("content")?.as_str())
        .map(Into::into)
}

/// `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`: a text, or a list of named ones, of which the
/// one called "default" counts.
fn chat_template(path: &Path, settings: &Value) -> Result<Option<String>> {
    let file = path.join("chat_template.jinja");
    if file.is_file() {
        let bytes = read_small(&file, MAX_CONFIG)?;
        let text = String::from_utf8(bytes).map_err(|_| field(&file, "text", Problem::Utf8))?;
        return Ok(Some(text));
    }
    let named = |list: &Vec<Value>| {
        let default = list
            .iter()
            .find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
        default
            .and_then(|t| t.get("template"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    match settings.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(list)) if named(list).is_some() => Ok(named(list)),
        Some(_) => {
            let expected = "a string or a list with an entry named \"default\"";
            let file = path.join("tokenizer_config.json");
            Err(field(file, "chat_template", Problem::Type { expected }))
        }
    }
}
