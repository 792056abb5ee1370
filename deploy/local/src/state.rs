//! The state folder holds all files of one control plane. One process at a time may use it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::process::{POLL, output, signal};

/// Marks a folder as a state folder, which may be emptied.
const MARKER: &str = ".daypass-local";
/// Locked while a process uses the folder. Contains that process's id.
const LOCK: &str = "lock";
/// The ids of the processes that the holder started, one per line.
const PIDS: &str = "pids";

/// A state folder that this process uses. Dropping it releases the folder.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The lock lasts as long as this file is open. It is close-on-exec, so no child keeps the lock after our death.
    lock: File,
}

impl Drop for StateDir {
    /// Closing the file would not do: a child that another thread starts holds it, too, until it executes its program.
    fn drop(&mut self) {
        // Closing unlocks as well, only later.
        let _ = self.lock.unlock();
    }
}

impl StateDir {
    /// Locks `path` and empties it.
    ///
    /// # Errors
    /// When another process uses the folder, and when it has other content and no marker.
    pub(crate) fn claim(path: &Path) -> Result<Self> {
        prepare(path)?;
        let path = path.canonicalize()?;
        let mut lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path.join(LOCK))?;
        acquire(&lock, &path)?;
        // Before anything else: a process that finds the lock taken must not read an earlier holder's id.
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        kill_leftovers(&path)?;
        wipe(&path)?;
        for folder in ["pki", "logs", "etcd"] {
            DirBuilder::new().mode(0o700).create(path.join(folder))?;
        }
        Ok(Self { path, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn record_pid(&self, pid: u32) -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path.join(PIDS))?;
        Ok(writeln!(file, "{pid}")?)
    }
}

/// Returns the id of the process that uses the state folder `path`, if one does.
///
/// # Errors
/// When the lock cannot be read.
pub fn holder(path: &Path) -> Result<Option<u32>> {
    let Ok(lock) = File::open(path.join(LOCK)) else {
        return Ok(None);
    };
    match lock.try_lock_shared() {
        Ok(()) => {
            // Not by closing: see `StateDir::drop`.
            lock.unlock()?;
            Ok(None)
        }
        Err(TryLockError::WouldBlock) => {
            let pid = pid_in(path)
                .trim()
                .parse()
                .context("the state folder is in use, but its lock file names no process")?;
            Ok(Some(pid))
        }
        Err(TryLockError::Error(error)) => Err(error).context("cannot check the state folder's lock"),
    }
}

