//! The commands, one file each: a clap struct and `run`.

pub mod devices;
pub mod episode;
pub mod feedback;
pub mod generate;
pub mod history;
pub mod judge_eval;
mod lines;
pub mod log;
pub mod opened;
pub mod place;
pub mod remote;
pub mod score;
pub mod serve;
pub mod status;
pub mod train;
pub mod transfer;
pub mod verify;
