//! A plugin's manifest (`plugin.toml`) and the typed check of its section of a recipe.
//!
//! Pure data: does not look at the component; see [`crate::load`].

use std::{collections::BTreeMap, fmt};

use rl::Sees;
use serde::{Deserialize, Serialize};

use crate::error::LoadProblem;

/// The world that a component targets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// A modality.
    EnvironmentPlugin,
    /// PRM prompts.
    JudgePlugin,
    /// A reward scheme.
    RewardPlugin,
}

impl World {
    /// The world's name in `wit/`.
    pub fn as_str(self) -> &'static str {
        match self {
            World::EnvironmentPlugin => "environment-plugin",
            World::JudgePlugin => "judge-plugin",
            World::RewardPlugin => "reward-plugin",
        }
    }
}

/// Something that a plugin can be granted beyond `log` and `metric`, which it always has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Random numbers that replay.
    Random,
    /// The virtual clock.
    Clock,
    /// Its own section of the recipe.
    Config,
    /// A jailed machine.
    Shell,
    /// A headless page.
    Browser,
    /// Completions of a model, for simulated users.
    Model,
    /// Requests over HTTP to listed hosts.
    Http,
    /// Values that it finds again in later episodes.
    Store,
}

impl Capability {
    /// Every capability of this version of the contract. `shell` and `browser` run other people's programs, in a jail of their own;
    /// `model` asks the models that the operator named, and `http` reaches the hosts that he lists; `store` is kept in the ledger.
    pub const ALL: [Capability; 8] = [
        Capability::Random,
        Capability::Clock,
        Capability::Config,
        Capability::Shell,
        Capability::Browser,
        Capability::Model,
        Capability::Http,
        Capability::Store,
    ];

    /// Whether a judge or a reward rule may have it: they are functions of what is recorded, so that a replay of the record gives the
    /// same verdicts and rewards again.
    pub fn is_a_functions(self) -> bool {
        matches!(
            self,
            Capability::Random | Capability::Clock | Capability::Config
        )
    }

    /// The interface's name in `wit/`.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Random => "random",
            Capability::Clock => "clock",
            Capability::Config => "config",
            Capability::Shell => "shell",
            Capability::Browser => "browser",
            Capability::Model => "model",
            Capability::Http => "http",
            Capability::Store => "store",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `plugin.toml`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Lower-case words joined by `-`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// The world that its component targets.
    pub world: World,
    /// What it is, in a sentence.
    pub doc: String,
    /// What it asks for; the component may import nothing else.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// What a reward rule pays at once: a turn, a hosted episode, or all attempts at one task.
    #[serde(default)]
    pub sees: Sees,
    /// Whether a reward rule decides the advantage of every token.
    #[serde(default)]
    pub token_level: bool,
    /// The keys of its section of a recipe.
    #[serde(default)]
    pub config: Vec<Key>,
}

/// One key of a plugin's config.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Key {
    /// The key.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Its value when the recipe gives none; without one the key is optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<toml::Value>,
    /// The least value of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The greatest value of a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The only values of a text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<String>,
    /// What it does.
    pub doc: String,
}

/// The type of a config key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number of 32 bits.
    Integer,
    /// A finite number.
    Number,
    /// Yes or no.
    Boolean,
    /// A list of texts.
    Texts,
}

/// A checked config value.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i32),
    /// A finite number.
    Number(f64),
    /// Yes or no.
    Boolean(bool),
    /// A list of texts.
    Texts(Vec<String>),
}

