//! The trait of a reward plugin, and its bridge to the generated bindings.

use std::marker::PhantomData;

use crate::{
    Decision, Fault, TokenStreams, Trajectory, TurnReward, Vote,
    bindings::reward::exports::nextstate::plugin::reward as exports, log,
};

/// A reward scheme. See `wit/reward.wit` for what each function promises.
pub trait Reward: 'static {
    /// Settles one turn; none is *no verdict*.
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault>;

    /// Rewards and weights, one a turn.
    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault>;

    /// Advantages of a group. By default the reward itself.
    fn advantages(rewards: Vec<Vec<Option<f64>>>) -> Result<Vec<Vec<Option<f64>>>, Fault> {
        Ok(rewards)
    }

    /// The advantage of every token. By default the recipe's method decides. Called only with `token-level = true` in the manifest.
    fn token_advantages(streams: TokenStreams) -> Result<Option<Vec<f64>>, Fault> {
        drop(streams);
        Ok(None)
    }
}

/// The bridge from the generated bindings to [`Reward`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Adapter<R>(PhantomData<R>);

impl<R: Reward> exports::Guest for Adapter<R> {
    fn verdict(votes: Vec<Option<Vote>>) -> Result<Option<Decision>, Fault> {
        log::install_panic_hook();
        R::verdict(votes)
    }

    fn turn_rewards(trajectory: Trajectory) -> Result<Vec<TurnReward>, Fault> {
        log::install_panic_hook();
        R::turn_rewards(trajectory)
    }

    fn advantages(rewards: Vec<Vec<Option<f64>>>) -> Result<Vec<Vec<Option<f64>>>, Fault> {
        log::install_panic_hook();
        R::advantages(rewards)
    }

    fn token_advantages(streams: TokenStreams) -> Result<Option<Vec<f64>>, Fault> {
        log::install_panic_hook();
        R::token_advantages(streams)
    }
}

/// Exports a type that implements [`Reward`] as this component's `reward`.
#[macro_export]
macro_rules! export_reward {
    ($plugin:ty) => {
        // The expansion holds `unsafe` functions with WebAssembly export names; natively there is nothing to export to.
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::RewardAdapter<$plugin>;
            $crate::bindings::reward::export_world!(Exported with_types_in $crate::bindings::reward);
        };
    };
}
