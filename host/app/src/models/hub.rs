//! Models from the Hugging Face hub, over plain HTTPS: the list of files, then each file, going on where a broken download stopped.
//!
//! Large files are checked against the SHA-256 that the hub keeps for them, small ones against their size. Only files that a model is
//! made of are fetched, never code. `HF_ENDPOINT` names another hub, `HF_TOKEN` opens gated models.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::store::Store;

const ENDPOINT: &str = "https://huggingface.co";
/// A closed network refuses or swallows connections; either must show within seconds.
const CONNECT: Duration = Duration::from_secs(4);
const LISTING: Duration = Duration::from_secs(15);
/// A body from which nothing comes for so long is broken.
const STALLED: Duration = Duration::from_secs(30);
/// A listing is some KB; this is for a hostile one.
const MAX_LISTING: u64 = 16 << 20;
/// Attempts in a row that bring not one byte.
const FRUITLESS: u32 = 3;
/// Everything else in a repository (code, pictures, other formats) stays there.
const SMALL: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// A repository and the revision that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    name: String,
    revision: Option<String>,
}

impl Repository {
    /// `org/name` or `org/name@revision`; nothing that could leave a folder or a URL's path.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty()
                && part.len() <= 96
                && !part.starts_with('.')
                && part.chars().all(allowed)
        };
        let (org, model) = name.split_once('/')?;
        (plain(org) && plain(model) && revision.is_none_or(plain)).then(|| Self {
            name: name.into(),
            revision: revision.map(str::to_owned),
        })
    }

    /// The folder in the cache.
    pub fn folder(&self) -> String {
        let name = self.name.replacen('/', "--", 1);
        self.revision
            .as_ref()
            .map_or(name.clone(), |revision| format!("{name}@{revision}"))
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The hub.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize, Clone)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Large>,
}

#[derive(Deserialize, Clone)]
struct Large {
    sha256: String,
    size: u64,
}

impl Hub {
    /// The hub that the environment names.
    pub fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::at(
            set("HF_ENDPOINT").as_deref().unwrap_or(ENDPOINT),
            set("HF_TOKEN"),
        )
    }

    /// A hub at this address.
    pub fn at(endpoint: &str, token: Option<String>) -> Self {
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("nextstate/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(LISTING))
            .timeout_per_read(Some(STALLED))
            .http_status_as_error(false)
            .build();
        Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            token,
            agent: config.into(),
        }
    }

    /// Downloads a model into the store.
    ///
    /// # Errors
    /// When the hub cannot be reached, has no such model, or sends something else than it promised.
    pub fn pull(
        &self,
        repository: &Repository,
        store: &Store,
        folder: &str,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        let listing = self.list(repository)?;
        let files = choose(&listing.siblings)
            .with_context(|| format!("choose files of {}", repository.name))?;
        let partial = store.partial(folder, &listing.sha[..12])?;
        progress.set_length(files.iter().map(Sibling::bytes).sum());
        let mut before = 0;
        for file in &files {
            progress.set_message(file.rfilename.clone());
            let url = format!(
                "{}/{}/resolve/{}/{}",
                self.endpoint, repository.name, listing.sha, file.rfilename
            );
            self.fetch(&url, &partial, file, before, progress)?;
            before += file.bytes();
            progress.set_position(before);
        }
        store.finish(&partial, folder)?;
        progress.finish_and_clear();
        Ok(())
    }

    fn list(&self, repository: &Repository) -> anyhow::Result<Listing> {
        let revision = repository.revision.as_deref().unwrap_or("main");
        let url = format!(
            "{}/api/models/{}/revision/{revision}?blobs=true",
            self.endpoint, repository.name
        );
        let mut response = self.get(&url, None).with_context(|| format!("ask {url}"))?;
        let status = response.status();
        match status.as_u16() {
            200 => {}
            401 | 403 => {
                bail!("{url} answers {status}: the model does not exist, or is gated: set HF_TOKEN")
            }
            404 => bail!("{url} answers {status}: no such model or revision"),
            _ => bail!("{url} answers {status}"),
        }
        let mut body = Vec::new();
        response
            .body_mut()
            .as_reader()
            .take(MAX_LISTING)
            .read_to_end(&mut body)?;
        let listing: Listing = serde_json::from_slice(&body)
            .with_context(|| format!("understand the answer of {url}"))?;
        let hex = listing.sha.len() >= 12 && listing.sha.bytes().all(|b| b.is_ascii_hexdigit());
        ensure!(hex, "{url} names the commit {:?}", listing.sha);
        Ok(listing)
    }

    fn get(
        &self,
        url: &str,
        from: Option<u64>,
    ) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call()
    }

    /// Fetches one file, in as many attempts as bring something.
    fn fetch(
        &self,
        url: &str,
        partial: &Path,
        file: &Sibling,
        before: u64,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        let last = partial.join(&file.rfilename);
        if last.is_file() {
            return Ok(()); // only ever named so after its check
        }
        let path = partial.join(format!("{}.part", file.rfilename));
        let mut part = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let total = file.bytes();
        let mut fruitless = 0;
        loop {
            let have = part.seek(SeekFrom::End(0))?;
            progress.set_position(before + have.min(total));
            if have >= total {
                break;
            }
            let outcome = self.append(url, &mut part, have, total, |n| {
                progress.set_position(before + n)
            });
            let now = part.metadata()?.len();
            match outcome {
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Broken(error)) if now <= have => {
                    fruitless += 1;
                    if fruitless == FRUITLESS {
                        return Err(error.context(format!("download {url} from byte {have} on")));
                    }
                }
                _ => fruitless = 0,
            }
        }
        if let Err(error) = check(&mut part, file) {
            drop(part);
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            return Err(error.context(format!("check {url}")));
        }
        fs::rename(&path, &last).with_context(|| format!("rename {}", path.display()))
    }

    /// One request: appends what comes after `have` bytes.
    fn append(
        &self,
        url: &str,
        part: &mut File,
        have: u64,
        total: u64,
        mut seen: impl FnMut(u64),
    ) -> Result<(), Attempt> {
        let broken = |error: anyhow::Error| Attempt::Broken(error);
        let stuck = |error: std::io::Error| Attempt::Final(error.into());
        let from = (have > 0).then_some(have);
        let mut response = self.get(url, from).map_err(|error| broken(error.into()))?;
        let mut at = match response.status().as_u16() {
            206 => have,
            // A server that does not know ranges starts over, and so do we.
            200 => 0,
            status @ (408 | 429 | 500..) => {
                return Err(broken(anyhow::anyhow!("{url} answers {status}")));
            }
            status => return Err(Attempt::Final(anyhow::anyhow!("{url} answers {status}"))),
        };
        part.set_len(at)
            .and_then(|()| part.seek(SeekFrom::Start(at)))
            .map_err(stuck)?;
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 17];
        while at < total {
            let n = body
                .read(&mut buffer)
                .map_err(|error| broken(error.into()))?;
            if n == 0 {
                return Err(broken(anyhow::anyhow!(
                    "the connection ended at byte {at} of {total}"
                )));
            }
            let room = usize::try_from(total - at).unwrap_or(n).min(n);
            part.write_all(&buffer[..room]).map_err(stuck)?;
            at += room as u64;
            seen(at);
        }
        Ok(())
    }
}