impl Manifest {
    /// Reads a manifest and checks that it is consistent, defaults included.
    ///
    /// # Errors
    /// [`LoadProblem::Manifest`] or, for a default that does not fit, [`LoadProblem::Config`].
    pub fn parse(text: &str) -> Result<Self, LoadProblem> {
        let manifest: Manifest = toml::from_str(text).map_err(|error| {
            let at = error.span().and_then(|span| text.get(..span.start));
            let line = at.map_or_else(String::new, |before| {
                format!("line {}: ", before.matches('\n').count() + 1)
            });
            // It quotes what it does not know, whatever that holds.
            let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
            let said: String = error.message().chars().map(visible).collect();
            LoadProblem::Manifest(format!("{line}{said}"))
        })?;
        let fits = |name: &str| {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !name.is_empty() && name.len() <= 64 && name.chars().all(word)
        };
        for name in [&manifest.name]
            .into_iter()
            .chain(manifest.config.iter().map(|key| &key.name))
        {
            if !fits(name) {
                let problem = format!("`{name}` is not made of lower-case words joined by `-`");
                return Err(LoadProblem::Manifest(problem));
            }
        }
        let mark = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        let version = &manifest.version;
        // It becomes part of a file's name.
        if version.len() > 64
            || !version.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !version.chars().all(mark)
        {
            let problem = format!("`{version}` is no version, such as 0.1.0 or 2.0.0-beta.1");
            return Err(LoadProblem::Manifest(problem));
        }
        if manifest.world != World::RewardPlugin
            && (manifest.sees != Sees::Turn || manifest.token_level)
        {
            let problem = "`sees` and `token-level` are a reward rule's".to_owned();
            return Err(LoadProblem::Manifest(problem));
        }
        let mut wanted = manifest.capabilities.iter();
        let world = manifest.world;
        if world != World::EnvironmentPlugin
            && let Some(foreign) = wanted.find(|wanted| !wanted.is_a_functions())
        {
            let problem = format!(
                "`{foreign}` is for environments: what a {} answers follows from what it is given, so that a replay of the ledger gives the same",
                world.as_str()
            );
            return Err(LoadProblem::Manifest(problem));
        }
        // Attack: escape sequences for the terminal that an operator reads before he grants anything.
        let docs = manifest.config.iter().map(|key| &key.doc);
        if docs
            .chain([&manifest.doc])
            .any(|doc| doc.contains(char::is_control))
        {
            let problem = "a `doc` is one line without control characters".to_owned();
            return Err(LoadProblem::Manifest(problem));
        }
        manifest.check(&toml::Table::new())?;
        Ok(manifest)
    }

    /// Checks a section of a recipe against the schema and fills in the defaults.
    ///
    /// # Errors
    /// [`LoadProblem::Config`] for an unknown key, a wrong type or a value out of range.
    pub fn check(&self, section: &toml::Table) -> Result<BTreeMap<String, Value>, LoadProblem> {
        if let Some(unknown) = section
            .keys()
            .find(|name| self.config.iter().all(|key| key.name != **name))
        {
            let known: Vec<_> = self.config.iter().map(|key| key.name.as_str()).collect();
            let known = if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            };
            return Err(LoadProblem::Config {
                key: unknown.clone(),
                problem: format!("{} has no such key (it has: {known})", self.name),
            });
        }
        let mut values = BTreeMap::new();
        for key in &self.config {
            if let Some(given) = section.get(&key.name).or(key.default.as_ref()) {
                let value = key.check(given).map_err(|problem| LoadProblem::Config {
                    key: key.name.clone(),
                    problem,
                })?;
                values.insert(key.name.clone(), value);
            }
        }
        Ok(values)
    }
}

impl Key {
    fn check(&self, given: &toml::Value) -> Result<Value, String> {
        let value = match (self.kind, given) {
            (Kind::Text, toml::Value::String(text)) => Value::Text(text.clone()),
            (Kind::Integer, toml::Value::Integer(integer)) => Value::Integer(
                i32::try_from(*integer).map_err(|_| format!("{integer} does not fit 32 bits"))?,
            ),
            (Kind::Number, toml::Value::Float(number)) if number.is_finite() => {
                Value::Number(*number)
            }
            (Kind::Number, toml::Value::Integer(integer)) => {
                let small =
                    i32::try_from(*integer).map_err(|_| format!("{integer} is too large"))?;
                Value::Number(f64::from(small))
            }
            (Kind::Boolean, toml::Value::Boolean(boolean)) => Value::Boolean(*boolean),
            (Kind::Texts, toml::Value::Array(array)) => {
                let text = |item: &toml::Value| item.as_str().map(str::to_owned);
                let texts: Option<Vec<_>> = array.iter().map(text).collect();
                Value::Texts(texts.ok_or("it must be a list of texts")?)
            }
            (kind, given) => {
                return Err(
                    format!("it must be of type {kind:?}, and is {}", given.type_str())
                        .to_lowercase(),
                );
            }
        };
        self.check_range(&value)?;
        Ok(value)
    }

