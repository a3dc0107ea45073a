//! `[loops.gate]`: what is asked of a version before it is served, and how far it may be from the one that is.

use std::collections::{BTreeMap, BTreeSet};

use rl::Seed;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One question of the canary set, and what a good reply must be like. A probe without any rule is no task: only the guards
/// look at its replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probe {
    /// The user's message.
    pub prompt: String,
    /// Words or phrases of which one must occur, upper and lower case alike. Empty: none must.
    pub expect: Vec<String>,
    /// Words or phrases of which none may occur.
    pub forbid: Vec<String>,
    /// Most words of a reply.
    pub max_words: Option<usize>,
}

impl Probe {
    fn new(prompt: &str, expect: &[&str]) -> Self {
        Self {
            prompt: prompt.to_owned(),
            expect: expect.iter().map(|&word| word.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Whether a reply does the task; none when the probe is no task.
    pub fn check(&self, reply: &str) -> Option<bool> {
        if self.expect.is_empty() && self.forbid.is_empty() && self.max_words.is_none() {
            return None;
        }
        let reply = reply.to_lowercase();
        let says = |phrase: &String| occurs(&reply, &phrase.to_lowercase());
        let expected = self.expect.is_empty() || self.expect.iter().any(says);
        let forbidden = self.forbid.iter().any(says);
        let words = reply.split_whitespace().count();
        let fits = self.max_words.is_none_or(|most| words <= most);
        Some(expected && !forbidden && fits)
    }
}

/// Whether a phrase occurs as whole words: "7" is not in "17".
fn occurs(text: &str, phrase: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(phrase).any(|(at, found)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + found.len()..);
        !joins(before) && !joins(after.and_then(|text| text.chars().next()))
    })
}

/// How far a candidate may be from the live version and from the base. Units are in each line; "rise" is above the worse of
/// base and live version, so that a model that is bad at something by itself is not refused for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Nats a token that the live version's replies may lose under the candidate. A good step loses some hundredths, a
    /// destroyed model all it has (about 10).
    pub drift: f64,
    /// KL from the candidate to the live version, nats a token. One step of a healthy run moves 0.3 at most.
    pub kl_live: f64,
    /// KL from the candidate to the base, nats a token. A learned manner of speaking takes about 1; at 4 hardly any
    /// token would be the base's choice.
    pub kl_base: f64,
    /// Mean length over the live version's: at most. A persona that likes detail doubles it over several versions.
    pub longer: f64,
    /// Mean length over the live version's: at least. A persona that likes brevity halves it in some.
    pub shorter: f64,
    /// Rise of the share of replies that the limit cut off.
    pub cut_off: f64,
    /// Rise of the entropy estimate, nats a token. Noise has the logarithm of the vocabulary, about 10.
    pub entropy: f64,
    /// Rise of the share of repeated phrases above the base's, which no manner of speaking needs: it must not add up over
    /// versions.
    pub repetition: f64,
    /// Rise of the share of broken replies above the base's, too. At 8 probes: two may be broken by chance, three are a pattern.
    pub errors: f64,
    /// Rise above the base's of the share of replies that the base finds as likely after another probe's question: whatever the
    /// manner, a reply is about what was asked. As for broken replies, two of 8 may be by chance.
    pub off_topic: f64,
    /// Fall of the task score below the base's, at one examination: a disaster, beyond the chance of single replies.
    pub score: f64,
    /// Fall of the task score below the base's that counts as equal over the versions of a line.
    pub tolerance: f64,
    /// The chance that a line of versions that are all within the tolerance ever sees one refused by its task score.
    pub alpha: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            drift: 3.0,
            kl_live: 2.0,
            kl_base: 4.0,
            longer: 5.0,
            shorter: 0.1,
            cut_off: 0.7,
            entropy: 2.5,
            repetition: 0.3,
            errors: 0.25,
            off_topic: 0.25,
            score: 0.7,
            tolerance: 0.2,
            alpha: 0.01,
        }
    }
}

