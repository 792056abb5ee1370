//! What the gateway adds to requests and watches, how soon it cuts watches, and what open ones cost.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Daypass, ROLES};
use crate::ends::{after_setting, end_at};
use crate::http::Http;
use crate::load::{closed, rank};
use crate::operations::Stock;
use crate::peers::{GATEWAY, Subjects};
use crate::report::{Group, Report};
use crate::rest::{Bystander, compare};
use crate::sizes::Sizes;
use crate::watches::{ON_A_CONNECTION, open};
use crate::{Bench, events, progress, requests};

/// Nothing is refused because too much is open. A stop has nothing to wait for.
pub(crate) const OPTIONS: [&str; 4] = [
    "--kubeconfig-mode=gateway",
    "--gateway-member-streams=10000",
    // A member may hold a quarter.
    "--gateway-streams=40000",
    "--gateway-drain-seconds=1",
];
const CLIENTS: usize = 16;
/// How many watches each of many members has open.
const OF_EACH: usize = 10;
/// How long after their end watches may be open.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What ends more than this before its member expires was not cut for that reason.
pub(crate) const EARLY: Duration = Duration::from_secs(1);

/// A member with a gateway kubeconfig.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) password: String,
    pub(crate) server: String,
    pub(crate) certificate: String,
    pub(crate) token: String,
}

impl Member {
    pub(crate) fn new(daypass: &Daypass, role: &str) -> Result<Self> {
        let (id, password) = daypass.create(role)?;
        let (status, text) = daypass.api.get_as(&format!("/members/{id}/kubeconfig"), &id, &password)?;
        ensure!(status == 200, "kubeconfig: {status}: {text}");
        let kubeconfig: Value = serde_yaml::from_str(&text)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("an incomplete kubeconfig");
        let cluster = &kubeconfig["clusters"][0]["cluster"];
        let certificate = STANDARD.decode(text(&cluster["certificate-authority-data"])?)?;
        let (server, token) = (text(&cluster["server"])?, text(&kubeconfig["users"][0]["user"]["token"])?);
        Ok(Self { id, password, server, certificate: String::from_utf8(certificate)?, token })
    }

    /// A new connection through the gateway.
    pub(crate) fn client(&self) -> Result<Http> {
        Http::kubectl(&self.server, &self.certificate, &self.token)
    }

    /// The namespace and the name of its service account.
    pub(crate) fn account(&self) -> Result<(String, &str)> {
        let (role, name) = self.id.split_once('.').context("not an id")?;
        Ok((format!("daypass-{role}"), name))
    }

    /// A token for the API server, bound to the kubeconfig's Secret like the one that the gateway uses.
    pub(crate) fn direct_token(&self, cluster: &Cluster) -> Result<String> {
        let (namespace, name) = self.account()?;
        let member =
            cluster.admin.get(&format!("/apis/daypass.dev/v1alpha1/namespaces/{namespace}/members/{name}"))?;
        let uid = &member["status"]["kubeconfigs"][0]["secretUid"];
        let secrets = cluster.admin.get(&format!("/api/v1/namespaces/{namespace}/secrets"))?;
        let mut secrets = secrets["items"].as_array().into_iter().flatten().map(|secret| &secret["metadata"]);
        let secret = secrets.find(|secret| secret["uid"] == *uid).context("no Secret of the kubeconfig")?;
        let bound = json!({"kind": "Secret", "apiVersion": "v1", "name": secret["name"], "uid": uid});
        let spec = json!({"audiences": [], "expirationSeconds": 3500, "boundObjectRef": bound});
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let answer = Http::kubernetes(&cluster.plane, &cluster.daypass_token)?.call("POST", &path, &body)?;
        answer["status"]["token"].as_str().map(str::to_owned).context("no token")
    }
}

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    progress("gateway: at rest");
    at_rest(bench, report)?;
    let daypass = cluster.daypass_with(&OPTIONS)?;
    let subjects = Subjects::start(cluster, &daypass, &Member::new(&daypass, ROLES[0])?, bench.peers.as_deref())?;
    // First, while they have little memory to use again.
    events::run(cluster, &subjects.all, sizes, report)?;
    requests::run(cluster, &subjects.all, sizes, report)?;
    drop(subjects);
    for count in sizes.watches {
        for members in [1, (count / OF_EACH).max(2)] {
            for expire in [false, true] {
                cuts(&daypass, [members, count], expire, sizes, report)?;
            }
        }
    }
    daypass.stop()
}

/// From one moment to another in milliseconds; negative if that came first.
pub(crate) fn since(then: Instant, at: Instant) -> f64 {
    let time = at.saturating_duration_since(then).as_secs_f64() - then.saturating_duration_since(at).as_secs_f64();
    time * 1e3
}

/// Open watches. Each tells the number of its member and when it ended.
struct Watches {
    ends: Receiver<(usize, Instant)>,
    count: usize,
}

