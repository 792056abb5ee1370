//! Members that end together, also after an outage, and a start with many members.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::Bench;
use crate::calls::{Bare, Made};
use crate::cluster::{Cluster, Daypass, TWIN_GROUP, eventually};
use crate::load::{abba, closed, percentile};
use crate::openbao::OpenBao;
use crate::operations::{Stock, fill};
use crate::report::{Group, Report};
use crate::sizes::Sizes;

const CLIENTS: usize = 16;
/// How many members are asked for until Daypass refuses them, and how often each.
const ASKED: usize = 8;
const ASK: Duration = Duration::from_millis(100);
/// Time for what still has to be done before members end.
const MARGIN: Duration = Duration::from_secs(3);
/// How long after their end members may be left.
const PATIENCE: Duration = Duration::from_secs(60);
/// An end within this time is on time.
const ON_TIME: Duration = Duration::from_secs(1);

/// A moment by both clocks, at a whole second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) instant: Instant,
    time: DateTime<Utc>,
}

impl Moment {
    /// The first whole second that is this far away.
    fn after(delay: Duration) -> Result<Self> {
        let (instant, now) = (Instant::now(), UNIX_EPOCH.elapsed()?);
        let seconds = (now + delay).as_secs() + 1;
        let time = DateTime::from_timestamp(i64::try_from(seconds)?, 0).context("no time")?;
        Ok(Self { instant: instant + (Duration::from_secs(seconds) - now), time })
    }

    fn plus(self, seconds: usize) -> Self {
        let wait = Duration::from_secs(seconds as u64);
        Self { instant: self.instant + wait, time: self.time + wait }
    }

    fn wait(self) {
        thread::sleep(self.instant.saturating_duration_since(Instant::now()));
    }
}

/// When each of these objects was deleted.
type Deaths = HashMap<String, Instant>;

/// Watches a collection until each object of these names is deleted, or until then.
fn watch(cluster: &Cluster, path: &str, names: HashSet<String>, until: Instant) -> Result<JoinHandle<Deaths>> {
    let list = cluster.admin.get(&format!("{path}?limit=1"))?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
    // 0 would leave it to the API server.
    let timeout = until.saturating_duration_since(Instant::now()).as_secs().max(1);
    let stream = cluster.admin.watch(&format!("{path}?watch=1&timeoutSeconds={timeout}&resourceVersion={version}"))?;
    Ok(thread::spawn(move || {
        let mut deaths = Deaths::new();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while deaths.len() < names.len() {
            let Some(line) = lines.next() else { break };
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            if event["type"] == "DELETED" && names.contains(name) {
                deaths.insert(name.to_owned(), Instant::now());
            }
        }
        deaths
    }))
}

const MEMBERS: &str = "/apis/daypass.dev/v1alpha1/members";
const ACCOUNTS: &str = "/api/v1/serviceaccounts";

/// How long after `end` each happened.
fn delays(deaths: &Deaths, end: Moment) -> Vec<Duration> {
    deaths.values().map(|at| at.saturating_duration_since(end.instant)).collect()
}

fn name(id: &str) -> String {
    id.split_once('.').map_or(id, |(_, name)| name).to_owned()
}

/// Gives these members an end each, all sixteen clients at work.
pub(crate) fn end_at(
    daypass: &Daypass,
    ids: &[(String, String)],
    end: &(dyn Fn(usize) -> Moment + Sync),
    report: &mut Report,
) {
    let set = |number: usize| {
        let end = end(number).time.to_rfc3339_opts(SecondsFormat::Secs, true);
        daypass.api.call("PATCH", &format!("/members/{}", ids[number].0), &json!({"expiresAt": end})).map(drop)
    };
    report.failures("Daypass, setting ends", &closed(CLIENTS, ids.len(), Instant::now() + PATIENCE, &set));
}

/// The first whole second at which all ends can have been set: that takes as long as creations did.
pub(crate) fn after_setting(creations: Duration) -> Result<Moment> {
    Moment::after(creations * 3 / 2 + MARGIN)
}

