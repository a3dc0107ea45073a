//! Who the person is to a registry: `NEXTSTATE_OCI_USER` and `NEXTSTATE_OCI_PASSWORD` to the one that `NEXTSTATE_OCI_REGISTRY` names, else
//! what `docker login` left behind.

use std::env;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

const REGISTRY: &str = "NEXTSTATE_OCI_REGISTRY";
const USER: &str = "NEXTSTATE_OCI_USER";
const PASSWORD: &str = "NEXTSTATE_OCI_PASSWORD";
/// Docker's own name for its hub, from before there were others.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// These.
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    /// What the environment, else docker's configuration, says for this registry.
    ///
    /// # Errors
    /// One of the two variables without the other; a damaged configuration.
    pub(super) fn of(registry: &str) -> anyhow::Result<Option<Self>> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self::of_variables(registry, &set)
    }

    fn of_variables(
        registry: &str,
        set: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Option<Self>> {
        // Attack: a reference to a registry of somebody else's, which would be told the password of the person's own.
        if set(REGISTRY).is_some_and(|named| is_for(&named, registry)) {
            match (set(USER), set(PASSWORD)) {
                (Some(user), Some(password)) => return Ok(Some(Self { user, password })),
                (Some(_), None) => bail!("{USER} is set, and {PASSWORD} is not"),
                (None, Some(_)) => bail!("{PASSWORD} is set, and {USER} is not"),
                (None, None) => {}
            }
        }
        let folder = set("DOCKER_CONFIG").map(PathBuf::from);
        let home = || Some(PathBuf::from(set("HOME")?).join(".docker"));
        match folder.or_else(home) {
            Some(folder) => Self::of_docker(&folder.join("config.json"), registry),
            None => Ok(None),
        }
    }

    /// What a file of docker's says for this registry.
    ///
    /// # Errors
    /// A damaged file.
    pub(super) fn of_docker(path: &Path, registry: &str) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("failed to read {}", path.display()))?,
        };
        let config: Value = serde_json::from_str(&text)
            .with_context(|| format!("failed to read {} as JSON", path.display()))?;
        let Some(auths) = config["auths"].as_object() else {
            return Ok(None);
        };
        let entry = auths.iter().find(|(key, _)| is_for(key, registry));
        // An entry without `auth` says that a helper program keeps the password; none is run.
        let Some((key, auth)) = entry.and_then(|(key, entry)| Some((key, entry["auth"].as_str()?)))
        else {
            return Ok(None);
        };
        let whole = STANDARD
            .decode(auth)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let (user, password) = whole
            .as_deref()
            .and_then(|whole| whole.split_once(':'))
            .with_context(|| {
                format!(
                    "failed to read the entry `{key}` of {}: `docker login` renews it",
                    path.display()
                )
            })?;
        Ok(Some(Self::new(user, password.trim_end_matches('\0'))))
    }

    /// The header `Authorization`.
    pub(super) fn basic(&self) -> String {
        let whole = format!("{}:{}", self.user, self.password);
        format!("Basic {}", STANDARD.encode(whole))
    }
}

/// Keys are hosts, or addresses with a path after them.
fn is_for(key: &str, registry: &str) -> bool {
    let host = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or(host);
    host == registry || (DOCKER_HUB.contains(&host) && DOCKER_HUB.contains(&registry))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_entry_for_a_registry_is_found_and_no_other_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let of = |registry: &str| Credentials::of_docker(&path, registry);
        assert_eq!(of("ghcr.io").unwrap(), None);
        let config = serde_json::json!({"auths": {
            "ghcr.io": {"auth": STANDARD.encode("ann:a:b")},
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("bob:c")},
            "kept.example.org": {},
            "bad.example.org": {"auth": "?"},
        }, "credsStore": "desktop"});
        fs::write(&path, config.to_string()).unwrap();
        assert_eq!(of("ghcr.io").unwrap(), Some(Credentials::new("ann", "a:b")));
        assert_eq!(of("docker.io").unwrap(), Some(Credentials::new("bob", "c")));
        for registry in ["kept.example.org", "evil.ghcr.io", "ghcr.io:5000"] {
            assert_eq!(of(registry).unwrap(), None, "{registry}");
        }
        let error = format!("{:#}", of("bad.example.org").unwrap_err());
        assert!(error.contains("docker login"), "{error}");
        fs::write(&path, "{").unwrap();
        let error = format!("{:#}", of("ghcr.io").unwrap_err());
        assert!(error.contains("config.json as JSON"), "{error}");
    }

    #[test]
    fn the_variables_are_for_the_registry_that_they_name_and_docker_s_for_every_other() {
        let dir = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"auths": {"b.org": {"auth": STANDARD.encode("bob:c")}}});
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let of = |named: Option<&str>, password: Option<&str>, registry: &str| {
            let set = |name: &str| match name {
                REGISTRY => named.map(str::to_owned),
                USER => Some("ann".to_owned()),
                PASSWORD => password.map(str::to_owned),
                "DOCKER_CONFIG" => Some(dir.path().display().to_string()),
                _ => None,
            };
            Credentials::of_variables(registry, &set)
        };
        let check = |named: Option<&str>, registry: &str, expected: Option<&str>| {
            let found = of(named, Some("secret"), registry).unwrap();
            let found = found.as_ref().map(|found| found.user.as_str());
            assert_eq!(found, expected, "{named:?} {registry}");
        };
        check(Some("a.org"), "a.org", Some("ann"));
        check(Some("a.org:5000"), "a.org:5000", Some("ann"));
        check(Some("docker.io"), "registry-1.docker.io", Some("ann"));
        check(Some("a.org"), "b.org", Some("bob"));
        check(Some("a.org"), "c.org", None);
        check(Some("a.org"), "a.org:5000", None);
        check(Some("a.org"), "evil.a.org", None);
        check(None, "a.org", None);
        let error = of(Some("a.org"), None, "a.org").unwrap_err().to_string();
        assert!(error.contains(PASSWORD), "{error}");
        assert_eq!(of(Some("a.org"), None, "c.org").unwrap(), None);
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = format!("{:?}", Credentials::new("ann", "secret"));
        assert!(
            shown.contains("ann") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
