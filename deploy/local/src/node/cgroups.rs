//! The cgroups of a node: below one folder of its own in every hierarchy, so that they can be found and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::POLL;

const PREFIX: &str = "daypass-node-";
/// In each: keeps the folder from being taken for one that a killed process left.
const HOLDER: &str = "holder";
/// Killed processes leave their cgroups within moments.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Cgroups {
    name: String,
    hierarchies: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes them, named after `holder`, which is put into each and whose death makes them removable. What starts that were killed
    /// have left is removed first.
    pub(crate) fn create(holder: u32) -> Result<Self> {
        let hierarchies = hierarchies(&fs::read_to_string("/proc/mounts").context("no /proc/mounts")?);
        remove_leftovers(&hierarchies);
        let cgroups = Self { name: format!("{PREFIX}{holder}"), hierarchies };
        for hierarchy in &cgroups.hierarchies {
            let folder = hierarchy.join(&cgroups.name);
            fs::create_dir(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
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

    /// Their path in each hierarchy, for kubelet's `cgroupRoot`.
    pub(crate) fn root(&self) -> String {
        format!("/{}", self.name)
    }

    /// Removes them once their processes are dead.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for folder in self.hierarchies.iter().map(|hierarchy| hierarchy.join(&self.name)) {
            while folder.exists() {
                remove_tree(&folder);
                if Instant::now() >= deadline {
                    bail!("the cgroup {} could not be removed", folder.display());
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

/// Whether this process may make cgroups.
pub(super) fn can_be_made() -> bool {
    let found = hierarchies(&fs::read_to_string("/proc/mounts").unwrap_or_default());
    let make = |hierarchy: &PathBuf| {
        let trial = hierarchy.join(format!("daypass-trial-{}", std::process::id()));
        fs::create_dir(&trial).is_ok() && fs::remove_dir(&trial).is_ok()
    };
    !found.is_empty() && found.iter().all(make)
}

/// Where the hierarchies are: of version 1 one for each controller, of version 2 one; a machine can have both, and kubelet uses both.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let found = fields.filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))));
    found.filter_map(|fields| fields.get(1).map(PathBuf::from)).collect()
}

/// Version 2 gives its children only the controllers that it is told to give.
fn delegate(folder: &Path) {
    for controller in ["cpuset", "cpu", "memory", "pids"] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// In version 1 a new cpuset is empty, and nothing can run in it.
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

/// From the leaves up, as far as no process is in them: the kernel refuses the others.
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
    fn the_hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(Path::new));
    }
}
