//! Creating, listing and deleting members and getting kubeconfigs: Daypass, a bare client and OpenBao in turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::calls::Bare;
use crate::cluster::{Daypass, ROLES};
use crate::load::{Call, Samples, abba, closed, paced};
use crate::report::{Group, Report};
use crate::sizes::Sizes;

/// An operation on members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Kubeconfig,
    List,
    Delete,
}

/// In this order: members with kubeconfigs are deleted before the rest is measured.
const OPERATIONS: [(Operation, &str); 4] = [
    (Operation::Kubeconfig, "kubeconfig"),
    (Operation::Create, "create"),
    (Operation::List, "list"),
    (Operation::Delete, "delete"),
];

/// How the calls are sent, and what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    OneClient,
    SixteenClients,
    FixedRate,
}

const MODES: [Mode; 3] = [Mode::OneClient, Mode::SixteenClients, Mode::FixedRate];
const CLIENTS: usize = 16;
/// How many members a list has at least.
const LISTED: usize = 100;
/// How many kubeconfigs a member gets on average. Ten are allowed.
const KUBECONFIGS: usize = 6;

/// What is measured: it makes members and keeps them for the calls that follow.
pub(crate) trait Subject: Sync {
    fn name(&self) -> &'static str;
    fn call(&self, operation: Operation) -> Result<()>;
    /// How many members it has.
    fn live(&self) -> usize;
    /// Whether it is so slow that it takes fewer turns, and none at a fixed rate.
    fn is_slow(&self) -> bool {
        false
    }
    fn can(&self, _operation: Operation) -> bool {
        true
    }
}

/// What a subject has made.
#[derive(Debug)]
pub(crate) struct Stock<T> {
    made: Mutex<Vec<T>>,
    next: AtomicUsize,
}

impl<T> Default for Stock<T> {
    fn default() -> Self {
        Self { made: Mutex::default(), next: AtomicUsize::new(0) }
    }
}

impl<T: Clone> Stock<T> {
    fn with<R>(&self, work: impl FnOnce(&mut Vec<T>) -> R) -> R {
        work(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn put(&self, one: T) {
        self.with(|made| made.push(one));
    }

    pub(crate) fn take(&self) -> Result<T> {
        self.with(Vec::pop).context("nothing is left to delete")
    }

    /// A copy of one, of each in turn.
    pub(crate) fn lend(&self) -> Result<T> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.with(|made| made.get(next % made.len().max(1)).cloned()).context("nothing was created")
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.with(|made| made.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.with(|made| made.len())
    }
}

/// Daypass's REST API.
struct Rest<'a> {
    daypass: &'a Daypass,
    /// Ids and passwords.
    made: Stock<(String, String)>,
}

impl Subject for Rest<'_> {
    fn name(&self) -> &'static str {
        "Daypass"
    }

    fn call(&self, operation: Operation) -> Result<()> {
        let api = &self.daypass.api;
        match operation {
            Operation::Create => self.daypass.create(ROLES[0]).map(|made| self.made.put(made)),
            Operation::Kubeconfig => {
                let (id, password) = self.made.lend()?;
                let (status, text) = api.get_as(&format!("/members/{id}/kubeconfig"), &id, &password)?;
                (status == 200).then_some(()).with_context(|| format!("kubeconfig: {status}: {text}"))
            }
            Operation::List => api.get("/members?limit=100").map(drop),
            Operation::Delete => {
                api.call("DELETE", &format!("/members/{}", self.made.take()?.0), &().into()).map(drop)
            }
        }
    }

    fn live(&self) -> usize {
        self.made.len()
    }
}

/// Measures all operations.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    let daypass = cluster.daypass()?;
    let (objects, calls) = (Bare::new(cluster, false)?, Bare::new(cluster, true)?);
    let rest = Rest { daypass: &daypass, made: Stock::default() };
    let mut subjects: Vec<&dyn Subject> = vec![&objects, &calls, &rest];
    subjects.extend(bench.bao.as_ref().map(|bao| bao as &dyn Subject));
    for mode in MODES.into_iter().filter(|mode| *mode != Mode::FixedRate || sizes.rate > 0.0) {
        for (operation, name) in OPERATIONS {
            sizes.ensure_time()?;
            fill_up(&subjects, sizes, report);
            let taken = take_turns(&subjects, mode, operation, sizes, report);
            let values = subjects.iter().zip(taken).map(|(subject, taken)| (subject.name(), mode.values(&taken)));
            report.add(Group {
                scenario: "operations",
                what: format!("{name}, {}", mode.label(sizes)),
                unit: mode.unit(),
                goal: ("Daypass", mode.goal(operation)),
                reference: Some(calls.name()),
                series: values.map(|(name, values)| (name.to_owned(), values)).collect(),
            });
            if operation == Operation::Kubeconfig {
                // The end of a member costs a call more for each kubeconfig.
                empty(&subjects, sizes, report);
            }
        }
    }
    empty(&subjects, sizes, report);
    daypass.stop()
}

