//! The `daypass` command.

use std::process::ExitCode;

use clap::Parser as _;
use daypass::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("daypass: {error:#}");
            ExitCode::FAILURE
        }
    }
}