impl Watches {
    /// Opens this many for each of these members.
    fn open(members: &[Member], each: usize, sizes: &Sizes, report: &mut Report) -> Result<Self> {
        let (sender, ends) = channel();
        let connections = each.div_ceil(ON_A_CONNECTION);
        let clients = members.iter().flat_map(|member| (0..connections).map(|_| member.client()));
        let clients = clients.collect::<Result<Vec<_>>>()?;
        let count = open(&clients, each * members.len(), sizes, report, move |client, mut stream| {
            let _ = io::copy(&mut stream, &mut io::sink());
            let _ = sender.send((client / connections, Instant::now()));
        });
        Ok(Self { ends, count })
    }

    /// Waits until all have ended, or until then.
    fn ended(&self, until: Instant) -> Vec<(usize, Instant)> {
        let next = |_| self.ends.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
        (0..self.count).map_while(next).collect()
    }
}

/// Members with this many watches in all are deleted, or expire in the same second.
fn cuts(
    daypass: &Daypass,
    [members, count]: [usize; 2],
    expire: bool,
    sizes: &Sizes,
    report: &mut Report,
) -> Result<()> {
    let what = format!(
        "{count} watches of {members} {} {}",
        if members == 1 { "member" } else { "members" },
        if expire { "expire: from expiresAt" } else { "are revoked: from the answer" }
    );
    progress(&format!("gateway: {what}"));
    let mut turns: [(&str, usize, Vec<f64>); 3] = [("p50", 50, vec![]), ("p99", 99, vec![]), ("last", 100, vec![])];
    for _ in 0..2 * sizes.turns {
        sizes.ensure_time()?;
        let begun = Instant::now();
        let made = Stock::default();
        let create = |_| Member::new(daypass, ROLES[0]).map(|member| made.put(member));
        report.failures("members", &closed(CLIENTS, members, sizes.until, &create));
        let members = made.all();
        let created = begun.elapsed();
        let watches = Watches::open(&members, count / members.len().max(1), sizes, report)?;
        let end = after_setting(created * 2)?;
        // Each member, when its watches may end at the earliest, and the moment from which their ends count.
        let from: Stock<(usize, (Instant, Instant))> = Stock::default();
        if expire {
            let ids: Vec<_> = members.iter().map(|member| (member.id.clone(), member.password.clone())).collect();
            end_at(daypass, &ids, &|_| end, report);
            (0..ids.len()).for_each(|number| from.put((number, (end.instant - EARLY, end.instant))));
        } else {
            let delete = |number: usize| {
                let sent = Instant::now();
                daypass.api.call("DELETE", &format!("/members/{}", members[number].id), &Value::Null)?;
                from.put((number, (sent, Instant::now())));
                Ok(())
            };
            report.failures("revoking", &closed(CLIENTS, members.len(), sizes.until, &delete));
        }
        let ended = watches.ended(end.instant.max(Instant::now()) + PATIENCE);
        if ended.len() < watches.count {
            report.note(format!("{what}: {} are still open", watches.count - ended.len()));
        }
        let from: HashMap<usize, (Instant, Instant)> = from.all().into_iter().collect();
        let timely = |(member, at): &(usize, Instant)| from.get(member).filter(|(earliest, _)| at >= earliest);
        let late = |end: &(usize, Instant)| timely(end).map(|(_, from)| since(*from, end.1));
        let late: Vec<f64> = ended.iter().filter_map(late).collect();
        if late.len() < ended.len() {
            report.note(format!("{what}: {} ended before", ended.len() - late.len()));
        }
        turns.iter_mut().for_each(|(_, percent, values)| values.push(rank(late.clone(), *percent)));
    }
    for (name, _, values) in turns {
        let (what, series) = (format!("{what} to the end, {name}"), vec![(GATEWAY.to_owned(), values)]);
        report.add(Group { scenario: "gateway", what, unit: "ms", goal: ("", ""), reference: None, series });
    }
    Ok(())
}

/// What an open watch costs, and what many take in memory. Daypass beats from the first request on.
fn at_rest(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let (bystander, daypass) = (Bystander::new(cluster)?, cluster.daypass_with(&OPTIONS)?);
    let member = [Member::new(&daypass, ROLES[0])?];
    let mut windows = vec![("nothing open".to_owned(), bystander.window(bench, &daypass, sizes.window, report)?)];
    let none = daypass.memory()?;
    let mut open = vec![Watches::open(&member, 1, sizes, report)?];
    windows.push(("1 watch open".to_owned(), bystander.window(bench, &daypass, sizes.window, report)?));
    compare("gateway", windows, &[0, 1, 3], report);
    let mut series = vec![("nothing open".to_owned(), vec![none])];
    let mut each = Vec::new();
    for count in sizes.watches {
        let have: usize = open.iter().map(|watches| watches.count).sum();
        open.push(Watches::open(&member, count.saturating_sub(have), sizes, report)?);
        thread::sleep(sizes.settle);
        let (name, memory) = (format!("{count} idle watches"), daypass.memory()?);
        series.push((name.clone(), vec![memory]));
        each.push((name, vec![(memory - none) * 1024.0 / count as f64]));
    }
    for (what, unit, series) in [("memory of Daypass", "MiB", series), ("memory, each watch", "KiB", each)] {
        let (what, reference) = (what.to_owned(), Some("nothing open"));
        report.add(Group { scenario: "gateway", what, unit, goal: ("", ""), reference, series });
    }
    daypass.stop()
}