/// Creates what the calls need.
fn fill_up(subjects: &[&dyn Subject], sizes: &Sizes, report: &mut Report) {
    for subject in subjects.iter().filter(|subject| !subject.is_slow()) {
        let missing = LISTED.saturating_sub(subject.live());
        let filled = closed(CLIENTS, missing, sizes.until, &|_| subject.call(Operation::Create));
        report.failures(subject.name(), &filled);
    }
}

fn empty(subjects: &[&dyn Subject], sizes: &Sizes, report: &mut Report) {
    for subject in subjects {
        let emptied = closed(CLIENTS, subject.live(), sizes.until, &|_| subject.call(Operation::Delete));
        report.failures(subject.name(), &emptied);
    }
}

/// The turns of each subject.
fn take_turns(
    subjects: &[&dyn Subject],
    mode: Mode,
    operation: Operation,
    sizes: &Sizes,
    report: &mut Report,
) -> Vec<Vec<Samples>> {
    let mut taken: Vec<Vec<Samples>> = subjects.iter().map(|_| Vec::new()).collect();
    for at in abba(subjects.len(), sizes.turns) {
        let subject = subjects[at];
        let skip = subject.is_slow() && (mode == Mode::FixedRate || taken[at].len() == sizes.turns);
        if skip || !subject.can(operation) {
            continue;
        }
        // What exists has to last for all turns.
        let turns_left = 2 * sizes.turns - taken[at].len();
        let most = match operation {
            Operation::Delete => subject.live() / turns_left,
            Operation::Kubeconfig => subject.live() * KUBECONFIGS / (2 * sizes.turns),
            Operation::Create | Operation::List => sizes.calls,
        };
        let samples = mode.send(most.min(sizes.calls), sizes, &|_| subject.call(operation));
        report.failures(subject.name(), &samples);
        taken[at].push(samples);
    }
    taken
}

impl Mode {
    fn send(self, most: usize, sizes: &Sizes, call: &Call<'_>) -> Samples {
        let until = sizes.within(sizes.turn);
        match self {
            Self::OneClient => closed(1, most, until, call),
            Self::SixteenClients => closed(CLIENTS, most, until, call),
            // Twice as long, for more samples.
            Self::FixedRate => {
                let count = (2.0 * sizes.rate * sizes.turn.as_secs_f64()) as usize;
                paced(sizes.rate, most.min(count), sizes.until, call)
            }
        }
    }

    fn values(self, turns: &[Samples]) -> Vec<f64> {
        let value = |samples: &Samples| match self {
            Self::OneClient => samples.percentile(50),
            Self::SixteenClients => samples.rate(),
            Self::FixedRate => samples.percentile(99),
        };
        turns.iter().map(value).collect()
    }

    fn label(self, sizes: &Sizes) -> String {
        match self {
            Self::OneClient => "1 client, p50".to_owned(),
            Self::SixteenClients => "16 clients".to_owned(),
            Self::FixedRate => format!("{} a second, p99", sizes.rate),
        }
    }

    fn unit(self) -> &'static str {
        if self == Self::SixteenClients { "/s" } else { "ms" }
    }

    fn goal(self, operation: Operation) -> &'static str {
        match (self, operation) {
            (Self::OneClient, Operation::Create | Operation::Kubeconfig) => "ratio ≤ 1.3",
            (Self::SixteenClients, Operation::Create) => "ratio ≥ 0.8",
            _ => "",
        }
    }
}

/// Creates members until there are `to`, in all roles, and returns the ids and passwords of the new ones.
pub(crate) fn fill(
    daypass: &Daypass,
    from: usize,
    to: usize,
    until: Instant,
    report: &mut Report,
) -> Vec<(String, String)> {
    let made = Stock::default();
    let create = |number: usize| daypass.create(ROLES[number % ROLES.len()]).map(|one| made.put(one));
    report.failures("Daypass, filling", &closed(CLIENTS, to - from, until, &create));
    made.all()
}
