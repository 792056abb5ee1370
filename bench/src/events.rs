//! When the events of an object that changes arrive, at one watch and at many, and what they cost on the way.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::blocking::Response;
use serde_json::json;

use crate::cluster::Cluster;
use crate::gateway::since;
use crate::load::{abba, paced, rank};
use crate::operations::Stock;
use crate::peers::{API_SERVER, GATEWAY, Subject};
use crate::progress;
use crate::report::{Group, Report};
use crate::sizes::Sizes;
use crate::watches::{OBJECT, ON_A_CONNECTION, open};

/// Writes of the watched object, each second, and the numbers of a write before the first and of the last one.
const WRITES: f64 = 20.0;
const BEFORE: usize = usize::MAX - 1;
const LAST: usize = usize::MAX;
/// How many turns' time the writes take.
const TURNS: f64 = 8.0;
/// How long after the last write its event may come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is measured in a turn: its name, its unit, and what is wanted of the gateway. At one watch alone, only the
/// first [`LAGS`] of them.
const QUANTITIES: [(&str, &str, &str); 5] = [
    ("from a write's answer to its event, p50", "ms", ""),
    ("from a write's answer to its event, p99", "ms", ""),
    ("its CPU, each event", "µs", ""),
    ("CPU of the API server, each event", "µs", ""),
    ("its memory, each watch", "KiB", "≤ 64 KiB"),
];
const LAGS: usize = 2;

pub(crate) fn run(cluster: &Cluster, subjects: &[Subject], sizes: &Sizes, report: &mut Report) -> Result<()> {
    for watches in [1, sizes.watches[1]] {
        let what = if watches == 1 { "1 watch".to_owned() } else { format!("{watches} watches") };
        progress(&format!("gateway: events at {what}"));
        let mut turns: Vec<Vec<[f64; QUANTITIES.len()]>> = subjects.iter().map(|_| Vec::new()).collect();
        for at in abba(subjects.len(), 1) {
            sizes.ensure_time()?;
            turns[at].push(turn(cluster, &subjects[at], watches, sizes, report)?);
        }
        // What one watch costs cannot be told from the rest.
        let count = if watches == 1 { LAGS } else { QUANTITIES.len() };
        for (number, (name, unit, goal)) in QUANTITIES.into_iter().enumerate().take(count) {
            // What a process keeps of one turn, it does not take again in the next. The API server's other work is in
            // its memory, too.
            let memory = unit == "KiB";
            let least = if memory { 1 } else { usize::MAX };
            let measured = |at: &usize| !memory || subjects[*at].name != API_SERVER;
            let series = (0..subjects.len()).filter(measured).map(|at| {
                (subjects[at].name.to_owned(), turns[at].iter().take(least).map(|turn| turn[number]).collect())
            });
            report.add(Group {
                scenario: "gateway",
                what: format!("20 events a second at {what}, {name}"),
                unit,
                goal: (GATEWAY, goal),
                reference: Some(if memory { GATEWAY } else { API_SERVER }),
                series: series.collect(),
            });
        }
    }
    Ok(())
}

/// Opens the watches and writes.
fn turn(
    cluster: &Cluster,
    subject: &Subject,
    count: usize,
    sizes: &Sizes,
    report: &mut Report,
) -> Result<[f64; QUANTITIES.len()]> {
    let answers: Stock<(usize, Instant)> = Stock::default();
    let write = |number: usize| {
        cluster.admin.call("PATCH", OBJECT, &json!({"data": {"number": number.to_string()}}))?;
        answers.put((number, Instant::now()));
        Ok(())
    };
    write(BEFORE)?;
    let memory = subject.memory()?;
    let clients = (0..count.div_ceil(ON_A_CONNECTION)).map(|_| subject.client()).collect::<Result<Vec<_>>>()?;
    let (sender, seen) = channel();
    let open = open(&clients, count, sizes, report, move |_, stream| {
        // The watch stays open until everything is measured.
        let _ = sender.send(read(stream));
    });

    let cpu = || -> Result<[f64; 2]> { Ok([subject.cpu()? * 1e6, cluster.apiserver_cpu()? * 1e6]) };
    let before = cpu()?;
    let writes = (TURNS * WRITES * sizes.turn.as_secs_f64()) as usize;
    report.failures("writes", &paced(WRITES, writes, sizes.until, &write));
    write(LAST)?;
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while all.len() < open {
        match seen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(watch) => all.push(watch),
            Err(RecvTimeoutError::Timeout) => bail!("{}: the last event did not come everywhere", subject.name),
            Err(RecvTimeoutError::Disconnected) => bail!("{}: a watch panicked", subject.name),
        }
    }
    let (after, used) = (cpu()?, subject.memory()? - memory);

    let answers: HashMap<usize, Instant> = answers.all().into_iter().filter(|(number, _)| *number < BEFORE).collect();
    let events = all.iter().flat_map(|(_, seen)| seen);
    let lags: Vec<f64> = events.filter_map(|(number, at)| Some(since(*answers.get(number)?, *at))).collect();
    let missed = (answers.len() * open).saturating_sub(lags.len());
    if missed > 0 {
        report.note(format!("{}: {missed} of {} events are missing", subject.name, answers.len() * open));
    }
    let each = |whose: usize| (after[whose] - before[whose]) / lags.len() as f64;
    Ok([rank(lags.clone(), 50), rank(lags.clone(), 99), each(0), each(1), used * 1024.0 / open as f64])
}

/// Reads a watch until the last write, and returns it with the number of each write and when it came.
fn read(stream: Response) -> (BufReader<Response>, Vec<(usize, Instant)>) {
    const FIELD: &str = "\"number\":\"";
    let (mut stream, mut seen, mut line) = (BufReader::new(stream), Vec::new(), String::new());
    while stream.read_line(&mut line).is_ok_and(|read| read > 0) {
        let at = Instant::now();
        let number = line.split_once(FIELD).and_then(|(_, rest)| rest.split_once('"')?.0.parse::<usize>().ok());
        if number == Some(LAST) {
            break;
        }
        seen.extend(number.map(|number| (number, at)));
        line.clear();
    }
    (stream, seen)
}
