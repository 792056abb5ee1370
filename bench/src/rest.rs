//! What members at rest cost, and what a ClusterRoleBinding for each member costs.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::calls::review;
use crate::cluster::{Cluster, Daypass, eventually};
use crate::http::Http;
use crate::load::{closed, paced};
use crate::operations::fill;
use crate::report::{Group, Report, Series};
use crate::{Bench, ends, progress};

/// Unrelated calls a second while something is at rest.
const GETS: f64 = 20.0;
const REVIEWS: f64 = 10.0;
/// How many parts of a window are compared.
const PARTS: u32 = 3;
const CLIENTS: usize = 16;

/// The controller looks at a new member ten seconds after its creation.
const AFTER_CREATIONS: Duration = Duration::from_secs(12);
/// So many calls in this time are rest, for which a window waits this long.
const CALLS_IN_CALM: usize = 6;
const CALM: Duration = Duration::from_secs(3);
const TO_REST: Duration = Duration::from_secs(60);

/// What is measured at rest: its name, its unit, the goal.
const QUANTITIES: [(&str, &str, &str); 8] = [
    ("calls of Daypass", "/min", "< 120 /min"),
    ("CPU of Daypass", "% of a core", ""),
    ("memory of Daypass", "MiB", "≤ 64 MiB"),
    ("CPU of the API server", "% of a core", ""),
    ("unrelated GET, p50", "ms", "as without"),
    ("unrelated GET, p99", "ms", "as without"),
    ("SubjectAccessReview, p50", "ms", "as without"),
    ("SubjectAccessReview, p99", "ms", "as without"),
];

/// The values of each of [`QUANTITIES`], one for each part of the window.
pub(crate) type Window = [Vec<f64>; QUANTITIES.len()];

/// A user who may read a ConfigMap, and what is asked about it.
pub(crate) struct Bystander {
    reader: Http,
    attributes: Value,
}

impl Bystander {
    pub(crate) fn new(cluster: &Cluster) -> Result<Self> {
        for args in [
            "create serviceaccount reader -n default",
            "create configmap bystander -n default --from-literal=a=b",
            "create role reader -n default --verb=get --resource=configmaps",
            "create rolebinding reader -n default --role=reader --serviceaccount=default:reader",
        ] {
            cluster.kubectl(&args.split(' ').collect::<Vec<_>>())?;
        }
        let token = cluster.kubectl(&["create", "token", "reader", "-n", "default", "--duration=24h"])?;
        let attributes = json!({"resource": "configmaps", "verb": "get", "namespace": "default", "name": "bystander"});
        Ok(Self { reader: Http::kubernetes(&cluster.plane, &token)?, attributes })
    }

    /// Measures a window at rest.
    pub(crate) fn window(
        &self,
        bench: &Bench,
        daypass: &Daypass,
        time: Duration,
        report: &mut Report,
    ) -> Result<Window> {
        let (cluster, until) = (&bench.cluster, bench.sizes.until);
        // A start and creations leave something to do, which is not rest. If it never ends, the window shows it.
        let is_calm = || -> Result<bool> {
            let audit = cluster.audit_length()?;
            thread::sleep(CALM);
            Ok(cluster.calls_since(audit)? <= CALLS_IN_CALM)
        };
        let _ = eventually("rest", bench.sizes.within(TO_REST), is_calm);
        let mut window = Window::default();
        let get = |_| self.reader.get("/api/v1/namespaces/default/configmaps/bystander").map(drop);
        let ask = |_| review(&cluster.admin, "reader", &self.attributes);
        for _ in 0..PARTS {
            bench.sizes.ensure_time()?;
            let (begun, audit) = (Instant::now(), cluster.audit_length()?);
            let (own, server) = (daypass.cpu()?, cluster.apiserver_cpu()?);
            let count = |rate: f64| (rate * (time / PARTS).as_secs_f64()) as usize;
            let (gets, reviews) = thread::scope(|scope| {
                let gets = scope.spawn(|| paced(GETS, count(GETS).max(1), until, &get));
                let reviews = paced(REVIEWS, count(REVIEWS).max(1), until, &ask);
                gets.join().map(|gets| (gets, reviews)).map_err(|_| anyhow!("a client panicked"))
            })?;
            report.failures("unrelated GET", &gets);
            report.failures("SubjectAccessReview", &reviews);
            let seconds = begun.elapsed().as_secs_f64();
            let values = [
                cluster.calls_since(audit)? as f64 * 60.0 / seconds,
                (daypass.cpu()? - own) / seconds * 100.0,
                daypass.memory()?,
                (cluster.apiserver_cpu()? - server) / seconds * 100.0,
                gets.percentile(50),
                gets.percentile(99),
                reviews.percentile(50),
                reviews.percentile(99),
            ];
            values.into_iter().zip(&mut window).for_each(|(value, all)| all.push(value));
        }
        Ok(window)
    }
}

