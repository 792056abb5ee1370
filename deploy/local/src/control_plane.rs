//! Starting, watching and stopping a control plane.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::components::{Component, Setup};
use crate::node::{self, Sandbox};
use crate::process::{POLL, Process, guarded, output};
use crate::state::StateDir;
use crate::tools::Tools;

/// How long a component has to stop before it is killed. An API server ends its watches first.
const GRACE: Duration = Duration::from_secs(10);
/// A chosen port can be taken by somebody else before the program has it.
const PORT_ATTEMPTS: u32 = 5;

/// What can be chosen about a control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// More flags for the API server, as `--name=value`.
    pub apiserver_args: Vec<String>,
    /// How long each component has to become ready.
    pub ready_timeout: Duration,
    /// Set from elsewhere (a signal), it ends a start that is under way.
    pub interrupt: Arc<AtomicBool>,
    /// In namespaces of its own, so that a [`Node`](crate::Node) can join it. Nothing outside reaches it but by
    /// [`ControlPlane::command`], and it reaches nothing outside.
    pub sandbox: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            apiserver_args: Vec::new(),
            ready_timeout: Duration::from_secs(120),
            interrupt: Arc::new(AtomicBool::new(false)),
            sandbox: false,
        }
    }
}

/// How a component is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM, and SIGKILL when that takes more than ten seconds.
    Graceful,
    /// SIGKILL at once.
    Kill,
}

/// A running control plane. Dropping it stops it, in order; the state folder with the logs stays.
///
/// Linux: its processes die with this one, however it ends, so one that is kept in a `static` is stopped as well.
pub struct ControlPlane {
    tools: Tools,
    setup: Setup,
    options: Options,
    running: Mutex<Vec<(Component, Process)>>,
    sandbox: Option<Sandbox>,
    state: StateDir,
}

impl ControlPlane {
    /// Starts etcd, the API server and the controller manager in `state_dir`, and returns when all are ready: the API server's
    /// `/readyz` answers and the controllers have made what every namespace gets.
    ///
    /// `state_dir` is made when it is not there. What an earlier control plane left in it is removed.
    ///
    /// # Errors
    /// When another process holds `state_dir`, when it is a folder of something else, and when a program does not become
    /// ready; the end of that program's log is part of the message.
    pub fn start(tools: &Tools, state_dir: &Path, options: Options) -> Result<Self> {
        let state = StateDir::claim(state_dir)?;
        let sandbox = if options.sandbox { Some(Sandbox::start(state.path())?) } else { None };
        let hosts: &[&str] = if options.sandbox { &node::API_HOSTS } else { &[] };
        let mut setup = Setup::new(state.path(), options.apiserver_args.clone(), hosts)?;
        if options.sandbox {
            setup.node_args = node::apiserver_args(&setup.pki)?;
        }
        let running = Mutex::new(Vec::new());
        let mut plane = Self { tools: tools.clone(), setup, options, running, sandbox, state };
        plane.start_on_free_port(Component::Etcd)?;
        plane.start_on_free_port(Component::ApiServer)?;
        plane.start_component(Component::ControllerManager)?;
        Ok(plane)
    }

