//! `[train]` of a recipe: every setting of a step, its default and the reason for it.
//!
//! Which samples make a batch, and how stale they may be, is the train loop's; how a turn becomes a sample is the
//! algorithm's. A key that is set and that nothing reads is an error.

use rl::PolicyLoss;
use serde::{Deserialize, Serialize};

use crate::loss::Objective;
use crate::{Error, Result};

/// Settings of a step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Step size of AdamW, constant. 1e-4 is usual for LoRA: ten times that of full-parameter training, since only the
    /// low-rank factors move.
    pub lr: f32,
    /// Decay of AdamW's two moments. 0.98 instead of 0.999 for the second: an online learner makes tens of steps, so a
    /// memory of a thousand would be mostly the start.
    pub betas: [f32; 2],
    /// Added to the root of the second moment. 1e-8 is AdamW's own default.
    pub eps: f32,
    /// Decoupled weight decay. 0: the factors start at 0, and decay would pull a learned preference back to the base.
    pub weight_decay: f32,
    /// Largest 2-norm of the gradient; a longer one is scaled down to it. 1 is the field's default; `inf` switches it off.
    pub grad_clip: f32,
    /// Walks of the optimizer over one batch. 1: every further pass is off-policy.
    pub passes: u32,
    /// The surrogate loss; `ppo` by default.
    pub policy_loss: PolicyLoss,
    /// ε: ratios are clipped at `1 − ε`. 0.2, as PPO. Read by `ppo` and `gspo` only.
    pub clip_low: Option<f32>,
    /// ε_high: ratios are clipped at `1 + ε_high`. 0.28, as DAPO: room for unlikely tokens to grow. Not read by
    /// `importance-sampling`. (GSPO's own paper uses 3e-4 and 4e-4 for its two bounds.)
    pub clip_high: Option<f32>,
    /// Cap of the truncated importance weight `min(π_old / μ, cap)`, 2 in its source; none (the default) leaves it out,
    /// since serving and training agree bit for bit here. For samples of an external engine: ratios are then taken to
    /// the weights at the step's start, and this factor corrects for the engine.
    pub tis_cap: Option<f32>,
    /// β of `KL3(π_θ ‖ π_ref)` to the base model. 0 for a personal agent, 0.01 for a general one.
    pub kl_beta: f32,
    /// A step whose largest `π_θ / μ` is above this is refused: samples of another model or another temperature, not
    /// staleness. A token that went from one in ten thousand to certain stays below it.
    pub max_ratio: f32,
    /// Rank of the adapter's factors.
    pub rank: usize,
    /// Scale of the adapter: its output is multiplied by `alpha / rank`.
    pub alpha: f32,
}

/// PPO's clip.
const CLIP_LOW: f32 = 0.2;
/// DAPO's higher upper bound.
const CLIP_HIGH: f32 = 0.28;

impl Default for Config {
    fn default() -> Self {
        Self {
            lr: 1e-4,
            betas: [0.9, 0.98],
            eps: 1e-8,
            weight_decay: 0.0,
            grad_clip: 1.0,
            passes: 1,
            policy_loss: PolicyLoss::Ppo,
            clip_low: None,
            clip_high: None,
            tis_cap: None,
            kl_beta: 0.0,
            max_ratio: 1e4,
            rank: 16,
            alpha: 32.0,
        }
    }
}

