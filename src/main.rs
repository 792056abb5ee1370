//! The `daypass` command.

use std::process::ExitCode;

use clap::Parser as _;
use daypass::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("daypass: {error:#}");
            // 1 is an answer of `roles lint`.
            ExitCode::from(2)
        }
    }
}