    fn start_on_free_port(&mut self, component: Component) -> Result<()> {
        for attempt in 1.. {
            let port = free_port()?;
            match component {
                Component::Etcd => self.setup.etcd_port = port,
                _ => {
                    self.setup.apiserver_port = port;
                    self.setup.write_kubeconfigs()?;
                }
            }
            let Err(error) = self.start_component(component) else {
                break;
            };
            if attempt == PORT_ATTEMPTS || !self.remove(component).is_some_and(|process| process.found_port_taken()) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts a stopped component again, with the same port and flags, and waits until it is ready.
    pub fn start_component(&self, component: Component) -> Result<()> {
        if self.running().iter().any(|(name, _)| *name == component) {
            bail!("{} is running already", component.name());
        }
        let name = component.name();
        let program = self.tools.program(name);
        let mut command = self.sandbox.as_ref().map_or_else(|| guarded(&program), |sandbox| sandbox.guarded(&program));
        command.args(self.setup.args(component));
        let process = Process::start(name, command, &self.setup.log(name), None)?;
        self.state.record_pid(process.id())?;
        self.running().push((component, process));
        self.wait_ready(component)
    }

    /// Other flags in addition for the API server (`--name=value`), from its next start on.
    pub fn set_apiserver_args(&self, args: Vec<String>) {
        self.setup.set_apiserver_args(args);
    }

    /// Takes a component away; `start_component` brings it back.
    pub fn stop_component(&self, component: Component, how: Shutdown) -> Result<()> {
        let mut process = self.remove(component).with_context(|| format!("{} is not running", component.name()))?;
        match how {
            Shutdown::Graceful => process.stop(GRACE),
            Shutdown::Kill => process.kill(),
        }
    }

    /// The process id of a component, while that runs.
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.running().iter().find(|(name, _)| *name == component).map(|(_, process)| process.id())
    }

    /// Fails, with the end of its log, when a component that should run does not.
    pub fn check(&self) -> Result<()> {
        self.running().iter_mut().try_for_each(|(_, process)| process.ensure_alive())
    }

    /// Stops everything in order.
    pub fn stop(mut self) -> Result<()> {
        self.stop_all()
    }

    fn stop_all(&mut self) -> Result<()> {
        // First, so that the API server need not wait for the watches of what runs in there.
        drop(self.sandbox.take());
        let mut result = Ok(());
        while let Some((_, mut process)) = { self.running().pop() } {
            // The others are stopped too, whatever this one does.
            result = result.and(process.stop(GRACE));
        }
        result
    }

    fn wait_ready(&self, component: Component) -> Result<()> {
        let deadline = Instant::now() + self.options.ready_timeout;
        while !self.is_ready(component) {
            self.check()?;
            if self.options.interrupt.load(Ordering::Relaxed) {
                bail!("interrupted while {} was starting", component.name());
            }
            if Instant::now() >= deadline {
                let log = self.setup.log(component.name());
                bail!(
                    "{} was not ready within {:?}; see {}",
                    component.name(),
                    self.options.ready_timeout,
                    log.display()
                );
            }
            thread::sleep(POLL);
        }
        // Whoever answered is ours only if ours is there.
        self.check()
    }

    fn is_ready(&self, component: Component) -> bool {
        let answers = |args: &[&str]| output(self.kubectl().arg("--request-timeout=3s").args(args)).is_ok();
        match component {
            Component::Etcd => match &self.sandbox {
                Some(sandbox) => sandbox.listens(self.setup.etcd_port),
                None => TcpStream::connect(("127.0.0.1", self.setup.etcd_port)).is_ok(),
            },
            Component::ApiServer => answers(&["get", "--raw=/readyz"]),
            Component::ControllerManager => {
                answers(&["get", "-n", "default", "serviceaccount/default", "configmap/kube-root-ca.crt"])
            }
        }
    }

    fn remove(&self, component: Component) -> Option<Process> {
        let mut running = self.running();
        let index = running.iter().position(|(name, _)| *name == component)?;
        Some(running.remove(index).1)
    }

    /// In order of start. A panic elsewhere while it was locked leaves it as good as it was.
    fn running(&self) -> MutexGuard<'_, Vec<(Component, Process)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Base URL of the API server.
    pub fn server_url(&self) -> String {
        self.setup.server_url()
    }

    /// The CA that signed the API server's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.setup.pki.ca_pem
    }

    /// The same as a file.
    pub fn ca_file(&self) -> &Path {
        &self.setup.pki.ca.cert
    }

    /// The administrator's kubeconfig, mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.setup.admin_kubeconfig()
    }

    /// Writes a kubeconfig that carries `token`, mode 0600.
    pub fn write_token_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        crate::kubeconfig::write(path, &self.server_url(), self.ca_pem(), &crate::kubeconfig::Identity::Token(token))
    }

    /// The private key that signs service-account tokens: PEM, PKCS #8, ECDSA P-256 (JWT `alg` ES256).
    pub fn service_account_key(&self) -> &Path {
        &self.setup.pki.service_account_key
    }

    /// The API server's audit log: one JSON event a line, level Metadata.
    pub fn audit_log(&self) -> PathBuf {
        self.setup.audit_log()
    }

    /// The log of anything called `name` in the state folder.
    pub fn log(&self, name: &str) -> PathBuf {
        self.setup.log(name)
    }

    /// Everything of this control plane.
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// The programs that run it.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// A kubectl command as the administrator; add arguments. Its discovery cache is in the state folder: the one in the home
    /// folder is keyed by address, and the next control plane may get the same.
    pub fn kubectl(&self) -> Command {
        let mut command = self.command(&self.tools.kubectl());
        command.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.state.path().join("kubectl-cache"));
        command
    }

    /// A command that reaches this control plane: with a sandbox, one in it, whose working folder is `/`.
    pub fn command(&self, program: &Path) -> Command {
        self.sandbox.as_ref().map_or_else(|| Command::new(program), |sandbox| sandbox.command(program))
    }

    /// The namespaces that it is in, where it has its own.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(crate) fn record_pid(&self, pid: u32) -> Result<()> {
        self.state.record_pid(pid)
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.options.interrupt.load(Ordering::Relaxed)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Err(error) = self.stop_all() {
            eprintln!("the control plane in {} did not stop cleanly: {error:#}", self.state.path().display());
        }
        // The next start on this folder need not look for what has been stopped.
        let _ = fs::remove_file(self.state.path().join("pids"));
    }
}

/// A port of 127.0.0.1 that nobody listens on at the moment. It is none of those that Linux gives to outgoing
/// connections (from 32768 on): such a one may be taken before whoever it is for listens on it, or while that is being
/// restarted.
///
/// # Errors
/// When all are taken.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 16_000;
    const COUNT: u32 = 16_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin at different ones.
    let start = std::process::id().wrapping_mul(257);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free")
}
