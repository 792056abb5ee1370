//! What RoleBindings and namespaces of others cost Daypass.

use std::thread;

use anyhow::Result;
use serde_json::{Value, json};

use crate::Bench;
use crate::cluster::ROLES;
use crate::load::{Call, abba, closed};
use crate::report::{Group, Report};
use crate::rest::binding_of;

const CLIENTS: usize = 16;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let without = measure(bench, report)?;
    let label = create_all(bench, report);
    let with = measure(bench, report)?;
    let quantities =
        [("create, 1 client, p50", "ms"), ("GET /members/roles, 1 client, p50", "ms"), ("memory of Daypass", "MiB")];
    for ((what, unit), (without, with)) in quantities.into_iter().zip(without.into_iter().zip(with)) {
        let (what, goal) = (what.to_owned(), (label.as_str(), "as without"));
        let series = vec![("without".to_owned(), without), (label.clone(), with)];
        report.add(Group { scenario: "others", what, unit, goal, reference: Some("without"), series });
    }
    Ok(())
}

/// Creates the namespaces and RoleBindings, and says how many.
fn create_all(bench: &Bench, report: &mut Report) -> String {
    let (admin, sizes) = (&bench.cluster.admin, &bench.sizes);
    let name = |number: usize| format!("other-{}", number % sizes.namespaces);
    let create = |path: &str, body: &Value| admin.call("POST", path, body).map(drop);
    let namespace = |number: usize| {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name(number)}});
        create("/api/v1/namespaces", &body)
    };
    let namespaces = closed(CLIENTS, sizes.namespaces, sizes.until, &namespace);
    report.failures("namespaces", &namespaces);
    let binding = |number: usize| {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings", name(number));
        create(&path, &binding_of("RoleBinding", number))
    };
    let bindings = closed(CLIENTS, sizes.bindings, sizes.until, &binding);
    report.failures("RoleBindings", &bindings);
    format!("{} RoleBindings, {} namespaces", bindings.taken.len(), namespaces.taken.len())
}

/// Creation, `GET /members/roles`, and memory some time after a start.
fn measure(bench: &Bench, report: &mut Report) -> Result<[Vec<f64>; 3]> {
    let sizes = &bench.sizes;
    let daypass = bench.cluster.daypass()?;
    let create = |number: usize| daypass.create(ROLES[number % ROLES.len()]).map(drop);
    let roles = |_| daypass.api.get("/members/roles").map(drop);
    // The first call checks the policies.
    roles(0)?;
    thread::sleep(sizes.settle);
    let mut values = [Vec::new(), Vec::new(), vec![daypass.memory()?]];
    for at in abba(2, sizes.turns) {
        sizes.ensure_time()?;
        let call: &Call<'_> = if at == 0 { &create } else { &roles };
        let samples = closed(1, sizes.calls, sizes.within(sizes.turn), call);
        report.failures("Daypass", &samples);
        values[at].push(samples.percentile(50));
    }
    daypass.stop()?;
    Ok(values)
}
