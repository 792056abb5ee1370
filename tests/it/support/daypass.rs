//! A Daypass process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use daypass_local::{Process, RELEASE, free_port, guarded};
use serde_json::Value;

use super::cluster::{Cluster, kept_trail};
use super::http::{Http, IDLE};
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

/// How to start a Daypass.
#[derive(Default, Clone)]
pub struct Launch {
    /// Instead of the program under test.
    pub program: Option<PathBuf>,
    /// Instead of the kubeconfig with the chart's rights.
    pub kubeconfig: Option<PathBuf>,
    /// More options of `daypass serve`.
    pub args: Vec<String>,
    /// More environment variables.
    pub env: Vec<(&'static str, &'static str)>,
    /// Listen on IPv6 and call the API server there.
    pub ipv6: bool,
    /// `RUST_LOG`, instead of the usual directives.
    pub log: Option<String>,
    /// Do not wait until it is ready.
    pub impatient: bool,
}

impl Daypass {
    /// Starts one with these options of `daypass serve` in addition to the usual ones.
    pub fn with_args(cluster: &Cluster, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::start(cluster, &Launch { args, ..Launch::default() })
    }

    /// A second replica beside the shared one, with the same options.
    pub fn second() -> &'static Self {
        static SECOND: OnceLock<Daypass> = OnceLock::new();
        // The first to start usually leads.
        let (cluster, _) = Cluster::shared();
        SECOND.get_or_init(|| Self::start(cluster, &Launch::default()))
    }

    /// Starts one and waits until it is ready. Several may run in the same cluster, as replicas do.
    pub fn start(cluster: &Cluster, launch: &Launch) -> Self {
        let folder = cluster.fresh_folder("daypass");
        let (port, admin_port) = (free_port().unwrap(), free_port().unwrap());
        let host = if launch.ipv6 { "[::1]" } else { "127.0.0.1" };
        let url = format!("https://{host}:{port}");
        let admin_url = format!("http://{host}:{admin_port}");
        let program = launch.program.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_daypass")));
        let mut command = guarded(program);
        command.env("KUBECONFIG", launch.kubeconfig.as_ref().unwrap_or(&cluster.kubeconfig));
        // Some tests send many denied requests.
        command.env("DAYPASS_MAX_DENIED_REQUESTS", "1000000");
        // Tests have many roles, and wait for the sweep.
        command.env("DAYPASS_MAX_SWEEP_INTERVAL_SECONDS", "30");
        // So that tests/granted.rs knows every request that a gateway has forwarded.
        command.env("DAYPASS_GATEWAY_AUDIT", "all");
        // A slow machine is no API server that is gone.
        command.env("DAYPASS_GATEWAY_MAX_STALENESS_SECONDS", "60");
        command.env("RUST_LOG", launch.log.as_deref().unwrap_or("daypass=debug,info"));
        command.args(["serve", "--namespace", RELEASE]);
        if !launch.args.iter().any(|arg| arg.starts_with("--data-plane-id")) {
            command.arg("--data-plane-id=dp-1");
        }
        // The gateway does not need it.
        if !launch.args.iter().any(|arg| arg == "--kubeconfig-mode=gateway") {
            command.args(["--data-plane-server", &cluster.plane.server_url().replace("127.0.0.1", host)]);
        }
        command.args(["--public-url", &url]);
        command.args(["--listen", &format!("{host}:{port}"), "--admin-listen", &format!("{host}:{admin_port}")]);
        if !launch.args.iter().any(|arg| arg.starts_with("--max-refused-credentials")) {
            // All tests come from one address.
            command.arg("--max-refused-credentials=1000000");
        }
        if !launch.args.iter().any(|arg| arg.starts_with("--max-denied-requests")) {
            // Tests poll until a right is in force.
            command.arg("--max-denied-requests=1000000");
        }
        command.args(&launch.args).envs(launch.env.iter().copied());
        let trail = folder.join("audit");
        fs::write(&trail, "").unwrap();
        if let Some(kept) = kept_trail(cluster, &folder) {
            fs::hard_link(&trail, kept).unwrap();
        }
        let process = Process::start("daypass", command, &folder.join("log"), Some(&trail)).unwrap();
        let mut daypass =
            Self { process, owner: Http::new(&format!("{url}/dp-1"), cluster.plane.ca_pem()), url, admin_url, folder };
        if !launch.impatient {
            daypass.wait_ready();
            let base = format!("{}/dp-1", daypass.url);
            daypass.owner = Http::new(&base, &cluster.serving_certificate())
                .with_token(&cluster.token("default", "owner", "daypass"));
        }
        daypass
    }

    pub fn wait_ready(&mut self) {
        eventually("Daypass is ready", || {
            self.process.ensure_alive().unwrap();
            let answer = plain_client().get(format!("{}/readyz", self.admin_url)).send().ok();
            // The probe answers before the API has its certificate and listens.
            answer.filter(|answer| answer.status().is_success() && self.log().contains("\"listening\""))
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Sends SIGTERM and waits for its exit.
    pub fn stop(&mut self) {
        self.process.stop(DEADLINE).unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        send_signal(self.pid(), "TERM");
    }

    /// How it exited; `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        self.process.ensure_alive().err().map(|error| error.to_string())
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.ensure_alive().is_ok()
    }

    /// Its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.complete_lines("log")).into_owned()
    }

    /// The audit events that it recorded about a member, by the member's id.
    pub fn audit(&self, member: &str) -> Vec<Value> {
        self.audit_events_with(member).into_iter().filter(|event| event["member"]["id"] == member).collect()
    }

    /// All audit events that it recorded.
    pub fn audit_events(&self) -> Vec<Value> {
        self.audit_events_with("")
    }

    /// The audit events whose line contains a text. Parsing all of the shared trail in a poll takes a second.
    pub fn audit_events_with(&self, text: &str) -> Vec<Value> {
        let lines = String::from_utf8(self.complete_lines("audit")).unwrap();
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The complete lines of a file that it writes.
    fn complete_lines(&self, file: &str) -> Vec<u8> {
        let mut bytes = fs::read(self.folder.join(file)).unwrap();
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(end);
        bytes
    }

    /// A role as its API lists it. A replica knows of a new one a moment after the API server.
    #[track_caller]
    pub fn listed_role(&self, id: &str) -> Value {
        eventually(&format!("the role {id} is listed"), || {
            let roles = self.owner.get("/members/roles").expect(200).json();
            roles["items"].as_array().unwrap().iter().find(|role| role["id"] == id).cloned()
        })
    }

    /// All metrics, as text.
    pub fn metrics(&self) -> String {
        plain_client().get(format!("{}/metrics", self.admin_url)).send().unwrap().text().unwrap()
    }

    /// The value of a metric, whose name includes its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    /// The status and text of a probe.
    pub fn probe(&self, path: &str) -> (u16, String) {
        let answer = plain_client().get(format!("{}{path}", self.admin_url)).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    }
}

/// A client for the admin listener, which has no TLS. Making one loads the system's certificates, which takes longer
/// than a request.
pub fn plain_client() -> &'static reqwest::blocking::Client {
    static CLIENT: OnceLock<reqwest::blocking::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let client = reqwest::blocking::Client::builder().no_proxy().timeout(DEADLINE);
        client.pool_idle_timeout(IDLE).build().unwrap()
    })
}

/// Sends a signal to a child process that has not been waited for, so its id cannot be another's.
pub fn send_signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "SIG{name} to {pid}");
}
