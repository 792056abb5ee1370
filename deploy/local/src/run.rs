//! `make run`: a control plane with Daypass's chart, and Daypass as a process with the chart's ServiceAccount.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::control_plane::{ControlPlane, Options};
use crate::env::RunInfo;
use crate::port::free_port;
use crate::process::{POLL, Process, guarded, output};
use crate::release::{Chart, RELEASE};
use crate::state::write_private;
use crate::tools::Tools;

/// The default state folder of `make run`: `target/run` in this repository.
pub const DEFAULT_STATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/run");
const DATA_PLANE: &str = "local";
/// The ServiceAccount in the namespace `default` that manages members.
const OWNER: &str = "data-plane-owner";
const DEFAULT_PORT: u16 = 8443;
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Daypass drains its connections before it stops.
const GRACE: Duration = Duration::from_secs(20);

/// Options of [`run`].
#[derive(Debug)]
pub struct RunOptions {
    /// The folder for all files of this run.
    pub state_dir: PathBuf,
    /// The path of `daypass`.
    pub daypass: PathBuf,
    /// The chart's folder.
    pub chart: PathBuf,
    /// Restarts Daypass when it dies, as Kubernetes would, instead of failing.
    pub restart: bool,
    /// Stops the run when a signal handler sets it.
    pub interrupt: Arc<AtomicBool>,
}

/// Starts a control plane and Daypass, prints how to try them, and runs until [`RunOptions::interrupt`] is set.
///
/// # Errors
/// When something does not start, and when Daypass or a component dies. The error contains the end of its log.
pub fn run(tools: &Tools, options: &RunOptions) -> Result<()> {
    // First, since the first build of helm takes minutes.
    let chart = Chart::new(&options.chart)?;
    print_line("Starting the control plane …")?;
    let plane_options = Options { interrupt: Arc::clone(&options.interrupt), ..Options::default() };
    let plane = ControlPlane::start(tools, &options.state_dir, plane_options)?;
    let run = Run { options, chart, port: port()?, admin_port: free_port()?, plane };
    run.install()?;
    let mut daypass = run.start_daypass()?;
    if !run.plane.interrupted() {
        print_line(&run.instructions())?;
    }
    let result = run.watch(&mut daypass);
    print_line("Stopping …")?;
    RunInfo::remove(run.plane.state_dir());
    daypass.stop(GRACE)?;
    run.plane.stop()?;
    result
}

struct Run<'a> {
    options: &'a RunOptions,
    chart: Chart,
    port: u16,
    admin_port: u16,
    plane: ControlPlane,
}

