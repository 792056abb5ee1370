//! Measures what the admission policies cost an unrelated write: a ConfigMap in `default`, over one connection, for
//! about a minute (`make bench`). Rounds with and without the policies alternate, so that other changes of the machine
//! affect both.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_local::{Chart, ControlPlane, Options, Tools, fresh_state_dir};
use reqwest::blocking::{Client, Response};
use reqwest::{Certificate, Identity, Method};
use serde_json::{Value, json};

const ROUNDS: usize = 8;
/// The time with the policies, and again without, in each round.
const TURN: Duration = Duration::from_secs(2);
const WARM_UP: usize = 200;
/// The longest that the API server may take to notice a change of policies.
const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

fn main() -> Result<()> {
    let state = fresh_state_dir(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let plane = ControlPlane::start(&Tools::find_or_build()?, &state, Options::default())?;
    let walls = Walls::install(&plane)?;
    let api = Api::new(&plane)?;

    for n in 0..WARM_UP {
        api.write(n)?;
    }
    // Without the policies, with the policies.
    let mut taken = [Samples::default(), Samples::default()];
    let mut written = WARM_UP;
    for _ in 0..ROUNDS {
        for (on, samples) in [false, true].into_iter().zip(&mut taken) {
            walls.set(&api, on)?;
            let end = Instant::now() + TURN;
            while Instant::now() < end {
                let (create, update) = api.write(written)?;
                samples.create.push(create);
                samples.update.push(update);
                written += 1;
            }
        }
    }
    report(taken)?;
    plane.stop()
}

/// How long each write took.
#[derive(Default)]
struct Samples {
    create: Vec<Duration>,
    update: Vec<Duration>,
}

/// The bindings that put the chart's policies in force.
struct Walls<'a> {
    plane: &'a ControlPlane,
    bindings: Value,
}

impl<'a> Walls<'a> {
    fn install(plane: &'a ControlPlane) -> Result<Self> {
        let chart = Chart::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass")))?;
        let values = json!({
            "replicas": 0,
            "dataPlane": {"id": "bench", "server": plane.server_url()},
            "server": {"publicUrl": "https://127.0.0.1:8443"},
        });
        chart.install(plane, &values)?;
        let rendered: Vec<Value> = serde_yaml::from_multiple(&chart.render(plane, &values, &[])?)?;
        let mut bindings: Vec<Value> =
            rendered.into_iter().filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding").collect();
        // The binding that `Api::has_walls` tests comes last: when it is in force, the others are too.
        bindings.sort_by_key(|binding| binding["spec"]["policyName"] == "daypass-role-tokens");
        ensure!(bindings.len() > 1, "the chart renders no policies");
        Ok(Self { plane, bindings: json!({"apiVersion": "v1", "kind": "List", "items": bindings}) })
    }

    /// Creates or deletes the bindings, and waits until the API server has noticed.
    fn set(&self, api: &Api, on: bool) -> Result<()> {
        let mut kubectl = self.plane.kubectl();
        kubectl.args(if on { ["apply", "-f", "-"] } else { ["delete", "-f", "-"] });
        let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("no standard input")?.write_all(self.bindings.to_string().as_bytes())?;
        ensure!(child.wait()?.success(), "kubectl failed");
        let deadline = Instant::now() + DEADLINE;
        while api.has_walls()? != on {
            ensure!(
                Instant::now() < deadline,
                "not within {DEADLINE:?}: the policies are {}",
                if on { "in force" } else { "gone" }
            );
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The API server, as its administrator sees it.
struct Api {
    client: Client,
    url: String,
}

impl Api {
    fn new(plane: &ControlPlane) -> Result<Self> {
        let kubeconfig: Value = serde_yaml::from_str(&std::fs::read_to_string(plane.kubeconfig())?)?;
        let user = &kubeconfig["users"][0]["user"];
        let mut identity = Vec::new();
        for part in ["client-certificate-data", "client-key-data"] {
            identity.extend(STANDARD.decode(user[part].as_str().context(part)?)?);
        }
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(plane.ca_pem().as_bytes())?])
            .identity(Identity::from_pem(&identity)?)
            .pool_max_idle_per_host(1)
            .build()?;
        Ok(Self { client, url: plane.server_url() })
    }

    fn call(&self, method: Method, path: &str, body: &Value) -> Result<Response> {
        Ok(self.client.request(method, format!("{}{path}", self.url)).json(body).send()?)
    }

    /// Creates, changes and deletes a ConfigMap. Returns how long the first two took.
    fn write(&self, n: usize) -> Result<(Duration, Duration)> {
        const ALL: &str = "/api/v1/namespaces/default/configmaps";
        let one = format!("{ALL}/bench-{n}");
        let metadata = json!({"name": format!("bench-{n}")});
        let object =
            |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": value}});
        let timed = |method: Method, path: &str, body: &Value| -> Result<Duration> {
            let start = Instant::now();
            // Reads to the end, so that the next call can use the connection.
            self.call(method, path, body)?.error_for_status()?.bytes()?;
            Ok(start.elapsed())
        };
        let create = timed(Method::POST, ALL, &object("1"))?;
        let update = timed(Method::PUT, &one, &object("2"))?;
        timed(Method::DELETE, &one, &json!({}))?;
        Ok((create, update))
    }

    /// Whether the policies are in force, by a dry run that they refuse.
    fn has_walls(&self) -> Result<bool> {
        let path = "/api/v1/namespaces/daypass-projects-view/serviceaccounts/default/token?dryRun=All";
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = self.call(Method::POST, path, &request)?;
        let status = answer.status().as_u16();
        let text = answer.text()?;
        ensure!(status == 201 || text.contains("Daypass (policy "), "the API server answers {status}: {text}");
        Ok(status != 201)
    }
}

fn report([without, with]: [Samples; 2]) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nA ConfigMap in the namespace default, over one connection; milliseconds")?;
    writeln!(out, "{:<8} {:<22} {:>8} {:>8} {:>8} {:>8}", "", "", "p50", "p90", "p99", "writes")?;
    for (name, without, with) in [("create", without.create, with.create), ("update", without.update, with.update)] {
        let (without, with) = (Summary::of(without)?, Summary::of(with)?);
        for (label, summary) in [("without the policies", &without), ("with the policies", &with)] {
            let [p50, p90, p99] = summary.percentiles;
            writeln!(out, "{name:<8} {label:<22} {p50:>8.2} {p90:>8.2} {p99:>8.2} {:>8}", summary.count)?;
        }
        let [p50, p90, p99] = [0, 1, 2].map(|i| with.percentiles[i] / without.percentiles[i]);
        writeln!(out, "{name:<8} {:<22} {p50:>8.2} {p90:>8.2} {p99:>8.2}", "ratio")?;
    }
    Ok(())
}

struct Summary {
    count: usize,
    /// The 50th, 90th and 99th percentiles, in milliseconds.
    percentiles: [f64; 3],
}

impl Summary {
    fn of(mut samples: Vec<Duration>) -> Result<Self> {
        ensure!(!samples.is_empty(), "nothing was measured");
        samples.sort_unstable();
        let percentiles = [50, 90, 99].map(|percent| samples[(samples.len() - 1) * percent / 100].as_secs_f64() * 1e3);
        Ok(Self { count: samples.len(), percentiles })
    }
}
