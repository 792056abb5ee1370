//! `make profile`: flame graphs of Daypass while it creates members, at rest, and while the gateway forwards. Needs
//! `perf` and inferno in `PATH`, and a program with symbols and frame pointers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Daypass, ROLES};
use crate::gateway::{Member, OPTIONS};
use crate::load::closed;
use crate::operations::fill;
use crate::report::Report;
use crate::{progress, requests};

/// How many members there are at rest.
const MEMBERS: usize = 1000;
const CLIENTS: usize = 4;
const CREATING: Duration = Duration::from_secs(20);
const FILLING: Duration = Duration::from_secs(120);
const READING: Duration = Duration::from_secs(10);
const RESTING: Duration = Duration::from_secs(60);
/// Turns what perf recorded into a flame graph.
const PIPE: &str =
    r#"perf script -i "$0" 2> /dev/null | inferno-collapse-perf | inferno-flamegraph --title "$1" > "$2""#;

pub(crate) fn run(cluster: &Cluster, out: &Path) -> Result<()> {
    let (daypass, mut report) = (cluster.daypass()?, Report::default());
    let create = |number: usize| daypass.create(ROLES[number % ROLES.len()]).map(drop);
    let load = || report.failures("Daypass", &closed(CLIENTS, usize::MAX, Instant::now() + CREATING, &create));
    record(&daypass, out, "creation", CREATING, load)?;
    fill(&daypass, 0, MEMBERS, Instant::now() + FILLING, &mut report);
    record(&daypass, out, "rest", RESTING, || thread::sleep(RESTING))?;
    daypass.stop()?;

    requests::fill(cluster, Instant::now() + FILLING, &mut report)?;
    let daypass = cluster.daypass_with(&OPTIONS)?;
    let member = Member::new(&daypass, ROLES[0])?;
    let clients = (0..CLIENTS).map(|_| member.client()).collect::<Result<Vec<_>>>()?;
    for (name, path) in [("gateway-get", requests::OBJECT), ("gateway-list", requests::LIST)] {
        let read = |number: usize| clients[number % CLIENTS].read(path);
        let load = || report.failures("gateway", &closed(CLIENTS, usize::MAX, Instant::now() + READING, &read));
        record(&daypass, out, name, READING, load)?;
    }
    daypass.stop()
}

/// Records Daypass while `work` runs, for this long.
fn record(daypass: &Daypass, out: &Path, name: &str, time: Duration, work: impl FnOnce()) -> Result<()> {
    progress(&format!("recording: {name}"));
    fs::create_dir_all(out)?;
    let (data, graph) = (out.join(format!("{name}.perf")), out.join(format!("{name}-flames.svg")));
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "-e", "cpu-clock", "-F", "499", "-g", "-p", &daypass.pid().to_string(), "-o"]);
    let mut perf = perf.arg(&data).args(["--", "sleep", &time.as_secs().to_string()]).spawn()?;
    work();
    ensure!(perf.wait()?.success(), "perf record failed");
    let title = format!("Daypass: {name}");
    let piped = Command::new("sh").args(["-c", PIPE]).arg(&data).arg(title).arg(&graph).status()?;
    ensure!(piped.success() && graph.metadata()?.len() > 0, "no flame graph of {}", data.display());
    progress(&graph.display().to_string());
    Ok(())
}
