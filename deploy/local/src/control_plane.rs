//! Starts, watches and stops the components of a control plane.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::components::{Component, PlaneConfig};
use crate::kubeconfig::{self, Identity};
use crate::port::free_port;
use crate::process::{KUBECTL_POLL, POLL, Process, guarded, output};
use crate::sandbox::Sandbox;
use crate::state::StateDir;
use crate::tools::Tools;

/// How long a component may take to stop before it is killed. The API server first closes its watches.
const GRACE: Duration = Duration::from_secs(10);
/// Another program can take a free port before the component binds it.
const PORT_ATTEMPTS: u32 = 5;

/// Options of a control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// Extra flags for the API server, as `--name=value`.
    pub apiserver_args: Vec<String>,
    /// How long each component may take to become ready.
    pub ready_timeout: Duration,
    /// Aborts a start when a signal handler or another thread sets it.
    pub interrupt: Arc<AtomicBool>,
    /// Runs the control plane in its own namespaces, so that a [`Node`](crate::Node) can join it. From
    /// outside, only [`ControlPlane::command`] and its neighbours reach it, and it reaches nothing outside.
    pub sandbox: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            apiserver_args: Vec::new(),
            ready_timeout: Duration::from_secs(300),
            interrupt: Arc::new(AtomicBool::new(false)),
            sandbox: false,
        }
    }
}

/// How to stop a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// SIGTERM, then SIGKILL after ten seconds.
    Graceful,
    /// SIGKILL at once.
    Kill,
}

/// A running control plane. Dropping it stops the components in order and keeps the state folder with the logs.
///
/// On Linux the components die with this process, however it ends. So a control plane in a `static` stops too.
pub struct ControlPlane {
    tools: Tools,
    config: PlaneConfig,
    options: Options,
    running: Mutex<Vec<(Component, Process)>>,
    sandbox: Option<Sandbox>,
    state: StateDir,
}

impl ControlPlane {
    /// Starts etcd, the API server and the controller manager in `state_dir`, and returns when all of them are ready:
    /// the API server's `/readyz` returns 200, and the controllers have created what every namespace gets.
    ///
    /// Creates `state_dir` if it does not exist, and removes what an earlier control plane left in it.
    ///
    /// # Errors
    /// When another process holds `state_dir`, when it is not a state folder, and when a component does not become
    /// ready. The error contains the end of that component's log.
    pub fn start(tools: &Tools, state_dir: &Path, options: Options) -> Result<Self> {
        let state = StateDir::claim(state_dir)?;
        let sandbox = if options.sandbox { Some(Sandbox::start(state.path())?) } else { None };
        let config = PlaneConfig::new(state.path(), options.apiserver_args.clone(), options.sandbox)?;
        let running = Mutex::new(Vec::new());
        let mut plane = Self { tools: tools.clone(), config, options, running, sandbox, state };
        plane.start_on_free_port(Component::Etcd)?;
        plane.start_on_free_port(Component::ApiServer)?;
        plane.start_component(Component::ControllerManager)?;
        Ok(plane)
    }

