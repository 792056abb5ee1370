//! Compares the API servers' audit logs of a whole test run with the chart's RBAC: every request of Daypass was
//! granted, and every granted right was used. Nothing that the gateway forwarded bore Daypass's user. `make test`
//! keeps the logs and runs this last.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic, in its helpers as well")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt};

use chrono::{DateTime, TimeDelta, Utc};
use daypass_local::Tools;
use serde_json::Value;

const DAYPASS: &str = "system:serviceaccount:daypass:daypass";
/// For this long after a binding's creation or deletion the API server may act on the old state.
const NOTICED: TimeDelta = TimeDelta::seconds(60);

/// Where a right is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Cluster,
    OwnNamespace,
    RoleNamespaces,
}

impl Scope {
    /// Of the namespace that a binding is in.
    fn of(namespace: &str) -> Self {
        match namespace {
            "" => Self::Cluster,
            "daypass" => Self::OwnNamespace,
            _ => Self::RoleNamespaces,
        }
    }
}

/// The smallest thing that RBAC grants: one verb on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    scope: Scope,
    verb: String,
    /// `resource.group`, or the path that is no resource.
    target: String,
    /// Set if the right is for an object of this name only.
    name: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, verb, target, name } = self;
        write!(f, "{scope:?}: {verb} {target}{}", name.as_ref().map(|name| format!(" {name}")).unwrap_or_default())
    }
}

/// A request of Daypass and the authorizer's decision.
struct Request {
    time: DateTime<Utc>,
    namespace: String,
    verb: String,
    target: String,
    name: String,
    allowed: bool,
    /// The namespace of the chart's binding that allowed it, empty for a ClusterRoleBinding; `None` otherwise.
    binding: Option<String>,
}

impl Request {
    fn of(event: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if event["user"]["username"] != DAYPASS || event.get("impersonatedUser").is_some() {
            return None;
        }
        let decision = event["annotations"]["authorization.k8s.io/decision"].as_str()?;
        let object = &event["objectRef"];
        let target = match object["resource"].as_str() {
            None => text(&event["requestURI"]).split('?').next().unwrap().to_owned(),
            Some(resource) => {
                let subresource = object["subresource"].as_str().map(|it| format!("/{it}")).unwrap_or_default();
                format!("{resource}{subresource}.{}", object["apiGroup"].as_str().unwrap_or_default())
            }
        };
        let reason = text(&event["annotations"]["authorization.k8s.io/reason"]);
        Some(Self {
            time: event["requestReceivedTimestamp"].as_str()?.parse().unwrap(),
            namespace: text(&object["namespace"]),
            verb: text(&event["verb"]),
            target,
            name: text(&object["name"]),
            allowed: decision == "allow",
            binding: binding(&reason),
        })
    }

    fn describe(&self, log: &Path) -> String {
        let Self { verb, target, namespace, name, .. } = self;
        format!("{}: {verb} {target} {namespace}/{name}", log.file_name().unwrap().display())
    }

    /// Whether this right covers it.
    fn is_by(&self, right: &Right) -> bool {
        self.verb == right.verb && self.target == right.target && right.name.as_ref().is_none_or(|it| *it == self.name)
    }
}

/// The chart's binding in the authorizer's reason: `RBAC: allowed by RoleBinding "daypass/daypass-x" of Role …`.
fn binding(reason: &str) -> Option<String> {
    let named = |kind: &str| reason.strip_prefix(&format!("RBAC: allowed by {kind} \""))?.split('"').next();
    if named("ClusterRoleBinding") == Some("daypass") {
        return Some(String::new());
    }
    let (name, namespace) = named("RoleBinding")?.split_once('/')?;
    (name == "daypass").then(|| namespace.to_owned())
}

/// One control plane's log.
#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    /// When Daypass's binding in each role namespace was created, and when it or the namespace was deleted.
    bound: BTreeMap<String, DateTime<Utc>>,
    unbound: BTreeMap<String, DateTime<Utc>>,
    /// Whether a test took rights away.
    expects_refusals: bool,
}