/// Reports windows; the first one is the reference.
pub(crate) fn compare(
    scenario: &'static str,
    windows: Vec<(String, Window)>,
    quantities: &[usize],
    report: &mut Report,
) {
    let reference = windows.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let last = windows.last().map(|(name, _)| name.clone()).unwrap_or_default();
    for &at in quantities {
        let (what, unit, goal) = QUANTITIES[at];
        report.add(Group {
            scenario,
            what: what.to_owned(),
            unit,
            goal: (&last, if scenario == "rest" { goal } else { "" }),
            reference: Some(&reference),
            series: windows.iter().map(|(name, window)| (name.clone(), window[at].clone())).collect::<Series>(),
        });
    }
}

/// Members at rest, and a start with all of them.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let bystander = Bystander::new(cluster)?;
    // The very first start makes a certificate.
    cluster.daypass()?.stop()?;
    let daypass = cluster.daypass()?;
    let mut ready = vec![("0 members".to_owned(), vec![daypass.ready.as_secs_f64()])];
    let (mut memory, mut windows, mut lists, mut ids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for &(count, window) in &sizes.rest {
        progress(&format!("rest with {count} members"));
        let have = ids.len();
        ids.extend(fill(&daypass, have, count.max(have), sizes.until, report));
        sizes.ensure_time()?;
        if ids.len() > have {
            thread::sleep(AFTER_CREATIONS);
        }
        let label = format!("{} members", ids.len());
        let list = |_| daypass.api.get("/members?limit=100").map(drop);
        let list = closed(1, sizes.calls, sizes.within(sizes.turn), &list);
        report.failures("Daypass, list", &list);
        lists.push((label.clone(), vec![list.percentile(50)]));
        windows.push((label, bystander.window(bench, &daypass, window, report)?));
        if memory.is_empty() {
            memory.push(("0 members".to_owned(), vec![daypass.memory()?]));
        }
    }
    let (none, all) = ("0 members", format!("{} members", ids.len()));
    compare("rest", windows, &[0, 1, 2, 3, 4, 5, 6, 7], report);
    let (what, goal) = ("list, a page of 100, 1 client, p50".to_owned(), (all.as_str(), "≤ 20 ms"));
    report.add(Group { scenario: "rest", what, unit: "ms", goal, reference: Some(none), series: lists });
    progress("a start with all members");
    let (daypass, first_end) = ends::start(cluster, daypass, &ids[..sizes.ending.min(ids.len())], sizes, report)?;
    ready.push((all.clone(), vec![daypass.ready.as_secs_f64()]));
    memory.push((all.clone(), vec![daypass.memory()?]));
    let what = "until ready".to_owned();
    report.add(Group { scenario: "start", what, unit: "s", goal: ("", ""), reference: Some(none), series: ready });
    report.add(Group::single("start", "until the first end on time", "s", &all, first_end));
    let (what, goal) = ("memory of Daypass".to_owned(), (all.as_str(), "≤ 64 MiB"));
    report.add(Group { scenario: "start", what, unit: "MiB", goal, reference: Some(none), series: memory });
    daypass.stop()
}

/// ClusterRoleBindings, one for each member, as other engines make them: what they cost everybody.
pub(crate) fn cluster_bindings(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let (bystander, daypass) = (Bystander::new(cluster)?, cluster.daypass()?);
    let without = bystander.window(bench, &daypass, sizes.window, report)?;
    progress(&format!("{} ClusterRoleBindings", sizes.cluster_bindings));
    let create = |number: usize| {
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        cluster.admin.call("POST", path, &binding_of("ClusterRoleBinding", number)).map(drop)
    };
    let made = closed(CLIENTS, sizes.cluster_bindings, sizes.until, &create);
    report.failures("ClusterRoleBindings", &made);
    let label = format!("{} ClusterRoleBindings", made.taken.len());
    let with = bystander.window(bench, &daypass, sizes.window, report)?;
    let windows = vec![("no more ClusterRoleBindings".to_owned(), without), (label, with)];
    compare("bindings", windows, &[1, 3, 4, 5, 6, 7], report);
    daypass.stop()
}

/// A binding of a service account of its own to `view`.
pub(crate) fn binding_of(kind: &str, number: usize) -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": format!("engineer-{number}")},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": format!("engineer-{number}"), "namespace": "engineers"}],
    })
}