/// Why an attempt ended early.
enum Attempt {
    /// Another one may go on.
    Broken(anyhow::Error),
    /// Another one would meet the same.
    Final(anyhow::Error),
}

impl Sibling {
    fn bytes(&self) -> u64 {
        self.lfs
            .as_ref()
            .map(|large| large.size)
            .or(self.size)
            .unwrap_or(0)
    }
}

/// The files that make the model: configuration, tokenizer, template and weights, or one GGUF file.
fn choose(siblings: &[Sibling]) -> anyhow::Result<Vec<Sibling>> {
    let ends = |sibling: &&Sibling, end: &str| {
        // A name with a folder in it is another variant of the model.
        !sibling.rfilename.contains(['/', '\\']) && sibling.rfilename.ends_with(end)
    };
    let has = |name: &str| siblings.iter().any(|sibling| sibling.rfilename == name);
    let weights: Vec<Sibling> = if has("model.safetensors") {
        siblings
            .iter()
            .filter(|s| s.rfilename == "model.safetensors")
            .cloned()
            .collect()
    } else if has("model.safetensors.index.json") {
        let shard = |s: &&Sibling| s.rfilename.starts_with("model-") && ends(s, ".safetensors");
        let index = |s: &&Sibling| s.rfilename == "model.safetensors.index.json";
        siblings
            .iter()
            .filter(|s| shard(s) || index(s))
            .cloned()
            .collect()
    } else {
        let files: Vec<Sibling> = siblings
            .iter()
            .filter(|s| ends(s, ".gguf"))
            .cloned()
            .collect();
        match files.len() {
            0 => bail!("it holds neither safetensors nor a GGUF file"),
            1 => return Ok(files),
            _ => bail!("it holds several GGUF files; download one and pass its path"),
        }
    };
    let small = siblings
        .iter()
        .filter(|s| SMALL.contains(&s.rfilename.as_str()))
        .cloned();
    let files: Vec<Sibling> = small.chain(weights).collect();
    if let Some(unsized_file) = files.iter().find(|file| file.bytes() == 0) {
        bail!(
            "the hub does not say how large {} is",
            unsized_file.rfilename
        );
    }
    Ok(files)
}

/// Compares a whole file with what the hub says of it.
fn check(part: &mut File, file: &Sibling) -> anyhow::Result<()> {
    let size = part.seek(SeekFrom::End(0))?;
    ensure!(
        size == file.bytes(),
        "it has {size} bytes, and the hub says {}",
        file.bytes()
    );
    if let Some(large) = &file.lfs {
        part.rewind()?;
        let found = sha256(part)?;
        ensure!(
            found.eq_ignore_ascii_case(&large.sha256),
            "its SHA-256 is {found}, and the hub says {}; the download is thrown away",
            large.sha256
        );
    }
    Ok(())
}

/// SHA-256 of everything that a reader gives, as hex.
pub(super) fn sha256(reader: &mut impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}
