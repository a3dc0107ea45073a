//! Where log lines go: standard error, so that standard output stays the command's result.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. Without `-v` only warnings; `-v` adds what an operator wants to see, `-vv` what a developer
/// does. `RUST_LOG` overrides all of it. Calling it twice does nothing.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    // Colours are a terminal's; in a file or a journal they are noise.
    let _already_started = match std::io::stderr().is_terminal() {
        true => lines.try_init(),
        false => lines.with_ansi(false).try_init(),
    };
}
