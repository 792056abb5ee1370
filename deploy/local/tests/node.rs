//! Checks that a node leaves nothing on the machine. `make test-node` runs this. It needs Linux, root and
//! what `daypass-local check-node` checks.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const DEADLINE: Duration = Duration::from_secs(120);

#[test]
fn node_leaves_no_traces_when_stopped_or_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let tunables = tunables();

    let mut killed = up(&state)?;
    assert!(!traces(&state)?.is_empty(), "the test needs traces to look for");
    killed.kill()?;
    killed.wait()?;
    // After a SIGKILL, empty cgroups stay until the next start: the kernel does not remove them.
    wait_gone(&state, |trace| trace.starts_with("cgroup"))?;

    let mut stopped = up(&state)?;
    let down = Command::new(env!("CARGO_BIN_EXE_daypass-local")).args(["down", "--state"]).arg(&state).status()?;
    assert!(down.success() && stopped.wait()?.success(), "a clean stop");
    wait_gone(&state, |_| false)?;
    assert_eq!(self::tunables(), tunables, "kubelet changes only its copies");
    Ok(())
}

/// The settings that kubelet changes on a machine.
fn tunables() -> Vec<String> {
    let names = ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"];
    names.map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default()).to_vec()
}

/// Starts `daypass-local up --node` and returns when pods can run.
fn up(state: &Path) -> Result<Child> {
    let log = state.with_extension("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_daypass-local"));
    command.args(["up", "--node", "--state"]).arg(state).stdin(Stdio::null());
    let mut child = command.stdout(fs::File::create(&log)?).spawn()?;
    let deadline = Instant::now() + 3 * DEADLINE;
    while !fs::read_to_string(&log)?.contains("ready:") {
        if child.try_wait()?.is_some() || Instant::now() >= deadline {
            child.kill()?;
            bail!("daypass-local up --node did not start");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(child)
}

/// Lists the traces of a node: processes and mounts that name its folder, its cgroups, and its interfaces.
fn traces(state: &Path) -> Result<Vec<String>> {
    let folder = state.to_str().context("the path is not UTF-8")?;
    let mut traces = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // A process that has just ended is no trace.
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if arguments.contains(folder) && !arguments.contains("daypass-local") {
            traces.push(format!("process {} {arguments}", process.display()));
        }
    }
    let mounts = fs::read_to_string("/proc/mounts")?;
    traces.extend(mounts.lines().filter(|line| line.contains(folder)).map(|line| format!("mount {line}")));
    for mount in mounts.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup"))) {
        let hierarchy = Path::new(mount.split(' ').nth(1).unwrap_or_default());
        for entry in fs::read_dir(hierarchy)? {
            let name = entry?.file_name();
            // The cgroups of other running nodes have a process in them.
            let holder = hierarchy.join(&name).join("holder/cgroup.procs");
            if name.to_string_lossy().starts_with("daypass-node-")
                && fs::read_to_string(holder).is_ok_and(|ids| ids.is_empty())
            {
                traces.push(format!("cgroup {} {}", hierarchy.display(), name.display()));
            }
        }
    }
    for interface in fs::read_dir("/sys/class/net")? {
        let name = interface?.file_name().to_string_lossy().into_owned();
        if ["node", "nowhere"].contains(&name.as_str()) || name.starts_with("veth") {
            traces.push(format!("interface {name}"));
        }
    }
    Ok(traces)
}

/// Waits until all traces that remain are allowed.
fn wait_gone(state: &Path, allowed: impl Fn(&str) -> bool) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left: Vec<String> = traces(state)?.into_iter().filter(|trace| !allowed(trace)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("left behind: {left:#?}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}
