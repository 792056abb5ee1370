//! A real control plane with Daypass's chart, and Daypass as a process in it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::{
    Chart, Component, ControlPlane, Node, Options, Process, RELEASE, Tools, free_port, fresh_state_dir,
};
use serde_json::{Value, json};

use crate::http::Http;
use crate::progress;

/// The roles that members are created in.
pub(crate) const ROLES: [&str; 3] = ["projects-view", "nodes-view", "storage-view"];
/// The role of those who may run commands in pods, and the namespace of these.
pub(crate) const DEBUG_ROLE: &str = "pods-debug";
pub(crate) const PODS: &str = "pods";
/// The group of Daypass's own CRDs.
pub(crate) const GROUP: &str = "daypass.dev";
/// The group of the copy of Daypass's CRDs that the bare client uses, and the namespace that it works in.
pub(crate) const TWIN_GROUP: &str = "bench.daypass.dev";
pub(crate) const TWIN_NAMESPACE: &str = "bench-bare";
/// Daypass's own user.
const DAYPASS_USER: &str = "system:serviceaccount:daypass:daypass";

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/charts/daypass");
const DATA_PLANE: &str = "bench";
/// The longest wait for a start.
const START: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(10);
/// What the kernel counts CPU time in.
const TICKS_A_SECOND: f64 = 100.0;

/// A control plane with the chart, and clients of it.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) admin: Http,
    /// A token of the caller that manages members, for Daypass.
    pub(crate) owner_token: String,
    /// A token of Daypass's own service account, for the API server.
    pub(crate) daypass_token: String,
    program: PathBuf,
    starts: AtomicUsize,
}

impl Cluster {
    /// Starts a control plane in a new folder below `parent`, and installs the chart. With a sandbox, a node can join,
    /// there is a role for [`PODS`], and this thread is in that network from then on.
    pub(crate) fn start(program: &Path, parent: &Path, sandbox: bool) -> Result<Self> {
        progress("starting a control plane");
        let chart = Chart::new(Path::new(CHART))?;
        if sandbox {
            // The first build takes minutes, which no section has.
            Node::prepare()?;
        }
        let options = Options { sandbox, ..Options::default() };
        let plane = ControlPlane::start(&Tools::find_or_build()?, &fresh_state_dir(parent)?, options)?;
        plane.enter_network()?;
        let mut values = values(&plane);
        if sandbox {
            kubectl(&plane, &["create", "namespace", PODS])?;
            values["roles"][DEBUG_ROLE] = json!({"enabled": true, "namespaces": [PODS]});
        }
        // Before the chart, whose installation restarts the controller manager: only then does it count a quota of
        // these objects at once.
        apply(&plane, &twin(&chart, &plane, &["templates/crds.yaml"])?)?;
        chart.install(&plane, &values)?;
        let templates = ["templates/walls.yaml", "templates/roles/namespaces.yaml", "templates/roles/bindings.yaml"];
        apply(&plane, &twin(&chart, &plane, &templates)?)?;
        // Daypass may read its own Members in all namespaces; the copies need the same.
        let resource = format!("--resource=members.{TWIN_GROUP}");
        let read = ["create", "role", "read", "-n", TWIN_NAMESPACE, "--verb=get", "--verb=list", &resource];
        kubectl(&plane, &read)?;
        let subject = "--serviceaccount=daypass:daypass";
        kubectl(&plane, &["create", "rolebinding", "read", "-n", TWIN_NAMESPACE, "--role=read", subject])?;
        kubectl(&plane, &["create", "serviceaccount", "owner", "-n", "default"])?;
        let audience = ["create", "token", "owner", "-n", "default", "--audience=daypass", "--duration=24h"];
        let owner_token = kubectl(&plane, &audience)?;
        let daypass_token = kubectl(&plane, &["create", "token", RELEASE, "-n", RELEASE, "--duration=24h"])?;
        chart.write_kubeconfig(&plane, &plane.state_dir().join("daypass.kubeconfig"))?;
        let (admin, program) = (Http::admin(&plane)?, program.to_owned());
        let cluster = Self { plane, admin, owner_token, daypass_token, program, starts: AtomicUsize::new(0) };
        eventually("the quota is counted", Instant::now() + START, || {
            let path = format!("/api/v1/namespaces/{TWIN_NAMESPACE}/resourcequotas/daypass");
            Ok(cluster.admin.get(&path)?["status"]["used"][format!("count/members.{TWIN_GROUP}")].is_string())
        })?;
        Ok(cluster)
    }

