//! What kubectl does in a pod of a real node: how fast it is through the gateway, and how soon the gateway cuts it.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use daypass_local::{Node, Process};
use serde_json::Value;

use crate::cluster::{Cluster, DEBUG_ROLE, Daypass, PODS, apply, eventually};
use crate::ends::{after_setting, end_at};
use crate::gateway::{EARLY, Member, OPTIONS, PATIENCE, since};
use crate::load::{abba, rank};
use crate::peers::{API_SERVER, GATEWAY, Subject, Subjects};
use crate::report::{Group, Report, Series};
use crate::sizes::Sizes;
use crate::{Bench, progress};

const POD: &str = "box";
/// A pod with this machine's programs. It logs a line each second, and echoes what it receives on port 7.
const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: box, namespace: pods}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: box
      image: localhost/pause:1
      imagePullPolicy: Never
      command: [sh, -c, 'perl -e "$ECHO" & while echo tick; do sleep 1; done']
      env:
        - name: ECHO
          value: |
            use IO::Socket::INET;
            $SIG{CHLD} = 'IGNORE';
            my $server = IO::Socket::INET->new(Listen => 99, LocalPort => 7) or die;
            while (my $client = $server->accept) {
                next if fork;
                print $client $_ while <$client>;
                exit;
            }
      securityContext: {runAsUser: 0}
      volumeMounts: [{name: usr, mountPath: /usr}, {name: lib, mountPath: /lib}, {name: lib64, mountPath: /lib64}]
  volumes:
    - {name: usr, hostPath: {path: /usr}}
    - {name: lib, hostPath: {path: /lib}}
    - {name: lib64, hostPath: {path: /lib64}}
"#;
const PORT: &str = "7";
/// How long so many streams may take to open.
const OPENING: Duration = Duration::from_secs(60);
/// What `peers streams` calls the kinds of streams.
const KINDS: [&str; 4] = ["watch", "logs -f", "exec", "port-forward"];

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (cluster, sizes) = (&bench.cluster, &bench.sizes);
    progress("pods: starting a node");
    let mut node = Node::start(&cluster.plane)?;
    apply(&cluster.plane, MANIFEST)?;
    cluster.kubectl(&["wait", "-n", PODS, "--for=condition=Ready", "--timeout=120s", "pod", POD])?;
    let daypass = cluster.daypass_with(&OPTIONS)?;
    let member = Member::new(&daypass, DEBUG_ROLE)?;
    let subjects = Subjects::start(cluster, &daypass, &member, bench.peers.as_deref())?;
    for up in [false, true] {
        transfers(cluster, &subjects.all, up, sizes, report)?;
    }
    drop(subjects);
    if let Some(peers) = &bench.peers {
        for expire in [false, true] {
            cuts(cluster, &daypass, peers, expire, sizes, report)?;
        }
    }
    node.check()?;
    daypass.stop()
}

/// A command in the pod that prints much, or reads it.
fn transfers(cluster: &Cluster, subjects: &[Subject], up: bool, sizes: &Sizes, report: &mut Report) -> Result<()> {
    let way = if up { "to a pod" } else { "from a pod" };
    let what = format!("exec, {} MB {way}", sizes.transfer / 1_000_000);
    progress(&format!("pods: {what}"));
    let file = |subject: &Subject| {
        let file = cluster.plane.state_dir().join(format!("{}.kubeconfig", subject.name.replace(' ', "-")));
        subject.write_kubeconfig(&file).map(|()| file)
    };
    let kubeconfigs = subjects.iter().map(file).collect::<Result<Vec<PathBuf>>>()?;
    // Of each subject: its rates, and its CPU times.
    let mut turns = vec![[Vec::new(), Vec::new()]; subjects.len()];
    for at in abba(subjects.len(), sizes.turns) {
        sizes.ensure_time()?;
        let (begun, cpu) = (Instant::now(), subjects[at].cpu()?);
        match transfer(cluster, &kubeconfigs[at], sizes.transfer, up) {
            Ok(()) => {
                turns[at][0].push(sizes.transfer as f64 / 1e6 / begun.elapsed().as_secs_f64());
                turns[at][1].push(subjects[at].cpu()? - cpu);
            }
            Err(error) => report.note(format!("{}: {what}: {error:#}", subjects[at].name)),
        }
    }
    for (number, (quantity, unit, goal)) in
        [("throughput", "MB/s", ""), ("its CPU", "s", "less than either Go core")].into_iter().enumerate()
    {
        let series = subjects.iter().zip(&turns);
        report.add(Group {
            scenario: "pods",
            what: format!("{what}, {quantity}"),
            unit,
            goal: (GATEWAY, goal),
            reference: Some(API_SERVER),
            series: series.map(|(subject, turns)| (subject.name.to_owned(), turns[number].clone())).collect(),
        });
    }
    Ok(())
}

