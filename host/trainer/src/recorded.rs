//! Settings as a version's lineage keeps them: to JSON, and back for a replay.
//!
//! Nothing is filled in on the way back: a key that is missing would silently take today's default, and the replayed step
//! would be another one. Recipes are read elsewhere, with defaults; see [`Config`].

use serde_json::{Map, Value};

use crate::{Config, Error, Result};

/// JSON has no infinity; it is recorded by this text, in the settings that may be infinite.
const INFINITY: &str = "inf";

impl Config {
    /// [`Config::resolved`] as JSON: every setting that a step's result depends on, kept in the version's lineage.
    pub fn to_json(&self) -> Value {
        let resolved = self.resolved();
        let mut json = serde_json::to_value(&resolved).unwrap_or(Value::Null);
        for (key, value) in [
            ("grad-clip", Some(resolved.grad_clip)),
            ("max-ratio", Some(resolved.max_ratio)),
            ("clip-high", resolved.clip_high),
            ("tis-cap", resolved.tis_cap),
        ] {
            if value == Some(f32::INFINITY) {
                json[key] = INFINITY.into();
            }
        }
        json
    }

    /// The settings that [`Config::to_json`] recorded, bit for bit. A `grad-clip` or `max-ratio` of null is infinite, as
    /// lineages from before `"inf"` have it.
    ///
    /// # Errors
    /// [`Error::Recorded`] for what is not an object, a key that is unknown or missing, or a value of another type;
    /// [`Error::Setting`] for one that is out of range.
    pub fn from_json(json: &Value) -> Result<Self> {
        let refused = |why: String| Err(Error::Recorded { why });
        let Value::Object(recorded) = json else {
            return refused(format!("they are not an object but {json}"));
        };
        let known = match serde_json::to_value(Self::default()) {
            Ok(Value::Object(known)) => known,
            _ => Map::new(),
        };
        if let Some(key) = recorded.keys().find(|key| !known.contains_key(*key)) {
            return refused(format!("`{key}` is not a setting of this trainer"));
        }
        if let Some(key) = known.keys().find(|key| !recorded.contains_key(*key)) {
            return refused(format!("`{key}` is missing, and a replay may not guess it"));
        }
        let mut finite = recorded.clone();
        let mut infinite = |key: &str, null_too: bool| {
            let value = recorded.get(key);
            let found = value.and_then(Value::as_str) == Some(INFINITY)
                || (null_too && value.is_some_and(Value::is_null));
            if found {
                finite.remove(key);
            }
            found
        };
        let (clip, ratio) = (infinite("grad-clip", true), infinite("max-ratio", true));
        let (high, cap) = (infinite("clip-high", false), infinite("tis-cap", false));
        let mut config: Self = match serde_json::from_value(Value::Object(finite)) {
            Ok(config) => config,
            Err(error) => return refused(error.to_string()),
        };
        if clip {
            config.grad_clip = f32::INFINITY;
        }
        if ratio {
            config.max_ratio = f32::INFINITY;
        }
        if high {
            config.clip_high = Some(f32::INFINITY);
        }
        if cap {
            config.tis_cap = Some(f32::INFINITY);
        }
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rl::PolicyLoss;
    use serde_json::json;

    use super::*;

    /// As the ledger has it: through text.
    fn through_text(config: &Config) -> Result<Config> {
        let text = config.to_json().to_string();
        Config::from_json(&serde_json::from_str(&text).unwrap())
    }

    proptest! {
        #[test]
        fn what_was_recorded_comes_back_bit_for_bit(
            lr in 0f32..1.0, beta in 0f32..0.999_9, eps in 1e-12f32..1e-2, decay in 0f32..1.0, kl in 0f32..1.0,
            clip in prop_oneof![Just(f32::INFINITY), 1e-3f32..10.0], high in prop_oneof![Just(f32::INFINITY), 0f32..4.0],
            cap in prop_oneof![Just(None), Just(Some(f32::INFINITY)), (0f32..9.0).prop_map(Some)],
            ratio in prop_oneof![Just(f32::INFINITY), 1.5f32..1e6], passes in 1u32..9, rank in 1usize..64,
        ) {
            for policy_loss in [PolicyLoss::Ppo, PolicyLoss::Gspo, PolicyLoss::Cispo, PolicyLoss::ImportanceSampling] {
                let reads = policy_loss != PolicyLoss::ImportanceSampling;
                let config = Config {
                    lr, betas: [beta, beta * 0.5], eps, weight_decay: decay, grad_clip: clip, passes, policy_loss,
                    clip_low: None, clip_high: reads.then_some(high), tis_cap: cap, kl_beta: kl, max_ratio: ratio,
                    rank, alpha: rank as f32 * 1.7,
                };
                prop_assert_eq!(through_text(&config).unwrap(), config.resolved());
                prop_assert_eq!(through_text(&config).unwrap().to_json(), config.to_json());
            }
        }
    }

    #[test]
    fn what_cannot_be_what_was_recorded_is_refused_by_its_key() {
        type Damage = fn(&mut Map<String, Value>);
        let table: [(&str, Damage); 7] = [
            ("`learning-rate` is not a setting", |m| {
                m.insert("learning-rate".into(), json!(1));
            }),
            ("`lr` is missing", |m| {
                m.remove("lr");
            }),
            ("`tis-cap` is missing", |m| {
                m.remove("tis-cap");
            }),
            ("recorded settings: invalid type", |m| {
                m.insert("rank".into(), json!("inf"));
            }),
            ("recorded settings: invalid type", |m| {
                m.insert("lr".into(), Value::Null);
            }),
            ("recorded settings: unknown variant", |m| {
                m.insert("policy-loss".into(), json!("sft"));
            }),
            ("setting `rank` is 0", |m| {
                m.insert("rank".into(), json!(0));
            }),
        ];
        let Value::Object(good) = Config::default().to_json() else {
            panic!("settings are an object");
        };
        for (says, damage) in table {
            let mut bad = good.clone();
            damage(&mut bad);
            let error = Config::from_json(&Value::Object(bad))
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error} does not say: {says}");
        }
        assert!(Config::from_json(&json!([1])).is_err());
        let mut old = good;
        old.insert("grad-clip".into(), Value::Null);
        let old = Config::from_json(&Value::Object(old)).unwrap();
        assert_eq!(old.grad_clip, f32::INFINITY);
    }
}
