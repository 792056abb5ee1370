//! The state folder: everything of one control plane, held by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process::{POLL, output, signal};

/// Says that the folder is ours to wipe.
const MARKER: &str = ".daypass-local";
/// Held with a file lock while the state is in use; its content is the holder's process id.
const LOCK: &str = "lock";
/// Ids of the processes that were started, one a line.
const PIDS: &str = "pids";

/// A state folder that this process holds until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The lock goes with the open file. Children never inherit it (it is close-on-exec), so it is free once we are dead.
    _lock: File,
}

impl StateDir {
    /// Takes hold of `path` and empties it. Fails when another process holds it, or when it is somebody else's folder.
    pub(crate) fn claim(path: &Path) -> Result<Self> {
        prepare(path)?;
        let path = path.canonicalize()?;
        let mut lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path.join(LOCK))?;
        take(&lock, &path)?;
        // At once, so that whoever sees the lock held reads the holder's id and not an earlier one's.
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        end_leftovers(&path)?;
        wipe(&path)?;
        for folder in ["pki", "logs", "etcd"] {
            DirBuilder::new().mode(0o700).create(path.join(folder))?;
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record_pid(&self, pid: u32) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path.join(PIDS))?;
        Ok(writeln!(file, "{pid}")?)
    }
}

/// The id of the process that holds `path`, if one does.
pub fn holder(path: &Path) -> Result<Option<u32>> {
    let Ok(lock) = File::open(path.join(LOCK)) else {
        return Ok(None);
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let pid = pid_in(path).trim().parse().context("the state folder is in use, but does not say by whom")?;
            Ok(Some(pid))
        }
        Err(TryLockError::Error(error)) => Err(error).context("cannot look at the state folder's lock"),
    }
}

/// Asks the holder of `path` to stop (SIGTERM) and waits until it is gone. Answers whether there was one.
///
/// The id is used only while the lock is held, so that it cannot be that of an unrelated process that came later.
pub fn stop_holder(path: &Path, deadline: Duration) -> Result<bool> {
    let Some(pid) = holder(path)? else {
        return Ok(false);
    };
    signal(pid, Signal::TERM)?;
    let end = Instant::now() + deadline;
    while holder(path)? == Some(pid) {
        if Instant::now() >= end {
            // Its children die with it (see `process::guarded`).
            signal(pid, Signal::KILL)?;
            return Ok(true);
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// A folder of its own under `parent` for one control plane, for tests. What earlier, dead processes left there is removed.
pub fn fresh_state_dir(parent: &Path) -> Result<PathBuf> {
    fs::create_dir_all(parent)?;
    for entry in fs::read_dir(parent)? {
        let path = entry?.path();
        if path.join(MARKER).is_file() && holder(&path).is_ok_and(|holder| holder.is_none()) {
            // Another test process may be removing the same one.
            let _ = end_leftovers(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
    let now = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
    Ok(parent.canonicalize()?.join(format!("{}-{now}", std::process::id())))
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, contents: &str) -> Result<()> {
    let open = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    let mut file = open.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(contents.as_bytes())?)
}

/// Tries for a moment: a look by [`holder`] holds the lock too, for an instant.
fn take(lock: &File, path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{} is in use by process {}; stop that one, or choose another state folder",
                    path.display(),
                    pid_in(path)
                )
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context("cannot lock the state folder");
            }
        }
    }
}

fn prepare(path: &Path) -> Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.with_context(|| format!("cannot create the state folder {}", path.display()))?;
    let is_ours = path.join(MARKER).is_file();
    if !is_ours && fs::read_dir(path)?.next().is_some() {
        bail!("{} is not empty and not a state folder of Daypass; choose another one", path.display());
    }
    // The marker comes before the lock: whoever finds anything in here finds the marker too.
    Ok(fs::write(
        path.join(MARKER),
        "A state folder of Daypass's local control plane. It is emptied at every start.\n",
    )?)
}

fn pid_in(path: &Path) -> String {
    fs::read_to_string(path.join(LOCK)).unwrap_or_default()
}

/// Removes what an earlier start left behind.
fn wipe(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER || entry.file_name() == LOCK {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove what an earlier start left at {}", path.display()))?;
    }
    Ok(())
}

/// Ends processes that an earlier holder left behind: those that are just dying, or, where the system has no parent death
/// signal, alive. A process id may have been given to somebody else since, so only a command line that names this folder counts.
fn end_leftovers(path: &Path) -> Result<()> {
    let folder = path.display().to_string();
    for pid in
        fs::read_to_string(path.join(PIDS)).unwrap_or_default().lines().filter_map(|line| line.parse::<u32>().ok())
    {
        let deadline = Instant::now() + Duration::from_secs(5);
        while command_line(pid).contains(&folder) {
            if Instant::now() >= deadline {
                bail!("process {pid} of an earlier start on {folder} cannot be ended");
            }
            let _ = signal(pid, Signal::KILL);
            thread::sleep(POLL);
        }
    }
    Ok(())
}

fn command_line(pid: u32) -> String {
    output(Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("thesis.tex"), "years of work")?;
        let error = StateDir::claim(dir.path());
        assert!(error.is_err_and(|error| error.to_string().contains("not a state folder")));
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "nothing may be added either");
        Ok(())
    }

    #[test]
    fn a_held_folder_is_refused_and_names_its_holder() -> Result<()> {
        let dir = tempfile::tempdir()?;
        assert_eq!(holder(dir.path())?, None);
        let state = StateDir::claim(dir.path())?;
        assert_eq!(holder(dir.path())?, Some(std::process::id()));
        let error = StateDir::claim(dir.path());
        assert!(error.is_err_and(|error| { error.to_string().contains(&format!("process {}", std::process::id())) }));
        drop(state);
        assert_eq!(holder(dir.path())?, None);
        Ok(())
    }

    #[test]
    fn a_stale_folder_is_emptied() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let state = StateDir::claim(dir.path())?;
        fs::write(state.path().join("etcd/data"), "stale")?;
        fs::write(state.path().join("run.json"), "stale")?;
        drop(state);
        let state = StateDir::claim(dir.path())?;
        assert!(!state.path().join("etcd/data").exists() && !state.path().join("run.json").exists());
        Ok(())
    }

    #[test]
    fn a_leftover_process_of_the_folder_is_ended_and_no_other() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let state = StateDir::claim(dir.path())?;
        let script = "while :; do sleep 1; done";
        let mut ours = Command::new("sh").args(["-c", script]).arg(state.path()).spawn()?;
        let mut other = Command::new("sh").args(["-c", script]).spawn()?;
        state.record_pid(ours.id())?;
        state.record_pid(other.id())?;
        end_leftovers(state.path())?;
        assert!(!ours.wait()?.success());
        assert!(other.try_wait()?.is_none());
        other.kill()?;
        other.wait()?;
        Ok(())
    }

    #[test]
    fn abandoned_test_folders_are_removed_and_held_ones_kept() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let abandoned = fresh_state_dir(parent.path())?;
        drop(StateDir::claim(&abandoned)?);
        let held = fresh_state_dir(parent.path())?;
        assert!(!abandoned.exists());
        let _state = StateDir::claim(&held)?;
        fresh_state_dir(parent.path())?;
        assert!(held.exists());
        Ok(())
    }
}
