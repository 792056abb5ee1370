//! Tests control planes side by side, with a stopped component, and after a SIGKILL.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use daypass_local::{Component, ControlPlane, Options, Shutdown, Tools, holder};

/// Longer than a control plane takes on a slow machine, with others beside it.
const DEADLINE: Duration = Duration::from_secs(300);

#[test]
fn two_control_planes_run_side_by_side() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tools = Tools::find_or_build()?;
    let one = ControlPlane::start(&tools, &dir.path().join("one"), Options::default())?;
    let other = ControlPlane::start(&tools, &dir.path().join("other"), Options::default())?;
    assert!(succeeds(one.kubectl().args(["create", "namespace", "guests"])));
    assert!(succeeds(one.kubectl().args(["get", "namespace", "guests"])));
    assert!(!succeeds(other.kubectl().args(["get", "namespace", "guests"])));

    // The controllers work: they create what every namespace gets, and delete what belongs to a deleted namespace.
    wait_for("the default service account", || {
        succeeds(one.kubectl().args(["get", "-n", "guests", "serviceaccount/default", "configmap/kube-root-ca.crt"]))
    })?;
    assert!(succeeds(one.kubectl().args(["create", "token", "default", "-n", "guests"])));
    assert!(succeeds(one.kubectl().args(["delete", "namespace", "guests", "--timeout=300s"])));
    assert!(fs::read_to_string(one.audit_log())?.contains("\"resource\":\"namespaces\""));
    one.stop()?;
    assert!(succeeds(other.kubectl().args(["get", "--raw=/readyz"])), "the other control plane still runs");
    Ok(())
}

#[test]
fn api_server_keeps_its_data_when_stopped_or_killed() -> Result<()> {
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
fn no_process_or_data_survives_a_sigkill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let mut first = up(&state)?;
    assert!(succeeds(kubectl(&state)?.args(["create", "namespace", "stale"])));
    let started = pids(&state)?;
    assert_eq!(started.len(), 3);
    assert!(!succeeds(&mut local(&["up", "--state"], &state)), "a state folder in use is refused");

    first.kill()?;
    first.wait()?;
    // Systems without a parent death signal leave this to the next start.
    if cfg!(target_os = "linux") {
        wait_for("the components to die with their parent", || !started.iter().any(|pid| is_alive(pid, &state)))?;
    }

    let mut second = up(&state)?;
    assert!(!started.iter().any(|pid| is_alive(pid, &state)));
    assert!(!succeeds(kubectl(&state)?.args(["get", "namespace", "stale"])));
    let started = pids(&state)?;
    assert!(succeeds(&mut local(&["down", "--state"], &state)));
    assert!(second.wait()?.success(), "a clean stop");
    assert!(!started.iter().any(|pid| is_alive(pid, &state)));
    assert_eq!(holder(&state)?, None);
    Ok(())
}

/// Starts `daypass-local up` and returns when it is ready.
fn up(state: &Path) -> Result<Child> {
    let log = state.with_extension("out");
    let mut child = local(&["up", "--state"], state).stdout(fs::File::create(&log)?).spawn()?;
    let ready = wait_for("daypass-local up", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("ready:")) || !matches!(child.try_wait(), Ok(None))
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
    let pids = fs::read_to_string(state.join("pids")).context("no pids file")?;
    Ok(pids.lines().map(str::to_owned).collect())
}

/// Compares the command line: a dead process that nobody reaped has none, and a later process with the id has another.
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
            bail!("waited {DEADLINE:?} in vain for {what}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