impl Log {
    fn read(file: &Path) -> Self {
        let mut log = Self { expects_refusals: file.with_extension("refusals").exists(), ..Self::default() };
        for line in BufReader::new(File::open(file).unwrap()).lines() {
            let line = line.unwrap();
            // Most lines are about others. The last one may be incomplete.
            if !line.contains(DAYPASS) && !line.contains("\"rolebindings\"") && !line.contains("\"delete\"") {
                continue;
            }
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            log.note_binding(&event);
            log.requests.extend(Request::of(&event));
        }
        log
    }

    fn note_binding(&mut self, event: &Value) {
        let object = &event["objectRef"];
        let (text, verb) = (|key: &str| object[key].as_str().unwrap_or_default(), event["verb"].as_str());
        let namespace = match text("resource") {
            "rolebindings" if text("name") == "daypass" => text("namespace"),
            "namespaces" if verb == Some("delete") => text("name"),
            _ => return,
        };
        let Some(time) = event["stageTimestamp"].as_str().and_then(|time| time.parse().ok()) else { return };
        match verb {
            Some("create") => self.bound.insert(namespace.to_owned(), time),
            Some("delete") if !self.unbound.contains_key(namespace) => self.unbound.insert(namespace.to_owned(), time),
            _ => None,
        };
    }