    /// Starts Daypass and waits until it is ready.
    pub(crate) fn daypass(&self) -> Result<Daypass> {
        self.daypass_with(&[])
    }

    /// The same with more options.
    pub(crate) fn daypass_with(&self, options: &[&str]) -> Result<Daypass> {
        let (port, admin_port) = (free_port()?, free_port()?);
        let (url, admin) = (format!("https://127.0.0.1:{port}"), format!("127.0.0.1:{admin_port}"));
        let mut command = self.plane.guarded(&self.program);
        command.env("KUBECONFIG", self.plane.state_dir().join("daypass.kubeconfig"));
        command.args(["serve", "--namespace", RELEASE, "--data-plane-id", DATA_PLANE]);
        command.args(["--data-plane-server", &self.plane.server_url(), "--public-url", &url]);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin-listen", &admin]);
        // The clients that ask until a member is refused have one address.
        command.arg("--max-refused-credentials=1000000").args(options);
        let name = format!("daypass-{}", self.starts.fetch_add(1, Ordering::Relaxed));
        let (log, audit) = (self.plane.log(&name), self.plane.log(&format!("{name}-audit")));
        let probe = Http::plain(&format!("http://{admin}"), None)?;
        let started = Instant::now();
        let mut process = Process::start(&name, command, &log, Some(&audit))?;
        eventually("Daypass is ready", started + START, || {
            process.ensure_alive()?;
            Ok(probe.get("/readyz").is_ok() && TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        let ready = started.elapsed();
        let secret = self.admin.get(&format!("/api/v1/namespaces/{RELEASE}/secrets/daypass-tls"))?;
        let certificate = STANDARD.decode(secret["data"]["tls.crt"].as_str().context("no certificate")?)?;
        let api =
            Http::daypass(&format!("{url}/{DATA_PLANE}"), std::str::from_utf8(&certificate)?, &self.owner_token)?;
        Ok(Daypass { process, started, ready, api })
    }

    /// Runs kubectl as the administrator and returns what it prints.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Result<String> {
        kubectl(&self.plane, args)
    }

    /// The length of the API server's audit log.
    pub(crate) fn audit_length(&self) -> Result<u64> {
        Ok(fs::metadata(self.plane.audit_log())?.len())
    }

    /// How many calls of Daypass the API server's audit log has after this length.
    pub(crate) fn calls_since(&self, length: u64) -> Result<usize> {
        let mut file = File::open(self.plane.audit_log())?;
        file.seek(SeekFrom::Start(length))?;
        let user = format!("\"username\":\"{DAYPASS_USER}\"");
        let mut calls = 0;
        for line in BufReader::new(file).lines() {
            let line = line?;
            calls += usize::from(line.contains("\"stage\":\"ResponseComplete\"") && line.contains(&user));
        }
        Ok(calls)
    }

    /// The CPU time of the API server so far, in seconds.
    pub(crate) fn apiserver_cpu(&self) -> Result<f64> {
        cpu(self.plane.pid(Component::ApiServer).context("the API server does not run")?)
    }

    /// How many Members, service accounts of members and Secrets of kubeconfigs exist in role namespaces.
    pub(crate) fn leftovers(&self) -> Result<usize> {
        let mut count = 0;
        for role in ROLES {
            let members = format!("/apis/daypass.dev/v1alpha1/namespaces/daypass-{role}/members");
            let namespace = format!("/api/v1/namespaces/daypass-{role}");
            for (path, others) in
                [(members, 0), (format!("{namespace}/serviceaccounts"), 1), (format!("{namespace}/secrets"), 0)]
            {
                let list = self.admin.get(&path)?;
                count += list["items"].as_array().context("no list")?.len().saturating_sub(others);
            }
        }
        Ok(count)
    }
}

/// A Daypass process.
pub(crate) struct Daypass {
    process: Process,
    pub(crate) started: Instant,
    /// How long it took to be ready.
    pub(crate) ready: Duration,
    /// Its REST API, as the owner of the data plane.
    pub(crate) api: Http,
}

impl Daypass {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its CPU time so far, in seconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        cpu(self.process.id())
    }

    /// Its resident memory, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        memory(self.process.id())
    }