impl Limits {
    /// The limit of this name, as the configuration spells it.
    fn named(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "drift" => &mut self.drift,
            "kl-live" => &mut self.kl_live,
            "kl-base" => &mut self.kl_base,
            "longer" => &mut self.longer,
            "shorter" => &mut self.shorter,
            "cut-off" => &mut self.cut_off,
            "entropy" => &mut self.entropy,
            "repetition" => &mut self.repetition,
            "errors" => &mut self.errors,
            "off-topic" => &mut self.off_topic,
            "score" => &mut self.score,
            "tolerance" => &mut self.tolerance,
            "alpha" => &mut self.alpha,
            _ => return None,
        })
    }

    fn validate(&self) -> Result<()> {
        let ranges = [
            ("drift", self.drift, 0.0, 1e6),
            ("kl-live", self.kl_live, 0.0, 1e6),
            ("kl-base", self.kl_base, 0.0, 1e6),
            ("longer", self.longer, 1.0, 1e6),
            ("shorter", self.shorter, 0.0, 1.0),
            ("cut-off", self.cut_off, 0.0, 1.0),
            ("entropy", self.entropy, 0.0, 1e6),
            ("repetition", self.repetition, 0.0, 1.0),
            ("errors", self.errors, 0.0, 1.0),
            ("off-topic", self.off_topic, 0.0, 1.0),
            ("score", self.score, 0.0, 1.0),
            ("tolerance", self.tolerance, 0.0, 1.0),
            ("alpha", self.alpha, 1e-9, 0.5),
        ];
        match ranges
            .into_iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value))
        {
            Some((key, value, ..)) => Err(wrong(key, value, "it is out of its range")),
            None => Ok(()),
        }
    }
}

/// `[loops.gate.tenants.<name>]`: what a tenant asks of a version on top.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TenantGate {
    /// Its own probes.
    pub probes: Vec<Probe>,
    /// Its own limits, by name; the others are the host's.
    pub limits: BTreeMap<String, f64>,
}

/// `[loops.gate]`
///
/// The adapter is one for all tenants of the host. So a version passes when it passes the host's gate *and* every tenant's:
/// a tenant's limits can make it stricter for all, never laxer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GateConfig {
    /// Whether versions are examined at all.
    pub enabled: bool,
    /// The canary set.
    pub probes: Vec<Probe>,
    /// Most tokens of a probe's reply: long enough to be wrong, and the examination's cost grows with them.
    pub reply_tokens: u32,
    /// How probe replies are drawn. 0 is greedy; the KL of drawn tokens is only a KL above 0.
    pub temperature: f32,
    /// The draws are derived from it, from the adapter and from the version.
    pub seed: Seed,
    /// How far a version may go.
    pub limits: Limits,
    /// KL, nats a reply, within which versions say nearly the same. When one is held for what its replies are like, the versions before
    /// it that are as near are taken back with it, and an older one answers again. 0 leaves what is live alone.
    pub retreat: f64,
    /// What single tenants ask on top.
    pub tenants: BTreeMap<String, TenantGate>,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            probes: canaries(),
            reply_tokens: 24,
            // Below 1, so that a small model's tasks are not lost to chance.
            temperature: 0.7,
            seed: Seed::new(0),
            limits: Limits::default(),
            // A reply that is seven times likelier (e^2) from one than from the other tells them apart.
            retreat: 2.0,
            tenants: BTreeMap::new(),
        }
    }
}

/// Everyday questions that any chat model answers, whatever manner it has learned: short prompts, one known word each.
fn canaries() -> Vec<Probe> {
    vec![
        Probe::new("What is the capital of France?", &["Paris"]),
        Probe::new("How many days are in a week?", &["7", "seven"]),
        Probe::new("Which animal says meow?", &["cat", "cats", "kitten"]),
        Probe::new("What do bees make?", &["honey"]),
        Probe::new("What is 2 + 3?", &["5", "five"]),
        Probe::new("Is ice cold or hot?", &["cold"]),
        Probe::new("Which star warms the Earth?", &["sun"]),
        Probe::new(
            "Please say hello to Anna.",
            &["hello", "hi", "anna", "hey", "greetings"],
        ),
    ]
}

