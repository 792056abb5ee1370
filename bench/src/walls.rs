//! What the admission policies add to an unrelated write: a ConfigMap in `default`, over one connection.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::Bench;
use crate::cluster::{Cluster, eventually, feed};
use crate::load::{abba, percentile};
use crate::report::{Group, Report};
use crate::sizes::Sizes;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let bindings = bindings(cluster)?;
    let labels = ["without the policies", "with the policies"];
    // Creations and updates: the turns without the policies, and those with them.
    let mut turns: [[Vec<Vec<Duration>>; 2]; 2] = Default::default();
    for at in abba(2, sizes.turns) {
        set(bench, &bindings, at == 1)?;
        let [creations, updates] = turn(cluster, sizes)?;
        turns[0][at].push(creations);
        turns[1][at].push(updates);
    }
    set(bench, &bindings, true)?;
    for (what, turns) in ["create", "update"].into_iter().zip(turns) {
        for percent in [50, 99] {
            let of = |turns: &Vec<Vec<Duration>>| turns.iter().map(|times| percentile(times, percent)).collect();
            report.add(Group {
                scenario: "policies",
                what: format!("{what} a ConfigMap, 1 client, p{percent}"),
                unit: "ms",
                goal: ("", ""),
                reference: Some(labels[0]),
                series: labels.iter().zip(&turns).map(|(label, turns)| ((*label).to_owned(), of(turns))).collect(),
            });
        }
    }
    Ok(())
}

/// Creates, changes and deletes ConfigMaps. Returns how long the creations and the changes took.
fn turn(cluster: &Cluster, sizes: &Sizes) -> Result<[Vec<Duration>; 2]> {
    let one = format!("{CONFIG_MAPS}/bench");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench"}, "data": {"a": "1"}});
    let timed = |method: &str, path: &str, body: &Value| -> Result<Duration> {
        let begun = Instant::now();
        cluster.admin.call(method, path, body)?;
        Ok(begun.elapsed())
    };
    let (begun, mut times) = (Instant::now(), [Vec::new(), Vec::new()]);
    while begun.elapsed() < sizes.turn * 2 && times[0].len() < sizes.calls {
        times[0].push(timed("POST", CONFIG_MAPS, &object)?);
        times[1].push(timed("PATCH", &one, &json!({"data": {"a": "2"}}))?);
        timed("DELETE", &one, &json!({}))?;
    }
    Ok(times)
}

/// The bindings that put the chart's policies in force. The one that [`is_in_force`] tests comes last.
fn bindings(cluster: &Cluster) -> Result<String> {
    let list = cluster.admin.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings")?;
    let all = list["items"].as_array().context("no policies")?;
    let name = |binding: &Value| binding["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = all.iter().map(name).filter(|name| name.starts_with("daypass-")).collect();
    names.sort_by_key(|name| name == "daypass-role-tokens");
    let binding = |name: String| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        })
    };
    let items: Vec<Value> = names.into_iter().map(binding).collect();
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
}

/// Creates or deletes the bindings, and waits until the API server has noticed.
fn set(bench: &Bench, bindings: &str, on: bool) -> Result<()> {
    let args: &[&str] =
        if on { &["apply", "-f", "-"] } else { &["delete", "--ignore-not-found", "--wait=false", "-f", "-"] };
    feed(bench.cluster.plane.kubectl().args(args), bindings)?;
    let is_done = || Ok(is_in_force(&bench.cluster)? == on);
    eventually("the change of the policies is in force", bench.sizes.until, is_done)
}

/// Whether the policies are in force, by a dry run that they refuse.
fn is_in_force(cluster: &Cluster) -> Result<bool> {
    let path = "/api/v1/namespaces/daypass-projects-view/serviceaccounts/default/token?dryRun=All";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    match cluster.admin.call("POST", path, &request) {
        Ok(_) => Ok(false),
        Err(error) if error.to_string().contains("Daypass (policy ") => Ok(true),
        Err(error) => bail!("a dry run failed: {error:#}"),
    }
}