impl Config {
    /// Checks every range, and that every key that is set is read.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let finite = [
            ("lr", self.lr, self.lr >= 0.0, "must be at least 0"),
            ("eps", self.eps, self.eps > 0.0, "must be above 0"),
            (
                "weight-decay",
                self.weight_decay,
                self.weight_decay >= 0.0,
                "must be at least 0",
            ),
            (
                "kl-beta",
                self.kl_beta,
                self.kl_beta >= 0.0,
                "must be at least 0",
            ),
            ("alpha", self.alpha, self.alpha > 0.0, "must be above 0"),
        ];
        for (key, value, in_range, rule) in finite {
            if !(value.is_finite() && in_range) {
                return Err(out_of_range(key, value, rule));
            }
        }
        for beta in self.betas {
            if !(0.0..1.0).contains(&beta) {
                return Err(out_of_range(
                    "betas",
                    beta,
                    "must be at least 0 and below 1",
                ));
            }
        }
        if self.grad_clip.is_nan() || self.grad_clip <= 0.0 {
            return Err(out_of_range("grad-clip", self.grad_clip, "must be above 0"));
        }
        if self.max_ratio.is_nan() || self.max_ratio <= 1.0 {
            return Err(out_of_range("max-ratio", self.max_ratio, "must be above 1"));
        }
        for (key, count, most) in [
            ("passes", self.passes as usize, 1000),
            ("rank", self.rank, 4096),
        ] {
            if !(1..=most).contains(&count) {
                return Err(Error::Setting {
                    key,
                    why: format!("is {count}; it must be from 1 to {most}"),
                });
            }
        }
        self.validate_loss()
    }

    fn validate_loss(&self) -> Result<()> {
        if let Some(low) = self.clip_low
            && !(0.0..=1.0).contains(&low)
        {
            return Err(out_of_range("clip-low", low, "must be from 0 to 1"));
        }
        for (key, value) in [("clip-high", self.clip_high), ("tis-cap", self.tis_cap)] {
            if let Some(value) = value
                && (value.is_nan() || value < 0.0)
            {
                return Err(out_of_range(key, value, "must be at least 0"));
            }
        }
        let (reads_low, reads_high) = self.clips_read();
        for (key, set, reads) in [
            ("clip-low", self.clip_low, reads_low),
            ("clip-high", self.clip_high, reads_high),
        ] {
            if set.is_some() && !reads {
                let why = format!(
                    "is set, but policy-loss {:?} does not read it",
                    self.policy_loss
                );
                return Err(Error::Setting { key, why });
            }
        }
        Ok(())
    }

    /// The loss that these settings describe.
    pub fn objective(&self) -> Objective {
        Objective {
            policy_loss: self.policy_loss,
            clip_low: self.clip_low.unwrap_or(CLIP_LOW).into(),
            clip_high: self.clip_high.unwrap_or(CLIP_HIGH).into(),
            tis_cap: self.tis_cap.map(f64::from),
            kl_beta: self.kl_beta.into(),
        }
    }

    /// Whether the surrogate reads the lower bound of the clip, and the upper one.
    fn clips_read(&self) -> (bool, bool) {
        match self.policy_loss {
            PolicyLoss::Ppo | PolicyLoss::Gspo => (true, true),
            PolicyLoss::Cispo => (false, true),
            PolicyLoss::ImportanceSampling => (false, false),
        }
    }

    /// The same settings with every default that is read filled in. They pass [`Config::validate`] again.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let (low, high) = self.clips_read();
        Self {
            clip_low: low.then_some(self.clip_low.unwrap_or(CLIP_LOW)),
            clip_high: high.then_some(self.clip_high.unwrap_or(CLIP_HIGH)),
            ..self.clone()
        }
    }
}

fn out_of_range(key: &'static str, value: f32, rule: &str) -> Error {
    Error::Setting {
        key,
        why: format!("is {value}; it {rule}"),
    }
}

#[cfg(test)]
mod tests {
    use rl::PolicyLoss;

    use super::Config;

    #[test]
    fn a_setting_out_of_range_is_refused_by_its_name() {
        type Change = fn(&mut Config);
        let table: [(&str, Change); 15] = [
            ("lr", |c| c.lr = -1.0),
            ("lr", |c| c.lr = f32::NAN),
            ("eps", |c| c.eps = 0.0),
            ("weight-decay", |c| c.weight_decay = f32::INFINITY),
            ("kl-beta", |c| c.kl_beta = -0.1),
            ("alpha", |c| c.alpha = 0.0),
            ("betas", |c| c.betas = [0.9, 1.0]),
            ("grad-clip", |c| c.grad_clip = 0.0),
            ("max-ratio", |c| c.max_ratio = 1.0),
            ("passes", |c| c.passes = 0),
            ("rank", |c| c.rank = 0),
            ("rank", |c| c.rank = 5000),
            ("clip-low", |c| c.clip_low = Some(1.5)),
            ("clip-high", |c| c.clip_high = Some(-0.1)),
            ("tis-cap", |c| c.tis_cap = Some(f32::NAN)),
        ];
        for (key, change) in table {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{key}`")),
                "{error} does not name {key}"
            );
        }
        assert!(Config::default().validate().is_ok());
        assert!(
            Config {
                grad_clip: f32::INFINITY,
                ..Config::default()
            }
            .validate()
            .is_ok()
        );
    }

    #[test]
    fn a_key_that_is_set_and_unused_is_an_error() {
        let parse = |json: &str| serde_json::from_str::<Config>(json).unwrap().validate();
        for json in [
            r#"{"policy-loss": "importance-sampling", "clip-low": 0.2}"#,
            r#"{"policy-loss": "importance-sampling", "clip-high": 0.2}"#,
            r#"{"policy-loss": "cispo", "clip-low": 0.2}"#,
        ] {
            assert!(
                parse(json)
                    .unwrap_err()
                    .to_string()
                    .contains("does not read it"),
                "{json}"
            );
        }
        assert!(parse(r#"{"policy-loss": "cispo", "clip-high": 0.2}"#).is_ok());
        assert!(serde_json::from_str::<Config>(r#"{"learning-rate": 1}"#).is_err());
    }

    #[test]
    fn resolved_settings_say_every_number_that_is_used_and_no_other() {
        let said = Config::default().to_json();
        assert_eq!(said["clip-low"], serde_json::json!(0.2f32));
        assert_eq!(
            (&said["policy-loss"], &said["rank"]),
            (&"ppo".into(), &16.into())
        );
        let cispo = Config {
            policy_loss: PolicyLoss::Cispo,
            ..Config::default()
        }
        .resolved();
        assert_eq!((cispo.clip_low, cispo.clip_high), (None, Some(0.28)));
        assert!(cispo.validate().is_ok());
    }
}