    /// Whether Daypass's binding in that role namespace was too new, or deleted.
    fn is_around_binding(&self, request: &Request) -> bool {
        let namespace = &request.namespace;
        Scope::of(namespace) == Scope::RoleNamespaces
            && (self.bound.get(namespace).is_none_or(|made| request.time < *made + NOTICED)
                || self.unbound.get(namespace).is_some_and(|gone| request.time + NOTICED > *gone))
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// The rights of a rule.
fn rights(scope: Scope, rule: &Value) -> Vec<Right> {
    let mut targets = texts(&rule["nonResourceURLs"]);
    for group in texts(&rule["apiGroups"]) {
        targets.extend(texts(&rule["resources"]).iter().map(|resource| format!("{resource}.{group}")));
    }
    let names = match texts(&rule["resourceNames"]) {
        names if names.is_empty() => vec![None],
        names => names.into_iter().map(Some).collect(),
    };
    let mut rights = Vec::new();
    for verb in texts(&rule["verbs"]) {
        for target in &targets {
            assert!(verb != "*" && !target.contains('*'), "{rule} is more than anybody can use");
            let right = |name: &Option<String>| Right {
                scope,
                verb: verb.clone(),
                target: target.clone(),
                name: name.clone(),
            };
            rights.extend(names.iter().map(right));
        }
    }
    rights
}

/// The rights that the chart's rendered bindings grant to Daypass.
fn granted() -> BTreeSet<Right> {
    let mut helm = Command::new(Tools::helm().unwrap());
    helm.args(["template", "daypass", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/charts/daypass"), "-n", "daypass"]);
    // With the rights for both kinds of kubeconfigs, as the tests install it.
    helm.args(["--skip-tests", "--set", "dataPlane.id=dp-1,dataPlane.server=https://192.0.2.1,kubeconfig.mode=both"]);
    let output = helm.args(["--set", "server.publicUrl=https://daypass.example.com"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let objects: Vec<Value> = serde_yaml::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let field =
        |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut granted = BTreeSet::new();
    for binding in &objects {
        let is_daypass = |subject: &Value| {
            subject["kind"] == "ServiceAccount" && subject["name"] == "daypass" && subject["namespace"] == "daypass"
        };
        if !binding["subjects"].as_array().into_iter().flatten().any(is_daypass) {
            continue;
        }
        let namespace = field(binding, "/metadata/namespace");
        let is_its = |role: &&Value| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
                && field(role, "/metadata/namespace") == namespace
        };
        let role = objects.iter().find(is_its).expect("the chart has the roles that it binds");
        let rules = role["rules"].as_array().unwrap();
        granted.extend(rules.iter().flat_map(|rule| rights(Scope::of(&namespace), rule)));
    }
    assert!(!granted.is_empty(), "the chart binds Daypass to something");
    granted
}

/// The files of the test run with this extension.
fn files(extension: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env::var_os("DAYPASS_AUDIT_LOGS").expect("`make test` sets DAYPASS_AUDIT_LOGS"));
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|end| end == extension)).collect()
}

fn logs() -> Vec<(PathBuf, Log)> {
    files("log").into_iter().map(|file| (file.clone(), Log::read(&file))).collect()
}

/// The complete events in a file: the last one may be cut off.
fn events(file: &Path) -> impl Iterator<Item = Value> {
    BufReader::new(File::open(file).unwrap()).lines().filter_map(|line| serde_json::from_str(&line.unwrap()).ok())
}

/// The requests that the gateways forwarded, by their `Audit-ID`, and the member of each.
fn forwarded() -> BTreeMap<String, String> {
    let mut forwarded = BTreeMap::new();
    for event in files("trail").iter().flat_map(|file| events(file)) {
        let text = |value: &Value| value.as_str().expect("a forwarded request has it").to_owned();
        if let Some("STREAM_OPENED" | "REQUEST_FORWARDED") = event["event"].as_str() {
            forwarded.insert(text(&event["requestId"]), text(&event["member"]["id"]));
        }
    }
    forwarded
}

/// A forwarded request bears the member's service account, and nobody else's.
#[test]
#[ignore = "`make test` runs it after all others"]
fn forwarded_requests_bear_their_members_user() {
    let forwarded = forwarded();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for event in files("log").iter().flat_map(|file| events(file)) {
        let id = event["auditID"].as_str().unwrap_or_default();
        let Some((role, name)) = forwarded.get(id).and_then(|member| member.split_once('.')) else { continue };
        let user = event["user"]["username"].as_str().unwrap_or_default();
        // The member's token has just ended: it is nobody's.
        if user.is_empty() && event["responseStatus"]["code"] == 401 {
            continue;
        }
        assert_eq!(user, format!("system:serviceaccount:daypass-{role}:{name}"), "{event}");
        assert!(event.get("impersonatedUser").is_none(), "{event}");
        seen.insert(id.to_owned());
    }
    println!("{} requests through the gateway, {} of them in the API servers' logs", forwarded.len(), seen.len());
    // Others were broken off before they arrived.
    assert!(seen.len() > 100, "the gateway's tests send many");
}

#[test]
#[ignore = "`make test` runs it after all others"]
fn requests_are_granted_and_every_right_is_used() {
    let granted = granted();
    let logs = logs();
    let mut used: BTreeMap<&Right, usize> = granted.iter().map(|right| (right, 0)).collect();
    let (mut total, mut early) = (0, 0);
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    for (file, log) in &logs {
        for request in &log.requests {
            total += 1;
            if let Some(binding) = &request.binding {
                let right = granted.iter().find(|right| right.scope == Scope::of(binding) && request.is_by(right));
                *used.entry(right.expect("what was allowed is granted")).or_default() += 1;
            }
            if request.allowed {
                continue;
            }
            // Daypass never asks for what the chart grants nowhere, even after a test took rights away.
            let place = Scope::of(&request.namespace);
            let is_granted =
                |right: &&Right| (right.scope == Scope::Cluster || right.scope == place) && request.is_by(right);
            if granted.iter().any(|right| is_granted(&right))
                && (log.expects_refusals || log.is_around_binding(request))
            {
                early += 1;
                continue;
            }
            *refused.entry(request.describe(file)).or_default() += 1;
        }
    }
    println!(
        "{} control planes, {total} requests of Daypass, {early} refused around a change of rights by a test",
        logs.len()
    );
    for (right, count) in &used {
        println!("{count:>8} {right}");
    }
    let unused: Vec<String> =
        used.iter().filter(|(_, count)| **count == 0).map(|(right, _)| right.to_string()).collect();
    assert!(total > 0, "no request of Daypass is in any log");
    assert!(refused.is_empty(), "refused, where no test called Cluster::expect_refusals: {refused:#?}");
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
}
