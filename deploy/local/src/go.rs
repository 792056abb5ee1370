//! Builds programs from a Go module of ours, with the ordinary `go` client, and shows how far it is.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{guarded, output, spawn};

/// A folder with a go.mod, a go.sum and the imports, and what to build of it.
#[derive(Debug)]
pub(crate) struct GoModule {
    pub(crate) dir: PathBuf,
    /// Import paths of the main packages.
    pub(crate) packages: &'static [&'static str],
    /// Flags of the linker: versions, mostly.
    pub(crate) ldflags: String,
}

impl GoModule {
    /// The version of `module` that the go.mod requires.
    pub(crate) fn required_version(dir: &Path, module: &str) -> Result<String> {
        let go_mod = read(&dir.join("go.mod"))?;
        let version = directive(&go_mod, module);
        version.with_context(|| format!("{} does not require {module}", dir.join("go.mod").display()))
    }

    /// Everything that decides what comes out of a build.
    pub(crate) fn inputs(&self) -> Result<Vec<String>> {
        let mut inputs = vec![read(&self.dir.join("go.mod"))?, read(&self.dir.join("go.sum"))?, self.ldflags.clone()];
        inputs.extend(self.packages.iter().map(|package| (*package).to_owned()));
        // The programs that are written here are one file each.
        let own = self.packages.iter().filter(|package| package.starts_with("./"));
        let own: Result<Vec<String>> = own.map(|package| read(&self.dir.join(package).join("main.go"))).collect();
        inputs.extend(own?);
        inputs.push(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
        Ok(inputs)
    }

    /// Builds into `target`, an empty folder, showing progress under `title` on stderr.
    pub(crate) fn build(&self, title: &str, target: &Path) -> Result<()> {
        self.check_go()?;
        let mut command = guarded(Path::new("go"));
        command.current_dir(&self.dir).env("CGO_ENABLED", "0").env("GOWORK", "off");
        // Go's own temporary files, gigabytes of them, go where a build that was killed is cleaned up by the next one.
        command.env("GOTMPDIR", target);
        command.args(["build", "-v", "-trimpath", "-ldflags", &self.ldflags, "-o"]).arg(target).args(self.packages);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(command).context("cannot start go")?;
        let stderr = child.stderr.take().context("go has no stderr")?;
        let said = follow(stderr);
        let mut progress = Progress::new(title);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            progress.show(&said);
            thread::sleep(Duration::from_millis(200));
        };
        progress.end();
        if !status.success() {
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("building {title} failed ({status}):\n{}", said.last_lines());
        }
        Ok(())
    }

    /// A missing or too old Go is the one thing that a fresh machine lacks, so it is said clearly.
    fn check_go(&self) -> Result<()> {
        let required = directive(&read(&self.dir.join("go.mod"))?, "go").unwrap_or_default();
        let hint = format!(
            "Go {required} or newer is needed to build the local control plane; install it from https://go.dev/dl/"
        );
        // In the module's folder, a Go that may fetch a newer toolchain (GOTOOLCHAIN=auto) does so and answers with its version.
        let mut go = Command::new("go");
        let version = output(go.current_dir(&self.dir).env("GOWORK", "off").args(["env", "GOVERSION"]));
        let version = version.with_context(|| hint.clone())?;
        if is_older(version.trim().trim_start_matches("go"), &required) {
            bail!("{hint} (this is {})", version.trim());
        }
        Ok(())
    }
}

/// The word after `name` on the line that begins with it, or with `require` and it.
fn directive(go_mod: &str, name: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(name)).then(|| words.next().map(str::to_owned)).flatten()
    })
}

fn is_older(version: &str, than: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
        version.split('.').map(|part| digits(part).parse().unwrap_or(0)).collect()
    };
    numbers(version) < numbers(than)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What `go build -v` has said so far: the name of each package it begins, and complaints.
#[derive(Debug, Default)]
struct Said {
    packages: usize,
    lines: Vec<String>,
}

impl Said {
    fn last_lines(&self) -> String {
        self.lines[self.lines.len().saturating_sub(20)..].join("\n")
    }
}

fn follow(stderr: ChildStderr) -> Arc<Mutex<Said>> {
    let said = Arc::new(Mutex::new(Said::default()));
    let shared = Arc::clone(&said);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut said = shared.lock().unwrap_or_else(PoisonError::into_inner);
            said.packages += usize::from(!line.contains(' '));
            said.lines.push(line);
        }
    });
    said
}

/// One line that is rewritten in a terminal, a line every ten seconds elsewhere.
struct Progress {
    title: String,
    start: Instant,
    next: Instant,
    terminal: bool,
}

impl Progress {
    fn new(title: &str) -> Self {
        eprintln!("building {title} from source, once; this takes some minutes");
        let start = Instant::now();
        Self { title: title.to_owned(), start, next: start, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, said: &Mutex<Said>) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + if self.terminal { Duration::from_secs(1) } else { Duration::from_secs(10) };
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let current = said.lines.last().map_or("starting", String::as_str);
        let line =
            format!("  {} {}, {} packages, {current:.60}", self.title, minutes(self.start.elapsed()), said.packages);
        if self.terminal { eprint!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
    }

    fn end(&self) {
        let line = format!("built {} in {}", self.title, minutes(self.start.elapsed()));
        if self.terminal { eprintln!("\r\x1b[2K{line}") } else { eprintln!("{line}") }
    }
}

fn minutes(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_go_mod_requires() {
        let go_mod =
            "module x\n\ngo 1.24.0\n\nrequire (\n\tk8s.io/kubernetes v1.34.4\n\tk8s.io/api v0.34.4 // indirect\n)\n";
        assert_eq!(directive(go_mod, "go").as_deref(), Some("1.24.0"));
        assert_eq!(directive(go_mod, "k8s.io/kubernetes").as_deref(), Some("v1.34.4"));
        assert_eq!(directive(go_mod, "k8s.io/kubelet"), None);
        assert_eq!(directive("require helm.sh/helm/v4 v4.3.1", "helm.sh/helm/v4").as_deref(), Some("v4.3.1"));
    }

    #[test]
    fn compares_versions_of_go_by_number() {
        assert!(is_older("1.9.7", "1.24.0"));
        assert!(is_older("1.26rc1", "1.26.1"));
        assert!(!is_older("1.26.8", "1.26.0"));
        assert!(!is_older("1.27", "1.26.0"));
    }
}
