//! Namespaces of their own for a control plane with a node: network, mounts and processes.
//!
//! What a node does to a machine (interfaces, packet filters, mounts, containers that outlive their starter) it does in here, and the
//! kernel undoes it when the first process in here dies. Cgroups are the one thing that it does not undo.

use std::fs::{self, DirBuilder};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroups::Cgroups;
use super::config::NODE_ADDRESS;
use crate::process::{POLL, Process, guarded};
use crate::state::write_private;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Running namespaces. Dropped, everything in them is killed and gone.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// `unshare`, the parent of the first process in the sandbox, which dies with it.
    holder: Process,
    dir: PathBuf,
    cgroups: Cgroups,
}

impl Sandbox {
    /// `state` is the folder of the control plane.
    pub(crate) fn start(state: &Path) -> Result<Self> {
        let missing = super::missing();
        if !missing.is_empty() {
            bail!("a node cannot run here: {}", missing.join("; "));
        }
        let dir = state.join("node");
        for folder in ["", "lib", "log", "cni"] {
            DirBuilder::new().create(dir.join(folder))?;
        }
        write_private(&dir.join("sandbox.sh"), include_str!("sandbox.sh"))?;
        fs::write(dir.join("resolv.conf"), format!("nameserver {NODE_ADDRESS}\n"))?;
        let mut command = guarded(Path::new("unshare"));
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh"]);
        command.arg(dir.join("sandbox.sh")).arg(&dir).arg(NODE_ADDRESS);
        let holder = Process::start("the sandbox", command, &state.join("logs/sandbox.log"), None)?;
        let mut sandbox = Self { cgroups: Cgroups::create(holder.id())?, holder, dir };
        let deadline = Instant::now() + START_TIMEOUT;
        while !sandbox.dir.join("ready").exists() {
            sandbox.holder.ensure_alive()?;
            if Instant::now() >= deadline {
                bail!("the sandbox was not ready within {START_TIMEOUT:?}");
            }
            thread::sleep(POLL);
        }
        Ok(sandbox)
    }

    /// Where the node's files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    fn namespace(&self, kind: &str) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("ns").join(kind)
    }

    fn entered(&self, mut command: Command, namespaces: &[(&str, &str)], program: &Path) -> Command {
        for (option, kind) in namespaces {
            command.arg(format!("--{option}={}", self.namespace(kind).display()));
        }
        command.arg("--").arg(program);
        command
    }

    /// A program in the sandbox's network that keeps its process id and dies with us.
    pub(crate) fn guarded(&self, program: &Path) -> Command {
        self.entered(guarded(Path::new("nsenter")), &[("net", "net")], program)
    }

    /// A command in all of the sandbox. Its process id is that of `nsenter`, which waits for it; killed with that one.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let all = [("net", "net"), ("mount", "mnt"), ("pid", "pid_for_children")];
        let mut command = self.entered(Command::new("nsenter"), &all, Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Whether somebody in the sandbox listens on this port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        let file = Path::new("/proc").join(self.holder.id().to_string()).join("net/tcp");
        let listening = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().is_some_and(|address| address.ends_with(&format!(":{port:04X}")));
            // 0A is TCP_LISTEN, in the kernel's own numbers.
            local && words.nth(1) == Some("0A")
        };
        fs::read_to_string(file).is_ok_and(|text| text.lines().any(listening))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.holder.kill().context("the sandbox was not ended").and_then(|()| self.cgroups.remove())
        {
            eprintln!("{error:#}");
        }
    }
}
