//! `daypass roles lint`: what the roles of a cluster, or of rendered manifests, can do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Config;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock::Clock;
use crate::cluster::{Cluster, Rbac, Walls};
use crate::domain::rights::Rights;
use crate::domain::role::{ROLE_LABEL, RoleId};
use crate::domain::walls::{OwnAccount, WALLS, Wall};
use crate::observability::metrics::Metrics;

/// The walls name Daypass, so whose they are has to be known.
const UNBOUND: &str = "no RoleBinding in a role's namespace says which account is Daypass's";

/// What there is to look at.
#[derive(Default)]
struct Subject {
    roles: Vec<RoleId>,
    rbac: Rbac,
    /// The `spec` of each policy and of each binding in manifests, by name.
    policies: BTreeMap<String, Value>,
    bindings: BTreeMap<String, Value>,
    walls: Walls,
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
            let known = Rights::of(&grants.rules, self.walls.stand());
            let rights = if grants.unknown { known.and_unknown() } else { known };
            let escapes: Vec<String> = rights.escapes.iter().map(|escape| escape.to_string()).collect();
            all_contained &= escapes.is_empty();
            let contained = if escapes.is_empty() { "yes".to_owned() } else { format!("no: {}", escapes.join(", ")) };
            let yes = |is: bool| if is { "yes" } else { "no" };
            let line = (yes(rights.read_only), yes(rights.streams_outlive_member));
            table.push_str(&format!("{:<32} {:<10} {:<8} {contained}\n", role.as_str(), line.0, line.1));
        }
        if !self.walls.stand() {
            table.push_str(&format!("The walls are not in force: {}\n", self.walls.faults.join("; ")));
        }
        Report { table, all_contained }
    }

    /// Daypass's own account: the walls are around one installation.
    fn own_account(&self) -> Option<OwnAccount> {
        self.rbac.own_account(self.roles.first()?)
    }

    fn faults(&self, own: &OwnAccount) -> Vec<String> {
        let fault = |wall: &Wall| {
            let fault = wall.fault(own, self.policies.get(wall.name), self.bindings.get(wall.name))?;
            Some(format!("{}: {fault}", wall.name))
        };
        WALLS.iter().filter_map(fault).collect()
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
            "ValidatingAdmissionPolicy" => self.policies.extend(named_spec(&object)),
            "ValidatingAdmissionPolicyBinding" => self.bindings.extend(named_spec(&object)),
            _ => {}
        }
        Ok(())
    }
}

fn named_spec(object: &Value) -> Option<(String, Value)> {
    Some((object["metadata"]["name"].as_str()?.to_owned(), object["spec"].clone()))
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
    subject.walls.faults = match subject.own_account() {
        Some(own) => subject.faults(&own),
        None => vec![UNBOUND.to_owned()],
    };
    Ok(subject)
}

fn live() -> anyhow::Result<Subject> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::infer().await.context("no access to a Kubernetes API server is configured")?;
        let (clock, namespace) = (Clock::default(), config.default_namespace.clone());
        let cluster = Cluster::new(config, namespace, clock, Metrics::default())?;
        let roles: Vec<RoleId> = cluster.roles().await?.into_iter().map(|role| role.id).collect();
        let mut subject = Subject { rbac: cluster.rbac().await?, roles, ..Subject::default() };
        subject.walls = match (subject.own_account(), subject.roles.first()) {
            (Some(own), Some(role)) => cluster.look_at_walls(&own, role).await?,
            _ => Walls { faults: vec![UNBOUND.to_owned()], made_at: None },
        };
        Ok(subject)
    })
}
