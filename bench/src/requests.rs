//! What each request costs directly and through the proxies: how long it takes, how many there are in a second, and
//! the CPU time that they take.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use crate::cluster::Cluster;
use crate::http::Http;
use crate::load::{Samples, abba, closed, paced};
use crate::peers::{API_SERVER, GATEWAY, Subject};
use crate::progress;
use crate::report::{Group, Report};
use crate::sizes::Sizes;

/// What is listed: this many ConfigMaps, with so many bytes of data each.
const LISTED: usize = 500;
const BYTES: usize = 2048;
pub(crate) const LIST: &str = "/api/v1/namespaces/listed/configmaps";
/// One of them.
pub(crate) const OBJECT: &str = "/api/v1/namespaces/listed/configmaps/listed-0";

const CLIENTS: usize = 16;
/// Requests a second, when they come at a fixed rate.
const RATE: f64 = 200.0;

/// How the requests are sent: what, the path, how many clients, whether at the fixed rate, and how many turns' time.
struct Way {
    what: &'static str,
    path: &'static str,
    clients: usize,
    paced: bool,
    turns: u32,
    quantities: &'static [Quantity],
}

/// What is measured: its name, its unit, what is wanted of the gateway, and how it comes out of a turn.
type Quantity = (&'static str, &'static str, &'static str, fn(&Turn) -> f64);

/// What a turn of one subject took.
struct Turn {
    samples: Samples,
    /// The CPU time of the subject and of the API server, in milliseconds.
    cpu: [f64; 2],
}

const P50: Quantity = ("p50", "ms", "", |turn| turn.samples.percentile(50));
const P99: Quantity = ("p99", "ms", "", |turn| turn.samples.percentile(99));
const RATE_OF: Quantity = ("requests", "/s", "≥ 0.9 of direct", |turn| turn.samples.rate());
const LATE: Quantity = ("p99", "ms", "direct + ≤ 2 ms", |turn| turn.samples.percentile(99));
const CPU: Quantity = ("its CPU, each", "ms", "≤ 0.15 ms", |turn| turn.each(0));
const LIST_CPU: Quantity = ("its CPU, each", "ms", "", |turn| turn.each(0));
const SERVER_CPU: Quantity = ("CPU of the API server, each", "ms", "", |turn| turn.each(1));

const WAYS: [Way; 4] = [
    Way { what: "GET, 1 client", path: OBJECT, clients: 1, paced: false, turns: 1, quantities: &[P50, P99] },
    Way {
        what: "GET, 16 clients",
        path: OBJECT,
        clients: CLIENTS,
        paced: false,
        turns: 3,
        quantities: &[RATE_OF, CPU, SERVER_CPU],
    },
    Way { what: "GET, 200 a second", path: OBJECT, clients: CLIENTS, paced: true, turns: 3, quantities: &[P50, LATE] },
    Way {
        what: "list of 1 MB, 1 client",
        path: LIST,
        clients: 1,
        paced: false,
        turns: 2,
        quantities: &[P50, LIST_CPU],
    },
];

impl Turn {
    /// Each request's part of the CPU time.
    fn each(&self, whose: usize) -> f64 {
        self.cpu[whose] / self.samples.taken.len() as f64
    }
}

pub(crate) fn run(cluster: &Cluster, subjects: &[Subject], sizes: &Sizes, report: &mut Report) -> Result<()> {
    fill(cluster, sizes.until, report)?;
    let clients = |subject: &Subject| (0..CLIENTS).map(|_| subject.client()).collect::<Result<Vec<_>>>();
    let clients = subjects.iter().map(clients).collect::<Result<Vec<_>>>()?;
    for way in WAYS {
        progress(&format!("gateway: {}", way.what));
        let mut turns: Vec<Vec<Turn>> = subjects.iter().map(|_| Vec::new()).collect();
        // Each opens its connections before it is measured.
        for (subject, clients) in subjects.iter().zip(&clients) {
            report.failures(
                subject.name,
                &closed(way.clients, 2 * way.clients, sizes.until, &|number| {
                    clients[number % way.clients].read(way.path)
                }),
            );
        }
        for at in abba(subjects.len(), sizes.turns) {
            sizes.ensure_time()?;
            let turn = turn(cluster, &subjects[at], &clients[at], &way, sizes)?;
            report.failures(subjects[at].name, &turn.samples);
            turns[at].push(turn);
        }
        for (name, unit, goal, value) in way.quantities {
            let series = subjects.iter().zip(&turns);
            report.add(Group {
                scenario: "gateway",
                what: format!("{}, {name}", way.what),
                unit,
                goal: (GATEWAY, goal),
                reference: Some(API_SERVER),
                series: series
                    .map(|(subject, turns)| (subject.name.to_owned(), turns.iter().map(value).collect()))
                    .collect(),
            });
        }
    }
    Ok(())
}

/// Creates what is read and listed.
pub(crate) fn fill(cluster: &Cluster, until: Instant, report: &mut Report) -> Result<()> {
    cluster.kubectl(&["create", "namespace", "listed"])?;
    let create = |number: usize| {
        let (name, data) = (format!("listed-{number}"), json!({"text": text(number)}));
        cluster.admin.call("POST", LIST, &json!({"metadata": {"name": name}, "data": data})).map(drop)
    };
    report.failures("ConfigMaps", &closed(CLIENTS, LISTED, until, &create));
    Ok(())
}

/// Text that compresses like that of people and programs, to a third: words, and numbers between them.
fn text(number: usize) -> String {
    let words = ["name", "image", "registry", "containers", "limits", "memory", "volume", "mount"];
    let mut text = String::new();
    let mut state = number as u64 + 1;
    while text.len() < BYTES {
        // Knuth's multiplier, from MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = state >> 33;
        text += words[random as usize % words.len()];
        text += &format!(": {:x}\n", (random >> 3) & 0xFFFF);
    }
    text.truncate(BYTES);
    text
}

fn turn(cluster: &Cluster, subject: &Subject, clients: &[Http], way: &Way, sizes: &Sizes) -> Result<Turn> {
    let time = sizes.turn * way.turns;
    let call = |number: usize| clients[number % way.clients].read(way.path);
    let cpu = || -> Result<[f64; 2]> { Ok([subject.cpu()? * 1e3, cluster.apiserver_cpu()? * 1e3]) };
    let before = cpu()?;
    let samples = if way.paced {
        paced(RATE, (RATE * time.as_secs_f64()) as usize, sizes.until, &call)
    } else {
        closed(way.clients, usize::MAX, sizes.within(time), &call)
    };
    let after = cpu()?;
    Ok(Turn { samples, cpu: [after[0] - before[0], after[1] - before[1]] })
}
