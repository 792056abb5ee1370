//! The control plane as its users meet it: side by side, without a component, and after a SIGKILL.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use daypass_local::{Component, ControlPlane, Options, Shutdown, Tools, holder};

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn two_run_side_by_side_and_know_nothing_of_each_other() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tools = Tools::find_or_build()?;
    let one = ControlPlane::start(&tools, &dir.path().join("one"), Options::default())?;
    let other = ControlPlane::start(&tools, &dir.path().join("other"), Options::default())?;
    assert!(succeeds(one.kubectl().args(["create", "namespace", "guests"])));
    assert!(succeeds(one.kubectl().args(["get", "namespace", "guests"])));
    assert!(!succeeds(other.kubectl().args(["get", "namespace", "guests"])));

    // The controllers work: what every namespace gets, and what goes with an owner.
    wait_for("the default service account", || {
        succeeds(one.kubectl().args(["get", "-n", "guests", "serviceaccount/default", "configmap/kube-root-ca.crt"]))
    })?;
    assert!(succeeds(one.kubectl().args(["create", "token", "default", "-n", "guests"])));
    assert!(succeeds(one.kubectl().args(["delete", "namespace", "guests", "--timeout=30s"])));
    assert!(fs::read_to_string(one.audit_log())?.contains("\"resource\":\"namespaces\""));
    one.stop()?;
    assert!(succeeds(other.kubectl().args(["get", "--raw=/readyz"])), "the other one runs on");
    Ok(())
}

#[test]
fn the_api_server_can_be_taken_away_and_brought_back_with_its_data() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = ControlPlane::start(&Tools::find_or_build()?, dir.path(), Options::default())?;
    assert!(succeeds(plane.kubectl().args(["create", "namespace", "kept"])));
    for how in [Shutdown::Kill, Shutdown::Graceful] {
        plane.stop_component(Component::ApiServer, how)?;
        assert!(!succeeds(plane.kubectl().args(["get", "--raw=/readyz"])));
        plane.start_component(Component::ApiServer)?;
        assert!(succeeds(plane.kubectl().args(["get", "namespace", "kept"])));
    }
    Ok(())
}

#[test]
fn a_sigkill_leaves_nothing_behind_and_the_next_start_is_fresh() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let mut first = up(&state)?;
    assert!(succeeds(kubectl(&state)?.args(["create", "namespace", "stale"])));
    let started = pids(&state)?;
    assert_eq!(started.len(), 3);
    assert!(!succeeds(&mut local(&["up", "--state"], &state)), "a held state folder is refused");

    first.kill()?;
    first.wait()?;
    // Where the system has no parent death signal, only the next start ends them.
    if cfg!(target_os = "linux") {
        wait_for("the components to die with their parent", || !started.iter().any(|pid| is_alive(pid, &state)))?;
    }

    let mut second = up(&state)?;
    assert!(!started.iter().any(|pid| is_alive(pid, &state)));
    assert!(!succeeds(kubectl(&state)?.args(["get", "namespace", "stale"])));
    let started = pids(&state)?;
    assert!(succeeds(&mut local(&["down", "--state"], &state)));
    assert!(second.wait()?.success(), "a clean end");
    assert!(!started.iter().any(|pid| is_alive(pid, &state)));
    assert_eq!(holder(&state)?, None);
    Ok(())
}

/// Starts `daypass-local up` and returns when it says that it is ready.
fn up(state: &Path) -> Result<Child> {
    let log = state.with_extension("out");
    let mut child = local(&["up", "--state"], state).stdout(fs::File::create(&log)?).spawn()?;
    let ready = wait_for("daypass-local up", || {
        fs::read_to_string(&log).is_ok_and(|said| said.contains("ready:")) || !matches!(child.try_wait(), Ok(None))
    });
    if ready.is_err() || child.try_wait()?.is_some() {
        child.kill()?;
        bail!("daypass-local up did not start");
    }
    Ok(child)
}

fn local(args: &[&str], state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daypass-local"));
    command.args(args).arg(state).stdin(Stdio::null());
    command
}

fn kubectl(state: &Path) -> Result<Command> {
    let mut command = Command::new(Tools::find_or_build()?.kubectl());
    command.env("KUBECONFIG", state.join("admin.kubeconfig")).env("KUBECACHEDIR", state.join("kubectl-cache"));
    Ok(command)
}

fn pids(state: &Path) -> Result<Vec<String>> {
    let pids = fs::read_to_string(state.join("pids")).context("no processes were recorded")?;
    Ok(pids.lines().map(str::to_owned).collect())
}

/// A process that is dead but not reaped has no command line, and one that got the id later another one.
fn is_alive(pid: &str, state: &Path) -> bool {
    let args = Command::new("ps").args(["-o", "args=", "-p", pid]).output();
    args.is_ok_and(|args| String::from_utf8_lossy(&args.stdout).contains(&state.display().to_string()))
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        if Instant::now() >= end {
            bail!("{what}: not within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