impl Run<'_> {
    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }

    /// The commands to try Daypass with, ready to paste.
    fn instructions(&self) -> String {
        let state = self.plane.state_dir();
        let is_default = Path::new(DEFAULT_STATE).canonicalize().is_ok_and(|default| default == state);
        let state_arg = if is_default { String::new() } else { format!(" STATE='{}'", state.display()) };
        let env = format!("make -s env{state_arg}");
        let logs = state.join("logs").display().to_string();
        include_str!("instructions.txt").replace("{url}", &self.url()).replace("{env}", &env).replace("{logs}", &logs)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.plane.state_dir().join(name)
    }

    /// Installs the chart without replicas, since there is no node to run pods.
    fn install(&self) -> Result<()> {
        print_line("Installing Daypass's chart …")?;
        let owner = json!({"kind": "ServiceAccount", "namespace": "default", "name": OWNER});
        let values = json!({
            "replicas": 0,
            "dataPlane": {"id": DATA_PLANE},
            "server": {"publicUrl": self.url()},
            "managers": [owner],
            "accessTokens": {"generateBy": [owner], "manageBy": [owner]},
        });
        self.chart.install(&self.plane, &values)?;
        output(self.plane.kubectl().args(["create", "serviceaccount", OWNER, "-n", "default"]))?;
        self.chart.write_kubeconfig(&self.plane, &self.file("daypass.kubeconfig"))
    }

    /// Starts Daypass, waits until it is ready, and writes `run.json` for `make env`.
    fn start_daypass(&self) -> Result<Process> {
        print_line("Starting Daypass …")?;
        let mut command = guarded(&self.options.daypass);
        command.env("KUBECONFIG", self.file("daypass.kubeconfig"));
        command.args(["serve", "--namespace", RELEASE, "--data-plane-id", DATA_PLANE]);
        command.args(["--public-url", &self.url()]);
        command.args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.args(["--admin-listen", &format!("127.0.0.1:{}", self.admin_port)]);
        let mut daypass = Process::start(RELEASE, command, &self.plane.log(RELEASE), Some(&self.plane.log("audit")))?;
        self.plane.record_pid(daypass.id())?;
        self.wait_ready(&mut daypass)?;
        let info = RunInfo {
            holder: std::process::id(),
            kubeconfig: self.plane.kubeconfig(),
            kubectl_cache: self.file("kubectl-cache"),
            url: self.url(),
            ca: self.write_ca()?,
            data_plane: DATA_PLANE.to_owned(),
            admin_url: self.admin_url(),
            daypass_pid: daypass.id(),
            path: [Some(self.plane.tools().dir()), self.chart.helm_dir(), self.options.daypass.parent()]
                .into_iter()
                .flatten()
                .map(Path::to_owned)
                .collect(),
        };
        info.write(self.plane.state_dir())?;
        Ok(daypass)
    }

    fn wait_ready(&self, daypass: &mut Process) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !returns_ok(self.admin_port, "/readyz") {
            daypass.ensure_alive()?;
            self.plane.check()?;
            if self.plane.interrupted() {
                bail!("interrupted while Daypass was starting");
            }
            if Instant::now() >= deadline {
                bail!("Daypass was not ready within {READY_TIMEOUT:?}; see {}", self.plane.log(RELEASE).display());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Writes Daypass's self-signed certificate to a file, for `curl --cacert`.
    fn write_ca(&self) -> Result<PathBuf> {
        let mut kubectl = self.plane.kubectl();
        kubectl.args(["get", "secret", "daypass-tls", "-n", RELEASE, "-o", r"jsonpath={.data.tls\.crt}"]);
        let pem = STANDARD.decode(output(&mut kubectl)?.trim())?;
        let file = self.file("daypass-ca.crt");
        write_private(&file, &String::from_utf8(pem)?)?;
        Ok(file)
    }

    fn watch(&self, daypass: &mut Process) -> Result<()> {
        while !self.plane.interrupted() {
            self.plane.check()?;
            match daypass.ensure_alive() {
                Ok(()) => thread::sleep(POLL),
                Err(error) if self.options.restart => {
                    print_line(&format!("{error:#}"))?;
                    *daypass = self.start_daypass()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn print_line(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// The documented port if it is free, else any free port.
fn port() -> Result<u16> {
    match TcpListener::bind(("127.0.0.1", DEFAULT_PORT)) {
        Ok(_) => Ok(DEFAULT_PORT),
        Err(_) => free_port(),
    }
}

/// Whether a plain HTTP GET of `path` on this port of 127.0.0.1 returns 200.
fn returns_ok(port: u16, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.") && answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_status_200_is_ready() -> Result<()> {
        for (status, ready) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            let port = listener.local_addr()?.port();
            let server = thread::spawn(move || -> std::io::Result<()> {
                let (mut stream, _) = listener.accept()?;
                // Closing a connection with an unread request would reset it.
                let _ = stream.read(&mut [0; 1024])?;
                write!(stream, "HTTP/1.1 {status}\r\n\r\n")
            });
            assert_eq!(returns_ok(port, "/readyz"), ready);
            assert!(server.join().is_ok());
        }
        assert!(!returns_ok(free_port()?, "/readyz"), "nothing listens on this port");
        Ok(())
    }
}
