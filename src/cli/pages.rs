//! Shell completions and man pages, generated from the command line's definition.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;

/// A script that completes the program's commands in this shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "daypass", &mut script);
    script
}

/// Writes the man pages of the program and of each command into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn man(folder: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_offer_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = String::from_utf8(completions(shell)).unwrap();
            assert!(script.contains("selftest") && script.contains("expires-in-days"), "{shell}: {script}");
        }
    }
}