impl GateConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        if !(1..=4096).contains(&self.reply_tokens) {
            return Err(wrong(
                "reply-tokens",
                self.reply_tokens,
                "1 to 4096 are allowed",
            ));
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            return Err(wrong("temperature", self.temperature, "0 to 2 is allowed"));
        }
        if !(0.0..=1e6).contains(&self.retreat) {
            return Err(wrong("retreat", self.retreat, "0 to 1000000 is allowed"));
        }
        if self.enabled && self.probes.is_empty() {
            return Err(wrong("probes", "[]", "a gate asks at least one"));
        }
        self.limits.validate()?;
        for tenant in self.tenants.values() {
            self.merged(tenant)?.validate()?;
        }
        let all = self.all_probes();
        let mut seen = BTreeSet::new();
        for probe in &all {
            if probe.prompt.trim().is_empty() {
                return Err(wrong("probes", "\"\"", "a probe asks something"));
            }
            if !seen.insert(&probe.prompt) {
                return Err(wrong("probes", &probe.prompt, "each prompt is asked once"));
            }
        }
        Ok(())
    }

    /// The host's probes, then each tenant's, in a fixed order.
    pub(super) fn all_probes(&self) -> Vec<&Probe> {
        let tenants = self.tenants.values().flat_map(|tenant| &tenant.probes);
        self.probes.iter().chain(tenants).collect()
    }

    /// The host's limits with a tenant's in their place.
    pub(super) fn merged(&self, tenant: &TenantGate) -> Result<Limits> {
        let mut limits = self.limits.clone();
        for (name, value) in &tenant.limits {
            match limits.named(name) {
                Some(limit) => *limit = *value,
                None => return Err(wrong("limits", name, "there is no such limit")),
            }
        }
        Ok(limits)
    }
}

fn wrong(key: &'static str, value: impl ToString, allowed: &'static str) -> Error {
    Error::Config {
        key,
        value: value.to_string(),
        allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_done_by_whole_words_whatever_their_case() {
        let probe = Probe {
            forbid: vec!["no idea".into()],
            max_words: Some(6),
            ..Probe::new("How many days are in a week?", &["7", "Seven"])
        };
        for (reply, done) in [
            ("There are SEVEN days.", true),
            ("7", true),
            ("17", false),
            ("seventeen", false),
            ("7, I have no idea", false),
            ("7 days, as far as I can tell", false),
            ("", false),
        ] {
            assert_eq!(probe.check(reply), Some(done), "{reply}");
        }
        assert_eq!(Probe::new("Hello", &[]).check("anything"), None);
    }

    #[test]
    fn a_wrong_setting_is_refused_by_name() {
        GateConfig::default().validate().unwrap();
        let tenant = |name: &str, value| GateConfig {
            tenants: BTreeMap::from([(
                "acme".to_owned(),
                TenantGate {
                    limits: BTreeMap::from([(name.to_owned(), value)]),
                    ..TenantGate::default()
                },
            )]),
            ..GateConfig::default()
        };
        tenant("kl-base", 1.0).validate().unwrap();
        let merged = tenant("kl-base", 1.0);
        assert_eq!(merged.merged(&merged.tenants["acme"]).unwrap().kl_base, 1.0);
        let twice = [canaries(), canaries()].concat();
        for (config, key) in [
            (tenant("kl-bass", 1.0), "limits"),
            (tenant("alpha", 2.0), "alpha"),
            (tenant("drift", f64::NAN), "drift"),
            (
                GateConfig {
                    reply_tokens: 0,
                    ..GateConfig::default()
                },
                "reply-tokens",
            ),
            (
                GateConfig {
                    temperature: -1.0,
                    ..GateConfig::default()
                },
                "temperature",
            ),
            (
                GateConfig {
                    probes: twice,
                    ..GateConfig::default()
                },
                "probes",
            ),
            (
                GateConfig {
                    probes: vec![],
                    ..GateConfig::default()
                },
                "probes",
            ),
        ] {
            let Err(Error::Config { key: found, .. }) = config.validate() else {
                panic!("{key} was accepted");
            };
            assert_eq!(found, key);
        }
    }
}
