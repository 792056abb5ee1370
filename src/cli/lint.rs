//! `daypass roles lint`: shows what the roles of a cluster, or of rendered manifests, can do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::kubernetes_config;
use crate::clock::Clock;
use crate::cluster::{Cluster, Rbac, RbacKind, Walls};
use crate::domain::role::{ROLE_LABEL, RoleId};
use crate::domain::walls::{OwnAccount, WALLS, Wall};
use crate::observability::metrics::Metrics;

/// The fault when Daypass's account is unknown. The walls exempt it, so without its name they cannot be compared.
const UNBOUND: &str = "no RoleBinding in a role namespace tells which service account is Daypass's";

/// The objects to lint.
#[derive(Default)]
struct Input {
    roles: Vec<RoleId>,
    rbac: Rbac,
    /// The `spec` of each policy in the manifests, by name.
    policies: BTreeMap<String, Value>,
    /// The `spec` of each policy binding in the manifests, by name.
    bindings: BTreeMap<String, Value>,
    walls: Walls,
}

/// The result of a lint.
#[derive(Debug)]
pub struct Report {
    /// The table to print, one line for each role.
    pub table: String,
    /// Whether no role can escape its limits.
    pub all_contained: bool,
}

/// Lints these manifests (`-` is standard input), or the live cluster if there are none.
///
/// # Errors
/// When the manifests or the cluster cannot be read, or contain no role namespace: an empty report would look like a
/// clean one.
pub fn lint(files: &[PathBuf]) -> anyhow::Result<Report> {
    let input = if files.is_empty() { live()? } else { manifests(files)? };
    anyhow::ensure!(!input.roles.is_empty(), "found no role namespace");
    Ok(input.report())
}

impl Input {
    fn report(&self) -> Report {
        let mut table = format!("{:<32} {:<10} {:<8} {}\n", "ROLE", "READ-ONLY", "STREAMS", "CONTAINED");
        let mut all_contained = true;
        for role in &self.roles {
            let rights = self.rbac.grants(role).rights(self.walls.stand());
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

    /// Daypass's own account, the same for every role.
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
            "ValidatingAdmissionPolicy" => self.policies.extend(named_spec(&object)),
            "ValidatingAdmissionPolicyBinding" => self.bindings.extend(named_spec(&object)),
            kind => {
                let is_readable = RbacKind::of(kind).is_none_or(|kind| self.rbac.add(kind, &object));
                anyhow::ensure!(is_readable, "could not read {}", named(&object));
            }
        }
        Ok(())
    }
}

fn named(object: &Value) -> String {
    format!("{} {}", object["kind"], object["metadata"]["name"])
}

fn named_spec(object: &Value) -> Option<(String, Value)> {
    Some((object["metadata"]["name"].as_str()?.to_owned(), object["spec"].clone()))
}

fn read<T: DeserializeOwned>(object: Value) -> anyhow::Result<T> {
    let name = named(&object);
    serde_json::from_value(object).with_context(|| format!("could not read {name}"))
}

fn manifests(files: &[PathBuf]) -> anyhow::Result<Input> {
    let mut input = Input { rbac: Rbac::of_manifests(), ..Input::default() };
    for file in files {
        let text =
            if file == Path::new("-") { io::read_to_string(io::stdin().lock()) } else { fs::read_to_string(file) };
        let text = text.with_context(|| file.display().to_string())?;
        let objects: Vec<Value> = serde_yaml::from_multiple(&text).with_context(|| file.display().to_string())?;
        objects.into_iter().try_for_each(|object| input.add(object))?;
    }
    input.walls.faults = match input.own_account() {
        Some(own) => input.faults(&own),
        None => vec![UNBOUND.to_owned()],
    };
    Ok(input)
}

fn live() -> anyhow::Result<Input> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = kubernetes_config().await?;
        let (clock, namespace) = (Clock::default(), config.default_namespace.clone());
        let cluster = Cluster::new(config, namespace, clock, Metrics::default())?;
        let roles: Vec<RoleId> = cluster.roles().await?.into_iter().map(|role| role.id).collect();
        let mut input = Input { rbac: cluster.rbac().await?, roles, ..Input::default() };
        input.walls = match (input.own_account(), input.roles.first()) {
            (Some(own), Some(role)) => cluster.look_at_walls(&own, role).await?,
            _ => Walls { faults: vec![UNBOUND.to_owned()], made_at: None },
        };
        Ok(input)
    })
}
