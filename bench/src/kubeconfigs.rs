//! What many members with a gateway kubeconfig each take in Daypass's memory, before and after each has used it.

use std::thread;

use anyhow::{Result, ensure};

use crate::cluster::ROLES;
use crate::gateway::{Member, OPTIONS};
use crate::load::closed;
use crate::operations::Stock;
use crate::report::{Group, Report};
use crate::{Bench, progress};

const CLIENTS: usize = 16;
/// A small answer that each of them may have.
const PATH: &str = "/version";

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let daypass = cluster.daypass_with(&OPTIONS)?;
    thread::sleep(sizes.settle);
    let none = daypass.memory()?;

    let members = Stock::default();
    let create = |_| Member::new(&daypass, ROLES[0]).map(|member| members.put(member));
    report.failures("members with a kubeconfig", &closed(CLIENTS, sizes.kubeconfigs, sizes.until, &create));
    let members = members.all();
    let count = members.len();
    ensure!(count > 0, "no member was created");
    progress(&format!("kubeconfigs: {count} members"));
    thread::sleep(sizes.settle);
    let created = daypass.memory()?;

    // Each has a token of its own from then on, which stays in memory for an hour.
    let ask = |number: usize| members[number].client()?.read(PATH).map(drop);
    let used = closed(CLIENTS, count, sizes.until, &ask);
    report.failures("first requests of kubeconfigs", &used);
    thread::sleep(sizes.settle);
    let label = format!("{} have used it", used.taken.len());
    let after = [(format!("{count} members with a gateway kubeconfig each"), created), (label, daypass.memory()?)];
    daypass.stop()?;

    let each = |memory: f64| vec![(memory - none) * 1024.0 / count as f64];
    let added = after.iter().map(|(name, memory)| (name.clone(), each(*memory))).collect();
    let mut series = vec![("no member".to_owned(), vec![none])];
    series.extend(after.into_iter().map(|(name, memory)| (name, vec![memory])));
    let reference = Some("no member");
    for (what, unit, series) in [("memory of Daypass", "MiB", series), ("memory, each member", "KiB", added)] {
        report.add(Group { scenario: "kubeconfigs", what: what.to_owned(), unit, goal: ("", ""), reference, series });
    }
    Ok(())
}