    fn check_range(&self, value: &Value) -> Result<(), String> {
        let number = match value {
            Value::Integer(integer) => Some(f64::from(*integer)),
            Value::Number(number) => Some(*number),
            _ => None,
        };
        if let (Some(number), Some(min)) = (number, self.min)
            && number < min
        {
            return Err(format!("{number} is less than {min}"));
        }
        if let (Some(number), Some(max)) = (number, self.max)
            && number > max
        {
            return Err(format!("{number} is greater than {max}"));
        }
        if let Value::Text(text) = value
            && !self.one_of.is_empty()
            && !self.one_of.contains(text)
        {
            return Err(format!(
                "`{text}` is not one of: {}",
                self.one_of.join(", ")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        name = "sample"
        version = "0.1.0"
        world = "reward-plugin"
        doc = "A sample."
        capabilities = ["config"]
        [[config]]
        name = "weight"
        type = "number"
        default = 1.0
        min = 0.0
        max = 10.0
        doc = "A weight."
        [[config]]
        name = "words"
        type = "texts"
        doc = "Words."
        [[config]]
        name = "mode"
        type = "text"
        default = "slow"
        one-of = ["slow", "fast"]
        doc = "A mode."
    "#;

    fn check(section: &str, expected: Result<&str, &str>) {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let found = manifest.check(&section.parse().unwrap());
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(serde_json::to_string(&found).unwrap(), expected)
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{section}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_section_is_checked_by_the_schema_and_completed_by_its_defaults() {
        check("", Ok(r#"{"mode":"slow","weight":1.0}"#));
        check("weight = 3", Ok(r#"{"mode":"slow","weight":3.0}"#));
        check(
            "words = ['a', 'b']",
            Ok(r#"{"mode":"slow","weight":1.0,"words":["a","b"]}"#),
        );
    }

    #[test]
    fn what_a_manifest_has_wrong_is_said_with_its_line_and_harmlessly() {
        let refused = |text: &str| Manifest::parse(text).unwrap_err().to_string();
        let unquoted = refused("name = \"a\"\nversion = \"1\"\ntoken-level = yes\n");
        assert!(unquoted.contains("line 3: "), "{unquoted}");
        let misspelt = refused(&format!("{MANIFEST}\ntipe = \"text\"\n"));
        assert!(misspelt.contains("tipe"), "{misspelt}");
        let evil = refused("name = \"a\"\n\"\\u001b[2J\" = 1\n");
        assert!(!evil.contains('\u{1b}') && evil.contains("[2J"), "{evil}");
    }

    #[test]
    fn an_unknown_key_a_wrong_type_and_a_value_out_of_range_are_refused_by_name() {
        check(
            "wieght = 1.0",
            Err("`wieght`: sample has no such key (it has: weight, words, mode)"),
        );
        check(
            "weight = 'x'",
            Err("`weight`: it must be of type number, and is string"),
        );
        check("weight = nan", Err("`weight`: it must be of type number"));
        check("weight = 11.0", Err("11 is greater than 10"));
        check("weight = -1", Err("-1 is less than 0"));
        check(
            "words = ['a', 1]",
            Err("`words`: it must be a list of texts"),
        );
        check("mode = 'medium'", Err("`medium` is not one of: slow, fast"));
    }

    #[test]
    fn a_manifest_with_a_default_that_breaks_its_own_schema_is_refused() {
        let broken = MANIFEST.replace("default = 1.0", "default = 12.0");
        assert!(matches!(
            Manifest::parse(&broken),
            Err(LoadProblem::Config { .. })
        ));
        let broken = MANIFEST.replace("\"sample\"", "\"Sample Plugin\"");
        assert!(matches!(
            Manifest::parse(&broken),
            Err(LoadProblem::Manifest(_))
        ));
        for version in ["", "../../etc", "1.0/2", "-1", "1 0"] {
            let broken = MANIFEST.replace("0.1.0", version);
            assert!(
                matches!(Manifest::parse(&broken), Err(LoadProblem::Manifest(_))),
                "{version}"
            );
        }
        for (old, new) in [
            ("A sample.", "A\\u001b[2J sample."),
            ("A mode.", "A\\nmode."),
        ] {
            let broken = MANIFEST.replace(old, new);
            assert!(
                matches!(Manifest::parse(&broken), Err(LoadProblem::Manifest(_))),
                "{new}"
            );
        }
        let broken = MANIFEST.replace("reward-plugin", "root-plugin");
        assert!(matches!(
            Manifest::parse(&broken),
            Err(LoadProblem::Manifest(_))
        ));
    }
}
