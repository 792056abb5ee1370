//! `make bench`: measures Daypass against a bare client of the API server and against OpenBao, on control planes of
//! its own. `make bench-gateway`: the same for the gateway, against the API server. All traffic stays on 127.0.0.1. It
//! asserts nothing.
//!
//! - `operations`, `ends`, `rest`, `others`, `memory`, `walls`, `gateway`, `kubeconfigs`, `pods`: what is measured
//! - `requests`, `events`, `peers`, `watches`: parts of `gateway`, and what it is measured beside
//! - `calls`: what the bare client calls, in one table; `openbao`: the other server
//! - `sizes`: how much is measured, and how long that may take
//! - `load`: closed loops and fixed rates
//! - `report`, `plot`, `page`: the table, the charts, and the page that shows both
//! - `profile`: flame graphs
//! - `cluster`, `http`: the control plane with Daypass, and its clients

mod calls;
mod cluster;
mod ends;
mod events;
mod gateway;
mod http;
mod kubeconfigs;
mod load;
mod memory;
mod openbao;
mod operations;
mod others;
mod page;
mod peers;
mod plot;
mod pods;
mod profile;
mod report;
mod requests;
mod rest;
mod sizes;
mod walls;
mod watches;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use clap::{Parser, ValueEnum};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::openbao::OpenBao;
use crate::report::Report;
use crate::sizes::Sizes;

/// Measure Daypass on control planes of its own
#[derive(Debug, Parser)]
struct Cli {
    /// Smaller: under four minutes, and less exact
    #[arg(long)]
    quick: bool,
    /// Multiply the sizes and times, to try the program (0.05) or to measure more
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only these sections
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// The program to measure [default: `daypass` in the folder of this program]
    #[arg(long)]
    daypass: Option<PathBuf>,
    /// OpenBao's server; without it, OpenBao is left out
    #[arg(long)]
    bao: Option<PathBuf>,
    /// The program of the proxies that the gateway is measured beside; without it, they are left out
    #[arg(long)]
    peers: Option<PathBuf>,
    /// The folder for results.json, table.md and the charts
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Write a page and its charts into this folder, too: of everything, or of `--only gateway,pods`
    #[arg(long)]
    docs: Option<PathBuf>,
    /// Record flame graphs of creations and of rest instead
    #[arg(long)]
    profile: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// What the admission policies add to an unrelated write
    Policies,
    /// Create, kubeconfig, list, delete
    Operations,
    /// Members that end in the same second
    Ends,
    /// Members that expire while Daypass is down
    Outage,
    /// RoleBindings and namespaces of others
    Others,
    /// A ClusterRoleBinding for each member, as other engines make them
    Bindings,
    /// Members at rest, and a start with all of them
    Rest,
    /// Members with the longest texts and the most kubeconfigs
    Memory,
    /// Requests and watches through the gateway; only if it is named
    Gateway,
    /// Members with a gateway kubeconfig each; only if it is named
    Kubeconfigs,
    /// What kubectl does in pods, through the gateway; only if it is named
    Pods,
}

/// The sections of each control plane, in their order. Policies come before Daypass, which reacts to changes of them.
/// Last come those that leave something behind.
const PLANES: [&[Section]; 5] = [
    &[Section::Rest, Section::Memory],
    &[Section::Policies, Section::Operations, Section::Ends, Section::Outage, Section::Others, Section::Bindings],
    &[Section::Gateway],
    &[Section::Kubeconfigs],
    &[Section::Pods],
];
/// These run only if they are named.
const NAMED: [Section; 3] = [Section::Gateway, Section::Kubeconfigs, Section::Pods];

impl Section {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// How long it may take in a full and in a quick run, in seconds. Expect half of it on an idle machine.
    fn limit(self) -> [u64; 2] {
        match self {
            Self::Policies => [60, 30],
            Self::Operations => [420, 120],
            Self::Ends => [300, 80],
            Self::Outage => [200, 70],
            Self::Others => [150, 40],
            Self::Bindings => [200, 50],
            Self::Rest => [560, 110],
            Self::Memory => [200, 40],
            Self::Gateway => [900, 200],
            Self::Kubeconfigs => [1100, 100],
            Self::Pods => [300, 100],
        }
    }

