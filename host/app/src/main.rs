//! `nextstate`: parses the command line and hands over to one command; nothing else happens here.
//!
//! Read next: [`app::cli`] for the commands, [`app::host`] for how a host is wired, `loops` for what it does.

use std::process::ExitCode;

use clap::Parser as _;

/// Records and replies are made in one thread and dropped in another all day long, which the C library's allocator is slow at:
/// recovering a ledger of 10^6 records takes a quarter less time with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = app::cli::Cli::parse();
    // A worker's log is a host's to read, and has its own form.
    if !matches!(cli.command, app::cli::Command::Worker) {
        app::logging::start(cli.verbose);
    }
    match app::cli::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line a cause: what was attempted, on what, why it failed.
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}