    /// SIGTERM, so that it gives up its Lease.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.stop(START)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Creates a member and returns its id and its password.
    pub(crate) fn create(&self, role: &str) -> Result<(String, String)> {
        let body = json!({
            "duration": 1, "roleId": role, "username": "Support team",
            "description": "Case 4711, the nightly job fails",
        });
        let credentials = &self.api.call("POST", "/members", &body)?["credentials"];
        let text = |field: &str| credentials[field].as_str().map(str::to_owned).context("no credentials");
        Ok((text("username")?, text("password")?))
    }
}

/// The resident memory of a process, in MiB.
pub(crate) fn memory(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// The CPU time of a process so far, in seconds: fields 14 and 15 of proc_pid_stat(5).
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, is in parentheses and may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at - 3).context("short stat")?.parse::<f64>()?) };
    Ok((ticks(14)? + ticks(15)?) / TICKS_A_SECOND)
}

/// The values of the chart.
fn values(plane: &ControlPlane) -> Value {
    let owner = json!({"kind": "ServiceAccount", "namespace": "default", "name": "owner"});
    json!({
        "replicas": 0,
        "dataPlane": {"id": DATA_PLANE, "server": plane.server_url()},
        "server": {"publicUrl": "https://127.0.0.1:8443"},
        // Daypass may do what the gateway needs. Which kubeconfigs there are is an option of each process.
        "kubeconfig": {"mode": "both"},
        "managers": [owner],
        "accessTokens": {"generateBy": [owner], "manageBy": [owner]},
        "roles": {"pods-restart": {"enabled": false}},
        "maxMembersPerRole": 10_000,
    })
}

/// What the chart renders from these templates for a role `bare`, in an API group and with names of its own. Daypass
/// leaves these objects alone, and the same policies and quotas hold for them.
fn twin(chart: &Chart, plane: &ControlPlane, templates: &[&str]) -> Result<String> {
    let mut values = values(plane);
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    values["roles"] = json!({"pods-restart": {"enabled": false}, "bare": {"rules": rules}});
    for role in ROLES {
        values["roles"][role] = json!({"enabled": false});
    }
    let rendered = chart.render(plane, &values, templates)?;
    let rendered = rendered.replace(GROUP, TWIN_GROUP).replace("daypass-", "bench-");
    let mut objects: Vec<Value> = serde_yaml::from_multiple(&rendered)?;
    // Copies of the other policies would bind what is Daypass's own.
    objects.retain(|object| {
        let is_policy = object["kind"].as_str().is_some_and(|kind| kind.starts_with("ValidatingAdmissionPolicy"));
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        !object.is_null() && (!is_policy || name.starts_with("bench-role-") || name == "bench-members")
    });
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())
}

/// Applies manifests as the administrator.
pub(crate) fn apply(plane: &ControlPlane, manifests: &str) -> Result<()> {
    feed(plane.kubectl().args(["apply", "--server-side", "-f", "-"]), manifests)
}

/// Runs a command with this standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    ensure!(child.wait()?.success(), "{command:?} failed");
    Ok(())
}

fn kubectl(plane: &ControlPlane, args: &[&str]) -> Result<String> {
    let output = plane.kubectl().args(args).output()?;
    ensure!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Polls until `poll` returns true.
///
/// # Errors
/// When it fails, or has not returned true by then.
pub(crate) fn eventually(what: &str, until: Instant, mut poll: impl FnMut() -> Result<bool>) -> Result<()> {
    while !poll()? {
        if Instant::now() >= until {
            bail!("not in time: {what}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}