/// Sends SIGTERM to the process that uses `path`, and SIGKILL after `timeout`. Returns false if no
/// process uses it.
///
/// It signals the process only while the lock is taken, since a later process can have the same id.
///
/// # Errors
/// When the lock cannot be read or the process cannot be signalled.
pub fn stop_holder(path: &Path, timeout: Duration) -> Result<bool> {
    let Some(pid) = holder(path)? else {
        return Ok(false);
    };
    signal(pid, Signal::TERM)?;
    let deadline = Instant::now() + timeout;
    while holder(path)? == Some(pid) {
        if Instant::now() >= deadline {
            // Its children die with it: see `process::guarded`.
            signal(pid, Signal::KILL)?;
            return Ok(true);
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// Returns the path of a new state folder under `parent`, for a test. Removes the state folders there that no process
/// uses any more.
///
/// # Errors
/// When `parent` cannot be created or read.
pub fn fresh_state_dir(parent: &Path) -> Result<PathBuf> {
    fs::create_dir_all(parent)?;
    let own = format!("{}-", std::process::id());
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let path = entry.path();
        // Another test of this process may have created its folder and not locked it yet.
        if entry.file_name().to_string_lossy().starts_with(&own) {
            continue;
        }
        if path.join(MARKER).is_file() && holder(&path).is_ok_and(|holder| holder.is_none()) {
            // Another test process may be removing the same folder.
            let _ = kill_leftovers(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
    let now = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
    Ok(parent.canonicalize()?.join(format!("{own}{now}")))
}

/// Writes a file with mode 0600. Whoever reads it meanwhile reads all of the old contents or all of the new ones.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, contents: &str) -> Result<()> {
    let write = || {
        // Its mode is 0600.
        let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(contents.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    };
    write().with_context(|| format!("cannot write {}", path.display())).map(drop)
}

/// Acquires the lock. It retries for half a second, since [`holder`] also takes the lock for an instant.
fn acquire(lock: &File, path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_millis(500);
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "{} is in use by process {}; stop that process or choose another state folder",
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
        bail!("{} is not empty and not a state folder; choose another one", path.display());
    }
    // Before the lock, so that another process finds either an empty folder or one with a marker.
    Ok(fs::write(path.join(MARKER), "The state folder of a local Daypass control plane. Every start empties it.\n")?)
}

fn pid_in(path: &Path) -> String {
    fs::read_to_string(path.join(LOCK)).unwrap_or_default()
}

/// Removes everything but the marker and the lock.
fn wipe(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == MARKER || entry.file_name() == LOCK {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}, left by an earlier start", path.display()))?;
    }
    Ok(())
}

/// Kills the processes that an earlier holder left behind. On Linux they are dying already. Systems without a parent
/// death signal keep them alive. Since an unrelated process can have got the id, this only kills a process whose
/// command line names the folder.
fn kill_leftovers(path: &Path) -> Result<()> {
    let folder = path.display().to_string();
    let pids = fs::read_to_string(path.join(PIDS)).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse::<u32>().ok()) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while command_line(pid).contains(&folder) {
            if Instant::now() >= deadline {
                bail!("cannot kill process {pid} of an earlier start on {folder}");
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_that_is_written_again_is_whole_for_its_readers() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (path, contents) = (dir.path().join("values"), "a".repeat(10_000));
        write_private(&path, &contents)?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| (0..500).try_for_each(|_| write_private(&path, &contents)));
            while !writer.is_finished() {
                assert_eq!(fs::read_to_string(&path)?, contents);
            }
            writer.join().unwrap()
        })?;
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "nothing else is left");
        Ok(())
    }

    #[test]
    fn folder_without_marker_is_refused_and_left_alone() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("thesis.tex"), "years of work")?;
        let error = StateDir::claim(dir.path());
        assert!(error.is_err_and(|error| error.to_string().contains("not a state folder")));
        assert_eq!(fs::read_dir(dir.path())?.count(), 1, "nothing is added");
        Ok(())
    }

    #[test]
    fn folder_in_use_is_refused_with_the_id_of_its_holder() -> Result<()> {
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
    fn folder_is_released_though_a_child_still_holds_its_lock_file() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let state = StateDir::claim(dir.path())?;
        let _inherited = state.lock.try_clone()?;
        drop(state);
        assert_eq!(holder(dir.path())?, None);
        drop(StateDir::claim(dir.path())?);
        Ok(())
    }

    #[test]
    fn folder_of_an_earlier_start_is_emptied() -> Result<()> {
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
    fn only_leftover_processes_of_the_folder_are_killed() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let state = StateDir::claim(dir.path())?;
        let script = "while :; do sleep 1; done";
        let mut ours = Command::new("sh").args(["-c", script]).arg(state.path()).spawn()?;
        let mut other = Command::new("sh").args(["-c", script]).spawn()?;
        state.record_pid(ours.id())?;
        state.record_pid(other.id())?;
        kill_leftovers(state.path())?;
        assert!(!ours.wait()?.success());
        assert!(other.try_wait()?.is_none());
        other.kill()?;
        other.wait()?;
        Ok(())
    }

    #[test]
    fn fresh_state_dir_removes_only_unused_folders() -> Result<()> {
        let parent = tempfile::tempdir()?;
        let (abandoned, held) = (parent.path().join("1-1"), parent.path().join("1-2"));
        drop(StateDir::claim(&abandoned)?);
        let _state = StateDir::claim(&held)?;
        let starting = fresh_state_dir(parent.path())?;
        assert!(!abandoned.exists() && held.exists());
        drop(StateDir::claim(&starting)?);
        fresh_state_dir(parent.path())?;
        assert!(starting.exists(), "another test of this process is about to lock it");
        Ok(())
    }
}
