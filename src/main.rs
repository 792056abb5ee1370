//! The `daypass` command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use daypass::cli::{Cli, Command, RolesCommand, lint, pages, selftest, token};
use daypass::{api, crd, serve};
use secrecy::ExposeSecret as _;

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("daypass: {error:#}");
        // Not 1, which `roles lint` returns for a role that is not contained.
        ExitCode::from(2)
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(*args)?,
        Command::Crds { name } => print(&crds(name.as_deref())?)?,
        Command::Openapi => print(&format!("{}\n", api::document(None).to_pretty_json()?))?,
        Command::Errors => print(&api::errors_page())?,
        Command::Completions { shell } => std::io::stdout().write_all(&pages::completions(shell))?,
        Command::Man { folder } => pages::man(&folder)?,
        Command::Token(command) => {
            let output = token::run(&command)?;
            print(output.result.expose_secret())?;
            std::io::stderr().write_all(output.remark.as_bytes())?;
        }
        Command::Roles(RolesCommand::Lint { files }) => {
            let report = lint::lint(&files)?;
            print(&report.table)?;
            return Ok(if report.all_contained { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Selftest(args) => selftest::run(&args, |line| print(&format!("{line}\n")))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn crds(name: Option<&str>) -> anyhow::Result<String> {
    let mut documents = crd::yaml()?;
    documents.retain(|(plural, _)| name.is_none_or(|name| name == plural));
    let texts: Vec<String> = documents.into_iter().map(|(_, text)| text).collect();
    anyhow::ensure!(!texts.is_empty(), "no type has this plural name");
    Ok(texts.join("---\n"))
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
