//! A Daypass process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use daypass_local::{Process, RELEASE, free_port, guarded};
use serde_json::Value;

use super::http::Http;
use super::lab::Lab;
use super::{DEADLINE, eventually};

/// A running Daypass; killed when dropped.
pub struct Daypass {
    process: Process,
    pub url: String,
    pub admin_url: String,
    folder: PathBuf,
    /// The owner of the data plane: a client with every right on members.
    pub owner: Http,
}

/// How a Daypass is started.
#[derive(Default, Clone)]
pub struct Launch {
    /// Another kubeconfig than the one with the chart's rights.
    pub kubeconfig: Option<PathBuf>,
    /// More options of `daypass serve`.
    pub args: Vec<String>,
    /// The directives of its log (`RUST_LOG`), where they are others than the usual ones.
    pub log: Option<String>,
    /// Do not wait until it is ready.
    pub impatient: bool,
}

impl Daypass {
    /// Starts one beside `lab` and waits until it is ready. Several may run beside the same one, as replicas do.
    pub fn start(lab: &Lab, launch: &Launch) -> Self {
        let folder = lab.fresh_folder("daypass");
        let (port, admin_port) = (free_port().unwrap(), free_port().unwrap());
        let url = format!("https://127.0.0.1:{port}");
        let admin_url = format!("http://127.0.0.1:{admin_port}");
        let mut command = guarded(Path::new(env!("CARGO_BIN_EXE_daypass")));
        command.env("KUBECONFIG", launch.kubeconfig.as_ref().unwrap_or(&lab.kubeconfig));
        // Some tests ask for much that they may not have.
        command.env("DAYPASS_MAX_DENIED_REQUESTS", "1000000");
        command.env("RUST_LOG", launch.log.as_deref().unwrap_or("daypass=debug,info"));
        command.args(["serve", "--namespace", RELEASE]);
        if !launch.args.iter().any(|arg| arg.starts_with("--data-plane-id")) {
            command.arg("--data-plane-id=dp-1");
        }
        command.args(["--data-plane-server", &lab.plane.server_url(), "--public-url", &url]);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin-listen", &format!("127.0.0.1:{admin_port}")]);
        if !launch.args.iter().any(|arg| arg.starts_with("--max-refused-credentials")) {
            // All tests come from one address.
            command.arg("--max-refused-credentials=1000000");
        }
        if !launch.args.iter().any(|arg| arg.starts_with("--max-denied-requests")) {
            // A test asks again and again until it is denied no more.
            command.arg("--max-denied-requests=1000000");
        }
        command.args(&launch.args);
        let process = Process::start("daypass", command, &folder.join("log"), Some(&folder.join("audit"))).unwrap();
        let mut daypass =
            Self { process, owner: Http::new(&format!("{url}/dp-1"), lab.plane.ca_pem()), url, admin_url, folder };
        if !launch.impatient {
            daypass.wait_ready();
            let base = format!("{}/dp-1", daypass.url);
            daypass.owner =
                Http::new(&base, &lab.serving_certificate()).with_token(&lab.token("default", "owner", "daypass"));
        }
        daypass
    }

    pub fn wait_ready(&mut self) {
        eventually("Daypass is ready", || {
            self.process.ensure_alive().unwrap();
            let admin = reqwest::blocking::get(format!("{}/readyz", self.admin_url)).ok();
            // The probe answers before the API listens, which waits for its certificate.
            admin.filter(|answer| answer.status().is_success() && self.log().contains("\"listening\""))
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        self.process.stop(DEADLINE).unwrap();
    }

    /// SIGTERM, without waiting for its end.
    pub fn terminate(&self) {
        send_signal(self.pid(), "TERM");
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<String> {
        self.process.ensure_alive().err().map(|error| error.to_string())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.ensure_alive().is_ok()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.complete_lines("log")).into_owned()
    }

    /// The audit events that it recorded about a member, by the member's id.
    pub fn audit(&self, member: &str) -> Vec<Value> {
        self.audit_events().into_iter().filter(|event| event["member"]["id"] == member).collect()
    }

    /// All audit events that it recorded.
    pub fn audit_events(&self) -> Vec<Value> {
        let lines = self.complete_lines("audit");
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// What it has written into a file, without a line that it may just be writing.
    fn complete_lines(&self, file: &str) -> Vec<u8> {
        let mut bytes = fs::read(self.folder.join(file)).unwrap();
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(end);
        bytes
    }

    /// All metrics, as text.
    pub fn metrics(&self) -> String {
        reqwest::blocking::get(format!("{}/metrics", self.admin_url)).unwrap().text().unwrap()
    }

    /// The value of a metric, whose name includes its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    /// The status and text of a probe.
    pub fn probe(&self, path: &str) -> (u16, String) {
        let client = reqwest::blocking::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let answer = client.get(format!("{}{path}", self.admin_url)).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }
}

/// Sends a signal to a process that this one started and has not waited for, so that the id is still its.
pub fn send_signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "SIG{name} to {pid}");
}
