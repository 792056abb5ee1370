//! `daypass roles lint`: what the roles of a cluster, or of rendered manifests, can do.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Config;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::audit::Audit;
use crate::clock::Clock;
use crate::cluster::{Cluster, Rbac};
use crate::domain::rights::Rights;
use crate::domain::role::{ROLE_LABEL, RoleId};
use crate::metrics::Metrics;

/// The admission policies of the chart that members meet. Each closes a way of its own, so one that is not bound counts as all of them.
const WALLS: [&str; 10] = [
    "daypass-member-persistence",
    "daypass-member-reach",
    "daypass-members",
    "daypass-namespaces",
    "daypass-own-namespace",
    "daypass-role-pods",
    "daypass-role-rbac",
    "daypass-role-secrets",
    "daypass-role-serviceaccounts",
    "daypass-role-tokens",
];

/// What there is to look at.
#[derive(Default)]
struct Subject {
    roles: Vec<RoleId>,
    rbac: Rbac,
    /// The policies that are bound by manifests.
    bound: BTreeSet<String>,
    walls: bool,
}

/// What was found: a table for people, and whether every role is contained.
#[derive(Debug)]
pub struct Report {
    /// A line for each role.
    pub table: String,
    /// Whether no role has a way out.
    pub all_contained: bool,
}

/// Looks at these manifests (`-` is standard input), or at the live cluster where there are none.
///
/// # Errors
/// When they cannot be read, or hold no role namespace: an empty answer would look like a clean one.
pub fn lint(files: &[PathBuf]) -> anyhow::Result<Report> {
    let subject = if files.is_empty() { live()? } else { manifests(files)? };
    anyhow::ensure!(!subject.roles.is_empty(), "there is no role namespace");
    Ok(subject.report())
}

impl Subject {
    fn report(&self) -> Report {
        let mut table = format!("{:<32} {:<10} {:<8} {}\n", "ROLE", "READ-ONLY", "STREAMS", "CONTAINED");
        let mut all_contained = true;
        for role in &self.roles {
            let grants = self.rbac.grants(role);
            let known = Rights::of(&grants.rules, self.walls);
            let rights = if grants.unknown { known.and_unknown() } else { known };
            let escapes: Vec<String> = rights.escapes.iter().map(|escape| escape.to_string()).collect();
            all_contained &= escapes.is_empty();
            let contained = if escapes.is_empty() { "yes".to_owned() } else { format!("no: {}", escapes.join(", ")) };
            let yes = |is: bool| if is { "yes" } else { "no" };
            let line = (yes(rights.read_only), yes(rights.streams_outlive_member));
            table.push_str(&format!("{:<32} {:<10} {:<8} {contained}\n", role.as_str(), line.0, line.1));
        }
        Report { table, all_contained }
    }

    fn add(&mut self, object: Value) -> anyhow::Result<()> {
        match object["kind"].as_str().unwrap_or_default() {
            "List" => {
                let Value::Array(items) = object["items"].clone() else { return Ok(()) };
                items.into_iter().try_for_each(|item| self.add(item))?;
            }
            "Namespace" => {
                let meta = read::<Namespace>(object)?.metadata;
                let label = meta.labels.as_ref().and_then(|labels| labels.get(ROLE_LABEL)).map(String::as_str);
                self.roles.extend(meta.name.as_deref().and_then(|name| RoleId::of_namespace(name, label)));
            }
            "ClusterRole" => self.rbac.cluster_roles.push(read(object)?),
            "Role" => self.rbac.roles.push(read(object)?),
            "ClusterRoleBinding" => self.rbac.cluster_bindings.push(read(object)?),
            "RoleBinding" => self.rbac.bindings.push(read(object)?),
            "ValidatingAdmissionPolicyBinding" => {
                self.bound.extend(object["spec"]["policyName"].as_str().map(str::to_owned));
            }
            _ => {}
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(object: Value) -> anyhow::Result<T> {
    let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
    serde_json::from_value(object).with_context(|| format!("{name} cannot be read"))
}

fn manifests(files: &[PathBuf]) -> anyhow::Result<Subject> {
    let rbac = Rbac { is_partial: true, ..Rbac::default() };
    let mut subject = Subject { rbac, ..Subject::default() };
    for file in files {
        let text =
            if file == Path::new("-") { io::read_to_string(io::stdin().lock()) } else { fs::read_to_string(file) };
        let text = text.with_context(|| file.display().to_string())?;
        let objects: Vec<Value> = serde_yaml::from_multiple(&text).with_context(|| file.display().to_string())?;
        objects.into_iter().try_for_each(|object| subject.add(object))?;
    }
    subject.walls = WALLS.iter().all(|policy| subject.bound.contains(*policy));
    Ok(subject)
}

fn live() -> anyhow::Result<Subject> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::infer().await.context("no access to a Kubernetes API server is configured")?;
        let (clock, namespace) = (Clock::default(), config.default_namespace.clone());
        let audit = Audit::new("", clock.clone(), io::sink());
        let cluster = Cluster::new(config, namespace, clock, audit, Metrics::default())?;
        let roles: Vec<RoleId> = cluster.roles().await?.into_iter().map(|role| role.id).collect();
        let walls = match roles.first() {
            Some(role) => cluster.has_walls(role).await?,
            None => false,
        };
        Ok(Subject { rbac: cluster.rbac().await?, roles, walls, ..Subject::default() })
    })
}
