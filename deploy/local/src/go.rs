//! Builds programs from the Go modules of this crate with the `go` command, and shows the progress.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, guarded, spawn};

/// A folder with a go.mod, a go.sum and imports, and the packages to build from it.
#[derive(Debug)]
pub(crate) struct GoModule {
    pub(crate) dir: PathBuf,
    /// The import paths of the main packages.
    pub(crate) packages: &'static [&'static str],
    /// Flags for the linker, which mostly set versions.
    pub(crate) ldflags: String,
}

impl GoModule {
    /// Returns the version of `module` that go.mod requires.
    pub(crate) fn required_version(dir: &Path, module: &str) -> Result<String> {
        let go_mod = read(&dir.join("go.mod"))?;
        let version = directive(&go_mod, module);
        version.with_context(|| format!("{} does not require {module}", dir.join("go.mod").display()))
    }

    /// Returns everything that a build's result depends on.
    pub(crate) fn inputs(&self) -> Result<Vec<String>> {
        let mut inputs = vec![read(&self.dir.join("go.mod"))?, read(&self.dir.join("go.sum"))?, self.ldflags.clone()];
        inputs.extend(self.packages.iter().map(|package| (*package).to_owned()));
        // The source of our own programs, which are one file each.
        let own = self.packages.iter().filter(|package| package.starts_with("./"));
        let own: Result<Vec<String>> = own.map(|package| read(&self.dir.join(package).join("main.go"))).collect();
        inputs.extend(own?);
        inputs.push(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
        Ok(inputs)
    }

    /// Builds the packages into `target`, an empty folder. Shows the progress on stderr as `title`.
    pub(crate) fn build(&self, title: &str, target: &Path) -> Result<()> {
        self.check_go()?;
        let mut command = guarded(Path::new("go"));
        command.current_dir(&self.dir).env("CGO_ENABLED", "0").env("GOWORK", "off");
        // Go writes gigabytes of temporary files. After a build was killed, the next build removes them from here.
        command.env("GOTMPDIR", target);
        command.args(["build", "-v", "-trimpath", "-ldflags", &self.ldflags, "-o"]).arg(target).args(self.packages);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(command).context("cannot start go")?;
        let stderr = child.stderr.take().context("go has no stderr")?;
        let output = collect(stderr);
        let mut progress = Progress::new(title);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            progress.show(&output);
            thread::sleep(Duration::from_millis(200));
        };
        progress.end();
        if !status.success() {
            let output = output.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("building {title} failed ({status}):\n{}", output.last_lines());
        }
        Ok(())
    }

    /// Checks that Go is installed and new enough. Fresh machines often lack it, so the error says how to get it.
    fn check_go(&self) -> Result<()> {
        let required = directive(&read(&self.dir.join("go.mod"))?, "go").unwrap_or_default();
        let hint = format!(
            "building the local control plane needs Go {required} or later; install it from https://go.dev/dl/"
        );
        // In the module's folder, a Go with GOTOOLCHAIN=auto downloads a newer toolchain and prints that version.
        let mut go = Command::new("go");
        let version = process::output(go.current_dir(&self.dir).env("GOWORK", "off").args(["env", "GOVERSION"]));
        let version = version.with_context(|| hint.clone())?;
        if is_older(version.trim().trim_start_matches("go"), &required) {
            bail!("{hint} (found {})", version.trim());
        }
        Ok(())
    }
}

/// Returns the word after `name` on the line that begins with `name` or `require name`.
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

/// The output of `go build -v` so far: the name of each package that it began, and errors.
#[derive(Debug, Default)]
struct BuildOutput {
    packages: usize,
    lines: Vec<String>,
}

impl BuildOutput {
    fn last_lines(&self) -> String {
        self.lines[self.lines.len().saturating_sub(20)..].join("\n")
    }
}

fn collect(stderr: ChildStderr) -> Arc<Mutex<BuildOutput>> {
    let output = Arc::new(Mutex::new(BuildOutput::default()));
    let shared = Arc::clone(&output);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut output = shared.lock().unwrap_or_else(PoisonError::into_inner);
            output.packages += usize::from(!line.contains(' '));
            output.lines.push(line);
        }
    });
    output
}

/// Shows a build's progress: in a terminal one line that it rewrites, elsewhere one line every ten seconds.
struct Progress {
    title: String,
    start: Instant,
    next: Instant,
    terminal: bool,
}

impl Progress {
    fn new(title: &str) -> Self {
        eprintln!("building {title} from source; this takes some minutes, but only once");
        let start = Instant::now();
        Self { title: title.to_owned(), start, next: start, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, output: &Mutex<BuildOutput>) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + if self.terminal { Duration::from_secs(1) } else { Duration::from_secs(10) };
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let current = output.lines.last().map_or("starting", String::as_str);
        let line =
            format!("  {} {}, {} packages, {current:.60}", self.title, minutes(self.start.elapsed()), output.packages);
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
    fn directive_returns_versions_that_go_mod_requires() {
        let go_mod =
            "module x\n\ngo 1.24.0\n\nrequire (\n\tk8s.io/kubernetes v1.34.4\n\tk8s.io/api v0.34.4 // indirect\n)\n";
        assert_eq!(directive(go_mod, "go").as_deref(), Some("1.24.0"));
        assert_eq!(directive(go_mod, "k8s.io/kubernetes").as_deref(), Some("v1.34.4"));
        assert_eq!(directive(go_mod, "k8s.io/kubelet"), None);
        assert_eq!(directive("require helm.sh/helm/v4 v4.3.1", "helm.sh/helm/v4").as_deref(), Some("v4.3.1"));
    }

    #[test]
    fn go_versions_compare_by_number() {
        assert!(is_older("1.9.7", "1.24.0"));
        assert!(is_older("1.26rc1", "1.26.1"));
        assert!(!is_older("1.26.8", "1.26.0"));
        assert!(!is_older("1.27", "1.26.0"));
    }
}
