//! The sandbox of a control plane with a node: a network, a mount and a process namespace.
//!
//! A node changes its machine: interfaces, packet filters, mounts, containers that outlive the process that started
//! them. In a sandbox, the kernel undoes all of this when the sandbox's first process dies, except for cgroups.

mod cgroups;
mod network;
mod requirements;

pub use network::{API_NAME, DAYPASS_NAME};
pub use requirements::missing;

pub(crate) use network::{API_HOSTS, NODE_ADDRESS, NODE_NAME, POD_RANGE, SERVICE_RANGE};
pub(crate) use requirements::cni_programs;

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::cgroups::Cgroups;
use crate::process::{POLL, Process, guarded};
use crate::state::write_private;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running sandbox. Dropping it kills all of its processes and removes its namespaces and cgroups.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// `unshare`, the parent of the sandbox's first process. That process dies with it.
    holder: Process,
    dir: PathBuf,
    cgroups: Cgroups,
}

impl Sandbox {
    /// Starts a sandbox and returns when its network and mounts are ready. `state` is the state folder.
    pub(crate) fn start(state: &Path) -> Result<Self> {
        let missing = missing();
        if !missing.is_empty() {
            bail!("this machine cannot run a node: {}", missing.join("; "));
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

    /// The folder of the node's files.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    fn namespace_file(&self, kind: &str) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("ns").join(kind)
    }

    /// Completes an `nsenter` command that runs `program` in these namespaces. Each is an option of nsenter and a file
    /// name below `/proc/<pid>/ns`.
    fn enter(&self, mut command: Command, namespaces: &[(&str, &str)], program: &Path) -> Command {
        for (option, kind) in namespaces {
            command.arg(format!("--{option}={}", self.namespace_file(kind).display()));
        }
        command.arg("--").arg(program);
        command
    }

    /// A command in the sandbox's network namespace alone. It has the program's process id and dies with this process.
    pub(crate) fn guarded(&self, program: &Path) -> Command {
        self.enter(guarded(Path::new("nsenter")), &[("net", "net")], program)
    }

    /// A command in all of the sandbox's namespaces. Its process id is that of `nsenter`, which waits for the program.
    /// Killing nsenter kills the program.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let all = [("net", "net"), ("mount", "mnt"), ("pid", "pid_for_children")];
        let mut command = self.enter(Command::new("nsenter"), &all, Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Moves this thread into the sandbox's network namespace.
    pub(crate) fn enter_network(&self) -> Result<()> {
        let namespace = File::open(self.namespace_file("net"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the sandbox's network")
    }

    /// Whether a process in the sandbox listens on this port.
    pub(crate) fn listens(&self, port: u16) -> bool {
        let net = Path::new("/proc").join(self.holder.id().to_string()).join("net");
        let is_listening = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let is_port = words.next().is_some_and(|address| address.ends_with(&format!(":{port:04X}")));
            // 0A is TCP_LISTEN in the kernel's net/tcp_states.h.
            is_port && words.nth(1) == Some("0A")
        };
        // A Go program that listens on all addresses does so over IPv6.
        let listens = |file: &str| fs::read_to_string(net.join(file)).is_ok_and(|text| text.lines().any(is_listening));
        listens("tcp") || listens("tcp6")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let killed = self.holder.kill().context("cannot stop the sandbox");
        if let Err(error) = killed.and_then(|()| self.cgroups.remove()) {
            eprintln!("{error:#}");
        }
    }
}
