//! What members with the longest texts and the most kubeconfigs take in Daypass's memory.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::Bench;
use crate::calls::Bare;
use crate::cluster::ROLES;
use crate::load::closed;
use crate::report::{Group, Report};

const CLIENTS: usize = 16;
/// The most that a Member may have: `maxLength` and `maxItems` of its CRD.
const USERNAME: usize = 255;
const DESCRIPTION: usize = 1024;
const KUBECONFIGS: usize = 10;
/// What is told of this many members.
const MANY: usize = 10_000;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (sizes, cluster) = (&bench.sizes, &bench.cluster);
    let (before, have, hashes) = measure(bench)?;
    let clients = ROLES.map(|role| Bare::in_role(cluster, role));
    let (username, description) = ("u".repeat(USERNAME), "d".repeat(DESCRIPTION));
    let create = |number: usize| {
        let at = number % ROLES.len();
        let client = clients[at].as_ref().ok().context("no client")?;
        client.create_heavy([&username, &description], KUBECONFIGS, &hashes[at])
    };
    let made = closed(CLIENTS, sizes.heavy, sizes.until, &create);
    report.failures("members with the most of everything", &made);
    let count = made.taken.len();
    ensure!(count > 0, "no member was created");
    let (after, ..) = measure(bench)?;
    let ordinary = format!("{have} ordinary members");
    let label = format!("{count} more, with the longest texts and ten kubeconfigs each");
    let what = "memory of Daypass after a start".to_owned();
    let series = vec![(ordinary.clone(), vec![before]), (label.clone(), vec![after])];
    report.add(Group { scenario: "memory", what, unit: "MiB", goal: ("", ""), reference: Some(&ordinary), series });
    let each = (after - before) * 1024.0 / count as f64;
    report.add(Group::single("memory", "each of those adds", "KiB", &label, each));
    let what = format!("{MANY} of them would add, by the same ratio");
    report.add(Group::single("memory", &what, "MiB", &label, each * MANY as f64 / 1024.0));
    Ok(())
}

/// Daypass's memory some time after a start, how many members there are, and the hash of what each role can do.
fn measure(bench: &Bench) -> Result<(f64, u64, [String; ROLES.len()])> {
    let daypass = bench.cluster.daypass()?;
    let mut hashes: [String; ROLES.len()] = Default::default();
    for (role, hash) in ROLES.iter().zip(&mut hashes) {
        let (id, _) = daypass.create(role)?;
        let name = id.split_once('.').context("not an id")?.1;
        let path = format!("/apis/daypass.dev/v1alpha1/namespaces/daypass-{role}/members/{name}");
        let member: Value = bench.cluster.admin.get(&path)?;
        *hash = member["status"]["roleHash"].as_str().context("no roleHash")?.to_owned();
    }
    let have = daypass.api.get("/members?limit=1")?["total"].as_u64().context("no total")?;
    thread::sleep(bench.sizes.settle);
    let memory = daypass.memory()?;
    daypass.stop()?;
    Ok((memory, have, hashes))
}