/// Members that end in the same second. The bare client makes the same calls from that second on.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let daypass = cluster.daypass()?;
    let quantities = ["refused", "account gone", "objects gone"];
    // For each of `quantities`: the bare client's turns, Daypass's, OpenBao's.
    let mut turns: [[Vec<Vec<Duration>>; 3]; 3] = Default::default();
    for at in abba(2, 1) {
        sizes.ensure_time()?;
        let times = if at == 0 { bare(cluster, sizes, report)? } else { members(cluster, &daypass, sizes, report)? };
        times.into_iter().zip(&mut turns).for_each(|(times, what)| what[at].push(times));
    }
    daypass.stop()?;
    if let Some(bao) = bench.bao.as_ref().filter(|_| sizes.leases > 0) {
        match leases(cluster, bao, sizes, report) {
            Ok(times) => turns[1][2].push(times),
            Err(error) => report.note(format!("leases that end together: {error:#}")),
        }
    }
    for (what, turns) in quantities.into_iter().zip(turns) {
        for percent in [50, 99] {
            let subjects = ["bare client, the same calls", "Daypass", "OpenBao"].into_iter().zip(&turns);
            let of = |turns: &Vec<Vec<Duration>>| {
                turns.iter().filter(|times| !times.is_empty()).map(|times| percentile(times, percent)).collect()
            };
            let goal = if percent == 99 && what != "refused" { "ratio ≤ 1.3" } else { "" };
            report.add(Group {
                scenario: "ends",
                what: format!("{} end together: {what}, p{percent}", sizes.ends),
                unit: "ms",
                goal: ("Daypass", goal),
                reference: Some("bare client, the same calls"),
                series: subjects.map(|(name, turns)| (name.to_owned(), of(turns))).collect(),
            });
        }
    }
    Ok(())
}

/// When members of Daypass were refused, when their accounts were gone, and when everything was.
fn members(cluster: &Cluster, daypass: &Daypass, sizes: &Sizes, report: &mut Report) -> Result<[Vec<Duration>; 3]> {
    let begun = Instant::now();
    let ids = fill(daypass, 0, sizes.ends, sizes.until, report);
    let names: HashSet<String> = ids.iter().map(|(id, _)| name(id)).collect();
    let end = after_setting(begun.elapsed())?;
    let until = sizes.until.min(end.instant + PATIENCE);
    let watches = [watch(cluster, MEMBERS, names.clone(), until)?, watch(cluster, ACCOUNTS, names, until)?];
    end_at(daypass, &ids, &|_| end, report);
    let refused = Mutex::new(Vec::new());
    end.wait();
    thread::scope(|scope| {
        for (id, password) in ids.iter().take(ASKED) {
            let refused = &refused;
            scope.spawn(move || {
                let path = format!("/members/{id}/me");
                while Instant::now() < until {
                    let answer = daypass.api.get_as(&path, id, password);
                    if answer.is_ok_and(|(status, _)| status == 401 || status == 404) {
                        if let Ok(mut refused) = refused.lock() {
                            refused.push(end.instant.elapsed());
                        }
                        break;
                    }
                    thread::sleep(ASK);
                }
            });
        }
    });
    let [members, accounts] = deaths(watches)?;
    let refused = refused.into_inner().map_err(|_| anyhow!("a client panicked"))?;
    let left = ids.len() - members.len().min(accounts.len());
    if left > 0 {
        report.note(format!("Daypass: {left} of {} members were left {PATIENCE:?} after their end", ids.len()));
    }
    Ok([refused, delays(&accounts, end), delays(&last(members, &accounts), end)])
}

/// The same by a bare client, whose members nobody refuses.
fn bare(cluster: &Cluster, sizes: &Sizes, report: &mut Report) -> Result<[Vec<Duration>; 3]> {
    let bare = Bare::new(cluster, true)?;
    let made: Stock<Made> = Stock::default();
    let create = |_| bare.create().map(|one| made.put(one));
    report.failures("bare client, creating", &closed(CLIENTS, sizes.ends, sizes.until, &create));
    let names: HashSet<String> = made.all().into_iter().map(|made| made.name).collect();
    let end = Moment::after(Duration::from_secs(1))?;
    let until = sizes.until.min(end.instant + PATIENCE);
    let members = watch(cluster, &format!("/apis/{TWIN_GROUP}/v1alpha1/members"), names.clone(), until)?;
    let watches = [members, watch(cluster, ACCOUNTS, names, until)?];
    end.wait();
    let samples = closed(CLIENTS, made.len(), until, &|_| bare.expire(made.take()?));
    report.failures("bare client, ending", &samples);
    let [members, accounts] = deaths(watches)?;
    Ok([Vec::new(), delays(&accounts, end), delays(&last(members, &accounts), end)])
}