    fn run(self, bench: &Bench, report: &mut Report) -> Result<()> {
        match self {
            Self::Policies => walls::run(bench, report),
            Self::Operations => operations::run(bench, report),
            Self::Ends => ends::run(bench, report),
            Self::Outage => ends::outage(bench, report),
            Self::Others => others::run(bench, report),
            Self::Bindings => rest::cluster_bindings(bench, report),
            Self::Rest => rest::run(bench, report),
            Self::Memory => memory::run(bench, report),
            Self::Gateway => gateway::run(bench, report),
            Self::Kubeconfigs => kubeconfigs::run(bench, report),
            Self::Pods => pods::run(bench, report),
        }
    }
}

/// What a section works with. It starts Daypass itself, so that it needs no other section.
struct Bench {
    cluster: Cluster,
    bao: Option<OpenBao>,
    /// The program of the proxies.
    peers: Option<PathBuf>,
    sizes: Sizes,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let program = match &cli.daypass {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("daypass"),
    };
    let program = program.canonicalize().with_context(|| format!("no program at {}", program.display()))?;
    if cli.profile {
        return profile::run(&Cluster::start(&program, &cli.out, false)?, &cli.out);
    }
    let begun = Instant::now();
    let (mut report, mut about) = (Report::default(), page::machine(&program)?);
    for sections in PLANES {
        let all = |section: &Section| cli.only.is_empty() && !NAMED.contains(section);
        let wanted = |section: &&Section| all(section) || cli.only.contains(section);
        let sections: Vec<Section> = sections.iter().filter(wanted).copied().collect();
        if sections.is_empty() {
            continue;
        }
        // In a thread of its own, which cannot come back from the network of a control plane with a node.
        let work = || measure(&cli, &program, &sections, begun, (&mut report, &mut about));
        thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a section panicked"))??;
    }
    let page = match &*cli.only {
        [] => Some(&page::ALL),
        [Section::Gateway, Section::Pods] => Some(&page::GATEWAY),
        _ => None,
    };
    if let (Some(docs), Some(page)) = (&cli.docs, page) {
        page::write_docs(page, &report, &about, docs)?;
    }
    writeln!(io::stdout(), "{}\n{}", report.table(), cli.out.display())?;
    Ok(())
}

/// Runs these sections on a control plane of their own.
fn measure(
    cli: &Cli,
    program: &Path,
    sections: &[Section],
    begun: Instant,
    (report, about): (&mut Report, &mut Value),
) -> Result<()> {
    let sizes = Sizes::new(cli.quick, cli.scale, begun);
    let cluster = Cluster::start(program, &cli.out, sections.contains(&Section::Pods))?;
    let mut bench = Bench { cluster, bao: None, peers: cli.peers.clone(), sizes };
    about["kubernetes"] = bench.cluster.admin.get("/version")?["gitVersion"].clone();
    for &section in sections {
        progress(&section.name());
        let compares = matches!(section, Section::Operations | Section::Ends);
        if !compares {
            bench.bao = None;
        } else if let (None, Some(program)) = (&bench.bao, &cli.bao) {
            match OpenBao::start(program, &bench.cluster) {
                Ok((bao, version)) => {
                    about["openbao"] = version.into();
                    bench.bao = Some(bao);
                }
                Err(error) => report.note(format!("OpenBao: {error:#}")),
            }
        }
        let since = Instant::now();
        bench.sizes.allow(section.limit());
        let result = bench.sizes.ensure_time().and_then(|()| section.run(&bench, report));
        // The values of a section that used up its time may lack turns.
        if let Err(error) = result.and_then(|()| bench.sizes.ensure_time()) {
            report.note(format!("section {}: {error:#}", section.name()));
        }
        progress(&format!("{}: {:.0} s", section.name(), since.elapsed().as_secs_f64()));
        about["minutes"] = format!("{:.1}", begun.elapsed().as_secs_f64() / 60.0).into();
        page::write(report, about, &cli.out)?;
    }
    let Bench { cluster, bao, .. } = bench;
    drop(bao);
    let state = cluster.plane.state_dir().to_owned();
    cluster.plane.stop()?;
    if report.notes().is_empty() {
        fs::remove_dir_all(state)?;
    }
    Ok(())
}

/// Tells what happens now.
fn progress(what: &str) {
    eprintln!("bench: {what}");
}
