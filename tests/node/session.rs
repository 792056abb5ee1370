//! An operator's terminal in the sandbox, and its transcript.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that a command may wait for the cluster.
const DEADLINE: Duration = Duration::from_secs(300);
/// Begins the line with a command's exit status. No other line begins so.
const MARK: &str = "\u{1}ended ";

/// One bash, so that variables and functions survive between commands.
pub struct Session {
    shell: Child,
    lines: Receiver<String>,
    transcript: String,
    in_block: bool,
    /// Secrets and what the transcript shows instead.
    hidden: Vec<(String, String)>,
}

impl Session {
    /// `bash` is a command that runs a bash with its environment, in `folder`.
    pub fn start(mut bash: Command, folder: &Path) -> Self {
        let mut shell =
            bash.args(["--norc", "--noprofile"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(shell.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        let mut session = Self { shell, lines, transcript: String::new(), in_block: false, hidden: Vec::new() };
        session.quiet(&format!("exec 2>&1; set -o pipefail; umask 077; cd '{}'", folder.display()));
        session
    }

    /// Types a command that must succeed, and shows it with its output.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> String {
        self.shown(command, true)
    }

    /// Types a command that must fail, and shows it with its output.
    #[track_caller]
    pub fn refused(&mut self, command: &str) -> String {
        self.shown(command, false)
    }

    /// Types a command that must succeed, without showing it.
    #[track_caller]
    pub fn quiet(&mut self, command: &str) -> String {
        let (output, success) = self.attempt(command);
        assert!(success, "{command}\n{output}");
        output
    }

    /// A command's output, and whether it succeeded.
    pub fn attempt(&mut self, command: &str) -> (String, bool) {
        let stdin = self.shell.stdin.as_mut().unwrap();
        // Its input must not be the terminal's, which holds the next command. The mark is always on its own line.
        writeln!(stdin, "{{ {command}\n}} < /dev/null; printf '\\n{MARK}%s\\n' $?").unwrap();
        let deadline = Instant::now() + DEADLINE;
        let mut output = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no end: {command}\n{output}"));
            if let Some(code) = line.strip_prefix(MARK) {
                return (output.trim_end_matches('\n').to_owned(), code == "0");
            }
            output.push_str(&line);
            output.push('\n');
        }
    }

    /// Repeats a command until it succeeds, without showing it. Returns its output.
    #[track_caller]
    pub fn eventually(&mut self, what: &str, command: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (output, success) = self.attempt(command);
            if success {
                return output;
            }
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}\n{output}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Adds text between the commands.
    pub fn say(&mut self, text: &str) {
        self.close();
        self.append(&format!("\n{text}\n"));
    }

    /// Shows `instead` where `secret` would be.
    pub fn hide(&mut self, secret: &str, instead: &str) {
        assert!(secret.len() > 8, "too short to be a secret: {instead}");
        self.hidden.push((secret.to_owned(), instead.to_owned()));
    }

    /// The transcript, in Markdown.
    pub fn finish(mut self) -> String {
        self.close();
        std::mem::take(&mut self.transcript)
    }

    #[track_caller]
    fn shown(&mut self, command: &str, succeeds: bool) -> String {
        let (output, success) = self.attempt(command);
        self.show(command, &output);
        assert_eq!(success, succeeds, "{command}\n{output}");
        output
    }

    /// Shows a command and its output once it is known what to hide.
    pub fn show(&mut self, command: &str, output: &str) {
        if !self.in_block {
            self.append("```console\n");
            self.in_block = true;
        }
        let typed = command.replace('\n', "\n> ");
        let output = if output.is_empty() { String::new() } else { format!("{output}\n") };
        self.append(&format!("$ {typed}\n{output}"));
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.in_block) {
            self.append("```\n");
        }
    }

    fn append(&mut self, text: &str) {
        let hidden = self.hidden.iter().fold(text.to_owned(), |text, (secret, instead)| text.replace(secret, instead));
        print!("{hidden}");
        self.transcript.push_str(&hidden);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