/// When the accounts of OpenBao's leases were gone. Leases of Kubernetes' tokens last ten minutes at least, so their
/// end is an order to revoke all of them, which OpenBao carries out as it does with expired ones.
fn leases(cluster: &Cluster, bao: &OpenBao, sizes: &Sizes, report: &mut Report) -> Result<Vec<Duration>> {
    let made = Stock::default();
    let create = |_| bao.create().map(|(_, account)| made.put(account));
    report.failures("OpenBao, creating", &closed(CLIENTS, sizes.leases, sizes.until, &create));
    let until = sizes.within(PATIENCE);
    let watch = watch(cluster, ACCOUNTS, made.all().into_iter().collect(), until)?;
    let end = Moment::after(Duration::ZERO)?;
    end.wait();
    bao.revoke_all()?;
    let deaths = watch.join().map_err(|_| anyhow!("a watch panicked"))?;
    let left = made.len() - deaths.len();
    if left > 0 {
        report.note(format!("OpenBao: {left} of {} accounts were left {PATIENCE:?} after their end", made.len()));
    }
    Ok(delays(&deaths, end))
}

fn deaths(watches: [JoinHandle<Deaths>; 2]) -> Result<[Deaths; 2]> {
    let [members, accounts] = watches.map(|watch| watch.join().map_err(|_| anyhow!("a watch panicked")));
    Ok([members?, accounts?])
}

/// The later of both deaths of each.
fn last(mut members: Deaths, accounts: &Deaths) -> Deaths {
    members.retain(|name, at| accounts.get(name).map(|other| *at = (*at).max(*other)).is_some());
    members
}

/// Members expire while Daypass is down.
pub(crate) fn outage(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let daypass = cluster.daypass()?;
    let (before, begun) = (cluster.leftovers()?, Instant::now());
    let ids = fill(&daypass, 0, sizes.outage_members, sizes.until, report);
    let down = after_setting(begun.elapsed())?;
    let seconds = sizes.outage.as_secs() as usize;
    end_at(&daypass, &ids, &|number| down.plus(1 + number * seconds / ids.len().max(1)), report);
    down.wait();
    daypass.kill()?;
    down.plus(seconds).wait();
    let back = Instant::now();
    let daypass = cluster.daypass()?;
    // What cannot be read yet is not gone. What is left after some time is reported.
    let is_gone = || Ok(cluster.leftovers().is_ok_and(|left| left <= before));
    let gone = eventually("all are gone", sizes.within(PATIENCE), is_gone);
    let taken = if gone.is_ok() { back.elapsed().as_secs_f64() } else { f64::NAN };
    let what = format!("{} expire while Daypass is down for {seconds} s", ids.len());
    report.add(Group::single("outage", &format!("{what}: from its return until all are gone"), "s", "Daypass", taken));
    let left = cluster.leftovers()?.saturating_sub(before) as f64;
    report.add(Group::single("outage", &format!("{what}: objects left over"), "", "Daypass", left));
    daypass.stop()
}

/// Starts Daypass anew; from then on these members end, one a second. Returns it, and after how many seconds it ended
/// one on time.
pub(crate) fn start(
    cluster: &Cluster,
    daypass: Daypass,
    ids: &[(String, String)],
    sizes: &Sizes,
    report: &mut Report,
) -> Result<(Daypass, f64)> {
    let begin = Moment::after(Duration::from_secs(ids.len() as u64 / 10) + MARGIN)?;
    let end = |number: usize| begin.plus(1 + number);
    let until = sizes.until.min(end(ids.len()).instant + PATIENCE);
    let watch = watch(cluster, ACCOUNTS, ids.iter().map(|(id, _)| name(id)).collect(), until)?;
    end_at(&daypass, ids, &end, report);
    daypass.stop()?;
    begin.wait();
    let daypass = cluster.daypass()?;
    let deaths = watch.join().map_err(|_| anyhow!("a watch panicked"))?;
    let is_on_time = |(number, (id, _)): (usize, &(String, String))| {
        let gone = deaths.get(&name(id))?;
        let is_late = gone.saturating_duration_since(end(number).instant) >= ON_TIME;
        (*gone > daypass.started && !is_late).then_some(*gone)
    };
    let gone = ids.iter().enumerate().filter_map(is_on_time).min();
    let first_end = gone.map_or(f64::NAN, |gone| gone.saturating_duration_since(daypass.started).as_secs_f64());
    Ok((daypass, first_end))
}
