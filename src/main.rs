//! The `daypass` command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use daypass::cli::{Cli, Command, RolesCommand};
use daypass::{api, crd, lint, runtime};

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("daypass: {error:#}");
        // 1 is an answer of `roles lint`.
        ExitCode::from(2)
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => runtime::serve(*args)?,
        Command::Crds => print(&crd::yaml()?)?,
        Command::Openapi => print(&format!("{}\n", api::document(None).to_pretty_json()?))?,
        Command::Roles(RolesCommand::Lint { files }) => {
            let report = lint::lint(&files)?;
            print(&report.table)?;
            return Ok(if report.all_contained { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
