//! A rolling upgrade: informers and watches miss nothing, and commands are told why they end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

use super::installed;
use super::kubelet::{Kubelet, debugger};
use crate::gateway::{Gateways, Running};
use crate::ha::load::Service;
use crate::support::{Daypass, Http, eventually};

const WATCHES: usize = 50;
/// How many watches share a client, so that there are some at each replica.
const OF_A_CLIENT: usize = 10;
const COMMANDS: usize = 20;
const RESTARTS: &str = "this replica of Daypass restarts";

/// A replica with the chart's options, that has less time to stop.
fn replica(gateways: &Gateways) -> Daypass {
    let args = ["--kubeconfig-mode=gateway", "--gateway-drain-seconds=5", "--shutdown-delay-seconds=3"];
    Daypass::with_args(gateways.cluster, &args)
}

/// ConfigMaps that come, change and go.
struct Changes<'a> {
    gateways: &'a Gateways,
    namespace: &'a str,
    made: usize,
}

impl Changes<'_> {
    fn object(&self, name: &str, n: usize) -> Value {
        let metadata = json!({"name": name, "namespace": self.namespace});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"n": n.to_string()}})
    }

    /// Creates another, changes the one before, and deletes the one before that.
    fn go_on(&mut self) {
        let name = |number: usize| format!("c{number}");
        self.gateways.cluster.create(&self.object(&name(self.made), 1));
        if let Some(last) = self.made.checked_sub(1) {
            self.gateways.cluster.apply(&self.object(&name(last), 2).to_string());
        }
        if let Some(old) = self.made.checked_sub(2) {
            self.gateways.cluster.kubectl(&["delete", "configmap", &name(old), "-n", self.namespace]);
        }
        self.made += 1;
    }

    /// What an informer must have seen, in order.
    fn events(&self) -> Vec<String> {
        let mut events = Vec::new();
        for number in 0..self.made {
            events.push(format!("added c{number} 1"));
            if let Some(last) = number.checked_sub(1) {
                events.push(format!("updated c{last} 2"));
            }
            if let Some(old) = number.checked_sub(2) {
                events.push(format!("deleted c{old} 2"));
            }
        }
        events
    }
}

/// Watches until it has seen the deletion of this ConfigMap, and begins again where a watch has ended. Returns what it
/// has seen, and how often a watch ended.
fn watch(api: &Http, namespace: &str, version: &str, last: &str) -> (Vec<String>, usize) {
    let (mut version, mut seen, mut ends) = (version.to_owned(), Vec::new(), 0);
    loop {
        let path = format!(
            "/api/v1/namespaces/{namespace}/configmaps?watch=1&allowWatchBookmarks=true&resourceVersion={version}"
        );
        // Where the watch before it ended, its connection may just be closed. Go's client tries another, too.
        let ask = || api.request("GET", &path).send();
        let answer = ask().or_else(|_| ask()).or_else(|_| ask()).expect("a replica answers");
        assert_eq!(answer.status(), 200);
        for line in BufReader::new(answer).lines() {
            let event: Value = serde_json::from_str(&line.expect("it does not break off")).expect("a whole event");
            let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
            assert_ne!(kind, "ERROR", "{event}");
            version = object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            let Some(n) = object["data"]["n"].as_str() else { continue };
            let done = match kind {
                "ADDED" => "added",
                "MODIFIED" => "updated",
                _ => "deleted",
            };
            let name = object["metadata"]["name"].as_str().unwrap();
            seen.push(format!("{done} {name} {n}"));
            if done == "deleted" && name == last {
                return (seen, ends);
            }
        }
        ends += 1;
    }
}

/// The state that an informer's events lead to, and the requests that it has sent.
fn view(output: &str) -> (BTreeMap<String, String>, Vec<&str>) {
    let (mut view, mut sent) = (BTreeMap::new(), Vec::new());
    for line in output.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["added" | "updated", name, n] => drop(view.insert(name.to_owned(), n.to_owned())),
            ["deleted", name, _] => drop(view.remove(name)),
            ["sent", ..] => sent.push(line),
            _ => panic!("{line} in {output}"),
        }
    }
    (view, sent)
}