    fn start_on_free_port(&mut self, component: Component) -> Result<()> {
        for attempt in 1.. {
            let port = free_port()?;
            match component {
                Component::Etcd => self.config.etcd_port = port,
                _ => {
                    self.config.apiserver_port = port;
                    self.config.write_kubeconfigs()?;
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

    /// Starts a stopped component on its previous port, and waits until it is ready.
    ///
    /// # Errors
    /// When it is running already, or does not become ready.
    pub fn start_component(&self, component: Component) -> Result<()> {
        if self.running().iter().any(|(name, _)| *name == component) {
            bail!("{} is already running", component.name());
        }
        let name = component.name();
        let program = self.tools.program(name);
        let mut command = self.guarded(&program);
        command.args(self.config.args(component));
        let process = Process::start(name, command, &self.config.log(name), None)?;
        self.state.record_pid(process.id())?;
        self.running().push((component, process));
        self.wait_ready(component)
    }

    /// Replaces the extra flags of the API server (`--name=value`). They take effect at its next start.
    pub fn set_apiserver_args(&self, args: Vec<String>) {
        self.config.set_apiserver_args(args);
    }

    /// Stops a component. [`start_component`](Self::start_component) starts it again.
    ///
    /// # Errors
    /// When it is not running, or cannot be stopped.
    pub fn stop_component(&self, component: Component, how: Shutdown) -> Result<()> {
        let mut process = self.remove(component).with_context(|| format!("{} is not running", component.name()))?;
        match how {
            Shutdown::Graceful => process.stop(GRACE),
            Shutdown::Kill => process.kill(),
        }
    }

    /// The process id of a running component.
    pub fn pid(&self, component: Component) -> Option<u32> {
        self.running().iter().find(|(name, _)| *name == component).map(|(_, process)| process.id())
    }

    /// Checks that all started components still run.
    ///
    /// # Errors
    /// When one has died. The error contains the end of its log.
    pub fn check(&self) -> Result<()> {
        self.running().iter_mut().try_for_each(|(_, process)| process.ensure_alive())
    }

    /// Stops the components in reverse order of their start.
    ///
    /// # Errors
    /// When one cannot be stopped. The others are still stopped.
    pub fn stop(mut self) -> Result<()> {
        self.stop_all()
    }

    fn stop_all(&mut self) -> Result<()> {
        // First, or the API server would wait for the watches of the node's programs.
        drop(self.sandbox.take());
        let mut result = Ok(());
        while let Some((_, mut process)) = { self.running().pop() } {
            result = result.and(process.stop(GRACE));
        }
        result
    }

    fn wait_ready(&self, component: Component) -> Result<()> {
        let deadline = Instant::now() + self.options.ready_timeout;
        while let Err(why) = self.ready(component) {
            self.check()?;
            if self.interrupted() {
                bail!("interrupted while {} was starting", component.name());
            }
            if Instant::now() >= deadline {
                let log = self.config.log(component.name());
                let (name, within) = (component.name(), self.options.ready_timeout);
                bail!("{name} was not ready within {within:?}; see {}\n{why:#}", log.display());
            }
            thread::sleep(if component == Component::Etcd { POLL } else { KUBECTL_POLL });
        }
        // If our process has died, another program answered on its port.
        self.check()
    }

    /// Checks a component once. The error says what it still waits for.
    fn ready(&self, component: Component) -> Result<()> {
        let succeeds = |args: &[&str]| output(self.kubectl().arg("--request-timeout=3s").args(args)).map(drop);
        match component {
            Component::Etcd => self.listens(self.config.etcd_port),
            Component::ApiServer => {
                self.listens(self.config.apiserver_port)?;
                succeeds(&["get", "--raw=/readyz"])
            }
            Component::ControllerManager => {
                succeeds(&["get", "-n", "default", "serviceaccount/default", "configmap/kube-root-ca.crt"])
            }
        }
    }

    fn listens(&self, port: u16) -> Result<()> {
        match &self.sandbox {
            Some(sandbox) if sandbox.listens(port) => Ok(()),
            Some(_) => bail!("it does not listen"),
            None => Ok(TcpStream::connect(("127.0.0.1", port)).map(drop)?),
        }
    }

    fn remove(&self, component: Component) -> Option<Process> {
        let mut running = self.running();
        let index = running.iter().position(|(name, _)| *name == component)?;
        Some(running.remove(index).1)
    }

    /// The running components in order of their start. A panic under the lock cannot corrupt the list.
    fn running(&self) -> MutexGuard<'_, Vec<(Component, Process)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The base URL of the API server.
    pub fn server_url(&self) -> String {
        self.config.server_url()
    }

    /// The CA of the API server's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.config.pki.ca_pem
    }

    /// The CA of the API server's certificate, as a PEM file.
    pub fn ca_file(&self) -> &Path {
        &self.config.pki.ca.cert
    }

    /// The administrator's kubeconfig, mode 0600.
    pub fn kubeconfig(&self) -> PathBuf {
        self.config.admin_kubeconfig()
    }

    /// Writes a kubeconfig that authenticates with `token`, mode 0600.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_token_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        kubeconfig::write(path, &self.server_url(), self.ca_pem(), &Identity::Token(token))
    }

    /// The private key that signs service-account tokens: PEM, PKCS #8, ECDSA P-256 (JWT `alg` ES256).
    pub fn service_account_key(&self) -> &Path {
        &self.config.pki.service_account_key
    }

    /// The API server's audit log: one JSON event per line, at level Metadata.
    pub fn audit_log(&self) -> PathBuf {
        self.config.audit_log()
    }

    /// The log file of a program, by its name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.config.log(name)
    }

    /// The state folder, which holds all files of this control plane.
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// The programs of this control plane.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// A kubectl command as the administrator; add arguments.
    ///
    /// Its discovery cache is in the state folder. kubectl keys the cache in the home folder by address, and the next
    /// control plane may get the same address.
    pub fn kubectl(&self) -> Command {
        let mut command = self.command(&self.tools.kubectl());
        command.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.state.path().join("kubectl-cache"));
        command
    }

    /// A command that can reach this control plane. With a sandbox it runs inside, with `/` as its working folder.
    pub fn command(&self, program: &Path) -> Command {
        self.sandbox.as_ref().map_or_else(|| Command::new(program), |sandbox| sandbox.command(program))
    }

    /// A command that can reach this control plane, has its program's process id, and dies with this process. With a
    /// sandbox it is in that network alone.
    pub fn guarded(&self, program: &Path) -> Command {
        self.sandbox.as_ref().map_or_else(|| guarded(program), |sandbox| sandbox.guarded(program))
    }

    /// Moves this thread, and those that it starts from now on, into the sandbox's network, so that their connections
    /// reach this control plane. They cannot come back. Without a sandbox it does nothing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter_network(&self) -> Result<()> {
        self.sandbox.as_ref().map_or(Ok(()), Sandbox::enter_network)
    }

    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        self.sandbox.as_ref()
    }

    pub(crate) fn config(&self) -> &PlaneConfig {
        &self.config
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
        // The next start on this folder need not look for processes that have stopped.
        let _ = fs::remove_file(self.state.path().join("pids"));
    }
}