/// Lets a command in the pod print, or read, so many bytes.
fn transfer(cluster: &Cluster, kubeconfig: &Path, bytes: u64, up: bool) -> Result<()> {
    let plane = &cluster.plane;
    let mut kubectl = plane.guarded(&plane.tools().kubectl());
    kubectl.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", plane.state_dir().join("kubectl-cache"));
    kubectl.args(["exec", "--stdin", "-n", PODS, POD, "--"]);
    let count = bytes.to_string();
    if up {
        kubectl.args(["wc", "-c"])
    } else {
        kubectl.args(["head", "-c", &count, "/dev/zero"])
    };
    let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, mut stdout) = stdin.zip(stdout).context("no pipes")?;
    let written = thread::spawn(move || io::copy(&mut io::repeat(0).take(if up { bytes } else { 0 }), &mut stdin));
    let received = thread::spawn(move || -> Result<u64> {
        if !up {
            return Ok(io::copy(&mut stdout, &mut io::sink())?);
        }
        let mut printed = String::new();
        stdout.read_to_string(&mut printed)?;
        Ok(printed.trim().parse()?)
    });
    let ended = eventually("kubectl ends", Instant::now() + PATIENCE, || Ok(child.try_wait()?.is_some()));
    if ended.is_err() {
        child.kill()?;
    }
    let (status, received) = (child.wait()?, received.join().map_err(|_| anyhow!("the reader panicked"))?);
    let _ = written.join();
    ended?;
    let received = received?;
    ensure!(status.success() && received == bytes, "{status}: {received} bytes arrived");
    Ok(())
}

/// Streams of kubectl that are open at the same time, in a client of their own.
struct Streams {
    client: Process,
    /// What it prints.
    output: PathBuf,
    count: usize,
}

impl Streams {
    /// Opens so many of each kind for a member.
    fn open(cluster: &Cluster, gateway: &Subject, peers: &Path, sizes: &Sizes) -> Result<Self> {
        let plane = &cluster.plane;
        let (kubeconfig, output) = (plane.state_dir().join("streams.kubeconfig"), plane.log("streams-output"));
        gateway.write_kubeconfig(&kubeconfig)?;
        fs::write(&output, "")?;
        let mut command = plane.guarded(peers);
        command.arg("streams").arg(&kubeconfig).args([PODS, POD, PORT, &sizes.streams.to_string()]);
        let client = Process::start("streams", command, &plane.log("streams"), Some(&output))?;
        let mut streams = Self { client, output, count: sizes.streams * KINDS.len() };
        eventually("all streams are open", sizes.within(OPENING), || {
            streams.client.ensure_alive()?;
            Ok(!fs::read_to_string(&streams.output)?.is_empty())
        })?;
        Ok(streams)
    }

    /// Waits until all have ended, or until then: the kind of each, and when it ended.
    fn ended(self, until: Instant) -> Result<Vec<(String, Instant)>> {
        let lines = || Ok::<_, anyhow::Error>(fs::read_to_string(&self.output)?);
        // Those that are still open then are missing.
        let _ = eventually("all streams have ended", until, || Ok(lines()?.lines().count() > self.count));
        let (now, clock) = (Instant::now(), UNIX_EPOCH.elapsed()?);
        let end = |line: &str| -> Result<(String, Instant)> {
            let end: Value = serde_json::from_str(line)?;
            let (kind, at) = end["kind"].as_str().zip(end["at"].as_f64()).context("not an end")?;
            let ago = clock.saturating_sub(Duration::from_secs_f64(at / 1e3));
            Ok((kind.to_owned(), now - ago))
        };
        lines()?.lines().skip(1).map(end).collect()
    }
}

/// A member with all kinds of streams is deleted, or expires.
fn cuts(
    cluster: &Cluster,
    daypass: &Daypass,
    peers: &Path,
    expire: bool,
    sizes: &Sizes,
    report: &mut Report,
) -> Result<()> {
    let cause = if expire { "expire: from expiresAt" } else { "are revoked: from the answer" };
    let what = format!("{} mixed streams {cause}", sizes.streams * KINDS.len());
    progress(&format!("pods: {what}"));
    let mut turns = Vec::new();
    for _ in 0..sizes.turns {
        sizes.ensure_time()?;
        let member = Member::new(daypass, DEBUG_ROLE)?;
        let streams = Streams::open(cluster, &Subject::gateway(daypass, &member), peers, sizes)?;
        let count = streams.count;
        let (earliest, from) = if expire {
            let end = after_setting(Duration::ZERO)?;
            end_at(daypass, &[(member.id, member.password)], &|_| end, report);
            (end.instant - EARLY, end.instant)
        } else {
            let sent = Instant::now();
            daypass.api.call("DELETE", &format!("/members/{}", member.id), &Value::Null)?;
            (sent, Instant::now())
        };
        let ended = streams.ended(from.max(Instant::now()) + PATIENCE)?;
        if ended.len() < count {
            report.note(format!("{what}: {} are still open", count - ended.len()));
        }
        let early = ended.iter().filter(|(_, at)| *at < earliest).count();
        if early > 0 {
            report.note(format!("{what}: {early} ended before"));
        }
        turns.push(ended.into_iter().map(|(kind, at)| (kind, since(from, at))).collect::<Vec<_>>());
    }
    for (quantity, percent, goal) in [("p50", 50, ""), ("p99", 99, "≤ 1000 ms"), ("last", 100, "")] {
        // None stands for all of them.
        let of = |kind: Option<&str>| -> Vec<f64> {
            let late = |turn: &Vec<(String, f64)>| {
                let these = turn.iter().filter(|(of, _)| kind.is_none_or(|kind| kind == of));
                rank(these.map(|(_, late)| *late).collect(), percent)
            };
            turns.iter().map(late).collect()
        };
        let kinds = KINDS.iter().map(|kind| ((*kind).to_owned(), of(Some(kind))));
        let mut series: Series = if percent == 99 { Vec::new() } else { kinds.collect() };
        series.push(("all".to_owned(), of(None)));
        let what = format!("{what} to the end, {quantity}");
        report.add(Group { scenario: "pods", what, unit: "ms", goal: ("all", goal), reference: None, series });
    }
    Ok(())
}