#[test]
#[ignore = "needs `make test-clients`"]
fn rolling_upgrade_loses_no_event_and_commands_say_why_they_end() {
    let gateways = Gateways::shared();
    let (cluster, kubelet) = (gateways.cluster, Kubelet::start(gateways));
    let service = Service::start();
    let mut replicas = [replica(gateways), replica(gateways)];
    replicas.iter().for_each(|replica| service.add(replica));
    let guest = gateways.member(&debugger(gateways));
    let pod = kubelet.pod(gateways, &guest);
    let namespace = format!("rolling-{}", guest.member.name());
    cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
    let url = format!("https://{}", service.address);
    let text = std::fs::read_to_string(&guest.file).unwrap().replace(&gateways.first.url, &url);
    let kubeconfig = cluster.save(&text);

    let mut informer = Command::new(installed("GO_CLIENT"));
    let mut informer = Running::of(cluster, {
        informer.arg("informer").arg(&kubeconfig).arg(&namespace);
        informer
    });
    let commands: Vec<Running> = (0..COMMANDS)
        .map(|_| Running::start(cluster, &kubeconfig, &["exec", "-n", "default", &pod, "--", "talk"]))
        .collect();
    let mut changes = Changes { gateways, namespace: &namespace, made: 0 };
    let list = guest.api.get(&format!("/api/v1/namespaces/{namespace}/configmaps")).expect(200).json();
    let version = Arc::new(list["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
    let watches: Vec<_> = (0..WATCHES / OF_A_CLIENT)
        .flat_map(|_| {
            let api =
                Http::new(&format!("{url}/dp-1/gateway"), &cluster.serving_certificate()).with_token(&guest.token);
            std::iter::repeat_n(api, OF_A_CLIENT)
        })
        .map(|api| {
            let (namespace, version) = (namespace.clone(), Arc::clone(&version));
            thread::spawn(move || watch(&api, &namespace, &version, "last"))
        })
        .collect();
    commands.iter().for_each(|command| command.wait_for("line 2\n"));
    informer.wait_for("sent watch 200");

    for old in &mut replicas {
        let new = replica(gateways);
        service.add(&new);
        let mut old = std::mem::replace(old, new);
        old.terminate();
        let ended = eventually("the old one ends", || {
            changes.go_on();
            old.ended()
        });
        assert!(ended.contains("exit status: 0") && !old.log().contains("cut off"), "{ended}");
        service.remove(&old);
    }
    changes.go_on();
    cluster.create(&changes.object("last", 1));
    cluster.kubectl(&["delete", "configmap", "last", "-n", &namespace]);

    let mut expected = changes.events();
    expected.extend(["added last 1".to_owned(), "deleted last 1".to_owned()]);
    let mut ends = 0;
    for watch in watches {
        let (seen, ended) = watch.join().unwrap();
        assert_eq!(seen, expected);
        ends += ended;
    }
    println!("{} events; {WATCHES} watches ended {ends} times", expected.len());
    assert!(ends >= WATCHES, "each watch was at a replica that has stopped");

    informer.wait_for("deleted last 1");
    assert!(informer.is_running());
    let output = informer.output();
    let (view, sent) = view(&output);
    let left: BTreeSet<String> = cluster.names(&namespace, "configmap").into_iter().collect();
    assert_eq!(view.keys().cloned().collect::<BTreeSet<_>>(), left);
    assert_eq!(view[&format!("c{}", changes.made - 2)], "2");
    println!("{sent:#?}");
    for event in &expected {
        assert!(output.contains(&format!("{event}\n")), "the informer missed {event}: {output}");
    }

    for command in commands {
        let (status, output) = command.ended();
        assert!(status == 1 && output.contains(RESTARTS), "{status}: {output}");
    }
}
