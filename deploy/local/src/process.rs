//! Child processes that die with this process, and their logs.

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

/// The interval for polling a condition.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// The same with kubectl, which takes CPU time away from what it waits for.
pub(crate) const KUBECTL_POLL: Duration = Duration::from_millis(250);

/// A command that the kernel kills when this process dies, for any reason.
///
/// It uses Linux's parent death signal. `setpriv` requests the signal in the child and then executes the program, so
/// the process id is the program's own. Without `setpriv`, a child survives the SIGKILL of its parent until the next
/// start on the same state folder kills it (see `state.rs`).
pub fn guarded(program: &Path) -> Command {
    if !can_guard() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Tries `setpriv` once. Busybox has one without this option.
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
/// The kernel sends the parent death signal when the spawning *thread* ends, not its process. A child that a test's
/// own thread spawned would die at the end of that test.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // Sending fails only when the caller's thread has ended. Nobody needs the reply then.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// A long-running child with a log file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// The log's length when this process started. Everything before is from earlier starts.
    log_start: u64,
}

impl Process {
    /// Starts `command` and appends its stderr to `log`, and its stdout too unless `stdout` names another file.
    ///
    /// The command gets its own process group. A Ctrl-C in the terminal then reaches this process alone, which stops
    /// the others in order.
    ///
    /// # Errors
    /// When a log cannot be opened or the command cannot be started.
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

    /// Checks that the process still runs.
    ///
    /// # Errors
    /// When it has died. The error contains the end of its log.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.died(status)),
        }
    }

    fn died(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!(
            "{} died ({status}); the end of {}:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log, self.log_start, 25)
        )
    }

    /// Whether the process failed because another program had taken its port.
    pub(crate) fn found_port_taken(&self) -> bool {
        read_from(&self.log, self.log_start).contains("address already in use")
    }

    /// Sends SIGTERM, then SIGKILL after `grace`, and reaps the process.
    ///
    /// # Errors
    /// When the process cannot be signalled.
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

    /// Sends SIGKILL and reaps the process.
    ///
    /// # Errors
    /// When the process cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    /// Kills what a start that failed halfway leaves running. After an orderly stop there is nothing left to kill.
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("invalid process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {}", pid.as_raw_nonzero()))
}

/// Runs a short command and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails. The error contains its stderr.
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
    fn error_for_a_dead_process_contains_the_end_of_its_log() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("log");
        fs::write(&log, "from an earlier start\n")?;
        let mut command = guarded(Path::new("sh"));
        command.args(["-c", "echo bind: address already in use >&2; exit 3"]);
        let mut process = Process::start("sh", command, &log, None)?;
        let deadline = Instant::now() + Duration::from_secs(60);
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
    fn process_that_ignores_sigterm_is_killed_after_the_grace_period() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("log");
        let mut command = guarded(Path::new("sh"));
        command.args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]);
        let mut process = Process::start("sh", command, &log, None)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !read_from(&log, 0).contains("ready") {
            assert!(Instant::now() < deadline, "sh did not start");
            thread::sleep(POLL);
        }
        process.stop(Duration::from_millis(100))?;
        assert!(process.ensure_alive().is_err());
        Ok(())
    }

    #[test]
    fn error_for_a_failed_command_contains_its_stderr() {
        let error = output(Command::new("sh").args(["-c", "echo too old >&2; exit 1"]));
        assert!(error.is_err_and(|error| error.to_string().contains("too old")));
    }
}
