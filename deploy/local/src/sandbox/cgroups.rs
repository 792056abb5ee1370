//! The cgroups of a node. They are in one folder per hierarchy, so that they can be found and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::POLL;

/// The folders' name is this and the id of the process that holds them.
const PREFIX: &str = "daypass-node-";
/// A child cgroup that holds one process, so that no other start removes the folder as a leftover.
const HOLDER: &str = "holder";
/// A killed process leaves its cgroup within moments.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Cgroups {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroups {
    /// Creates a cgroup in each hierarchy, named after the process `holder`, and moves that process into it. Its death
    /// makes the cgroups removable. First removes cgroups that earlier, killed processes left behind.
    pub(crate) fn create(holder: u32) -> Result<Self> {
        let hierarchies = hierarchies(&fs::read_to_string("/proc/mounts").context("no /proc/mounts")?);
        remove_leftovers(&hierarchies);
        let cgroups = Self { name: format!("{PREFIX}{holder}"), hierarchies };
        for hierarchy in &cgroups.hierarchies {
            let folder = hierarchy.join(&cgroups.name);
            fs::create_dir(&folder).with_context(|| format!("cannot create the cgroup {}", folder.display()))?;
            let holding = folder.join(HOLDER);
            for (parent, child) in [(hierarchy, &folder), (&folder, &holding)] {
                delegate(parent);
                fs::create_dir_all(child)?;
                inherit_cpuset(parent, child);
            }
            fs::write(holding.join("cgroup.procs"), holder.to_string())
                .with_context(|| format!("cannot enter the cgroup {}", holding.display()))?;
        }
        Ok(cgroups)
    }

    /// The path of the cgroups in each hierarchy, for kubelet's `cgroupRoot`.
    pub(crate) fn root(&self) -> String {
        format!("/{}", self.name)
    }

    /// Waits until the processes in the cgroups are dead, and removes the cgroups.
    ///
    /// # Errors
    /// When one still exists after 20 seconds.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for folder in self.hierarchies.iter().map(|hierarchy| hierarchy.join(&self.name)) {
            while folder.exists() {
                remove_tree(&folder);
                if Instant::now() >= deadline {
                    bail!("cannot remove the cgroup {}", folder.display());
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

/// Whether this process may create cgroups.
pub(super) fn can_create() -> bool {
    let found = hierarchies(&fs::read_to_string("/proc/mounts").unwrap_or_default());
    let try_create = |hierarchy: &PathBuf| {
        let trial = hierarchy.join(format!("daypass-trial-{}", std::process::id()));
        fs::create_dir(&trial).is_ok() && fs::remove_dir(&trial).is_ok()
    };
    !found.is_empty() && found.iter().all(try_create)
}

/// The mount points of the cgroup hierarchies. Version 1 has one per controller, version 2 has one. A machine can have
/// both versions, and kubelet then uses both.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))));
    found.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

/// Enables the controllers for child cgroups, which version 2 does not do by itself.
fn delegate(folder: &Path) {
    for controller in ["cpuset", "cpu", "memory", "pids"] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Copies the cpuset to a child: in version 1 it starts empty, and no process can run in an empty cpuset.
fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(file)) {
            let _ = fs::write(child.join(file), value);
        }
    }
}

fn remove_leftovers(hierarchies: &[PathBuf]) {
    for hierarchy in hierarchies {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_tree(&entry.path());
            }
        }
    }
}

/// Removes cgroups from the leaves up. The kernel refuses to remove those with a process in them.
fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(Path::new));
    }
}
