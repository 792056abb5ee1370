//! Child processes that do not outlive us, and what they logged.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at while waiting for it.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A command that is killed when this process dies, however that happens.
///
/// Linux sends a "parent death signal" for that. `setpriv` asks for it in the child, just before it becomes the program,
/// so that the pid is the program's own. Where `setpriv` is missing, a child of a parent that was killed with SIGKILL lives on
/// until the next start on the same state folder, which ends it (see `state.rs`).
pub fn guarded(program: &Path) -> Command {
    if !can_guard() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Some systems (busybox) have a `setpriv` that does not know this option: it is tried, once.
fn can_guard() -> bool {
    static CAN_GUARD: OnceLock<bool> = OnceLock::new();
    *CAN_GUARD.get_or_init(|| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// Spawns `command` from one thread that lives as long as this process.
///
/// The parent death signal is bound to the *thread* that spawned, not to its process: a child started by a test's own thread
/// would be killed when that test ends.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // Nobody waits for the reply any more only when the caller's thread is gone.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    spawner.send((command, reply)).map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    answer.recv().map_err(gone)?
}

/// A long-running child with a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Length of the log when this process started: what is older is an earlier start's.
    log_start: u64,
}

impl Process {
    /// Starts `command` in a process group of its own, so that a Ctrl-C in the terminal reaches us alone and we decide the
    /// order in which things stop. Its stderr is appended to `log`, and its stdout too unless `stdout` names another file.
    pub fn start(name: &str, mut command: Command, log: &Path, stdout: Option<&Path>) -> Result<Self> {
        let append = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("cannot open {}", path.display()))
        };
        let errors = append(log)?;
        let log_start = errors.metadata()?.len();
        let output = match stdout {
            Some(path) => append(path)?,
            None => errors.try_clone()?,
        };
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), log_start })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of the log when the process is no longer there.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.died(status)),
        }
    }

    fn died(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!(
            "{} stopped by itself ({status}); the end of {}:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log, self.log_start, 25)
        )
    }

    /// Whether this start found its port taken by somebody else.
    pub(crate) fn found_port_taken(&self) -> bool {
        read_from(&self.log, self.log_start).contains("address already in use")
    }

    /// SIGTERM, then SIGKILL after `grace`. Returns when the process is gone and reaped.
    pub fn stop(&mut self, grace: Duration) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        signal(self.child.id(), Signal::TERM)?;
        let deadline = Instant::now() + grace;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                return self.kill();
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// SIGKILL; returns when the process is gone and reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    /// A last resort for a start that failed halfway; whoever stops in order has reaped before.
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {}", pid.as_raw_nonzero()))
}

/// Runs a short command to its end and returns what it printed; an error carries what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read_from(path: &Path, start: u64) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let start = usize::try_from(start).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

fn tail(path: &Path, start: u64, lines: usize) -> String {
    let text = read_from(path, start);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_dies_is_reported_with_the_end_of_its_own_log() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("log");
        fs::write(&log, "of an earlier start\n")?;
        let mut command = guarded(Path::new("sh"));
        command.args(["-c", "echo bind: address already in use >&2; exit 3"]);
        let mut process = Process::start("sh", command, &log, None)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = loop {
            if let Err(error) = process.ensure_alive() {
                break error.to_string();
            }
            assert!(Instant::now() < deadline, "sh did not end");
            thread::sleep(POLL);
        };
        assert!(error.contains("exit status: 3") && error.contains("already in use"), "{error}");
        assert!(!error.contains("earlier start"), "{error}");
        assert!(process.found_port_taken());
        Ok(())
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed_after_its_grace() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("log");
        let mut command = guarded(Path::new("sh"));
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
        let mut process = Process::start("sh", command, &log, None)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !read_from(&log, 0).contains("ready") {
            assert!(Instant::now() < deadline, "sh did not start");
            thread::sleep(POLL);
        }
        process.stop(Duration::from_millis(100))?;
        assert!(process.ensure_alive().is_err());
        Ok(())
    }

    #[test]
    fn a_failing_command_says_what_it_complained_about() {
        let error = output(Command::new("sh").args(["-c", "echo too old >&2; exit 1"]));
        assert!(error.is_err_and(|error| error.to_string().contains("too old")));
    }
}
