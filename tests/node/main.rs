//! Daypass as its users run it: its image, installed by helm, in pods of a real node. Not part of `make test`:
//! `make test-node` runs it, on Linux as root with containerd and its companions, with client libraries and Chromium.
//!
//! If `DAYPASS_TRANSCRIPT` names a file, the test writes a transcript between that file's two marks.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic, in its helpers as well")]

mod browser;
mod cluster;
mod engineer;
mod expiry;
mod gateway;
mod pod;
mod session;
mod upkeep;

use std::fs;
use std::path::Path;

use cluster::{everything, ready_pods};
use session::Session;

#[test]
fn daypass_installs_works_upgrades_fails_over_and_uninstalls() {
    cluster::check_chart();
    let plane = cluster::control_plane();
    let mut node = cluster::node(&plane);
    let mut terminal = cluster::terminal(&plane);
    let before = everything(&mut terminal);

    install(&mut terminal);
    let member = engineer::create_through_the_service(&mut terminal);
    engineer::works_with_kubectl(&mut terminal, &member);
    upkeep::upgrade_adds_a_role_without_restart(&mut terminal);
    engineer::runs_a_command_in_a_pod(&mut terminal);
    upkeep::upgrade_replaces_pods(&mut terminal);
    expiry::member_ends_on_time_after_the_leader_is_killed(&mut terminal);
    engineer::revocation_ends_access(&mut terminal, &member);
    gateway::cuts_what_is_open(&plane, &mut terminal);
    if Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/charts/daypass/templates/tests").is_dir() {
        terminal.say("The chart's own test makes a member, uses it and ends it, in a pod:");
        terminal.run("helm test daypass --namespace daypass");
    }
    let figures = upkeep::measure(&mut terminal);
    uninstall(&mut terminal);
    let after = everything(&mut terminal);
    let left: Vec<&String> = after.difference(&before).collect();
    assert!(left.iter().all(|object| is_a_crd(object)), "left behind: {left:#?}");
    assert!(left.iter().any(|object| object.starts_with("customresourcedefinitions")), "the CRDs stay: {left:#?}");
    assert_eq!(before.difference(&after).collect::<Vec<_>>(), [""; 0], "taken along");
    terminal.say(
        "The test has compared every object in the cluster with those before the install: there is nothing \
            else.",
    );
    node.check().unwrap();

    println!("{figures}");
    let transcript = format!("{}\n{figures}", terminal.finish().trim_start());
    for secret in ["eyJ", "BEGIN CERTIFICATE-----\\n", "PRIVATE"] {
        assert!(!transcript.contains(secret), "a secret in the transcript: {secret}…");
    }
    if let Some(file) = std::env::var_os("DAYPASS_TRANSCRIPT") {
        write_between_marks(Path::new(&file), &transcript);
    }
}

fn install(terminal: &mut Session) {
    terminal.say("The values of this cluster, and who may manage members:");
    terminal.run("cat values.yaml");
    terminal.run("kubectl create serviceaccount data-plane-owner --namespace default");
    terminal.say("Install; two pods are ready:");
    let install = "helm install daypass deploy/charts/daypass --namespace daypass --create-namespace --values \
        values.yaml --wait --hide-notes";
    terminal.run(install);
    terminal.run("kubectl get pods --namespace daypass");
    let pods = ready_pods(terminal);
    assert_eq!(pods.len(), 2, "{pods:?}");
    assert!(pods.iter().all(|(_, _, restarts)| *restarts == 0), "{pods:?}");
    terminal.say(
        "Each found the API server by its public name, which takes DNS and TLS of a program that is linked \
            statically:",
    );
    let seen = "kubectl logs --namespace daypass --selector app.kubernetes.io/name=daypass --tail=-1 | grep -o 'the \
        API server answers at its public address'";
    let seen = terminal.eventually("both have looked", &format!("test \"$({seen} | wc -l)\" = 2 && {seen}"));
    assert_eq!(seen.lines().count(), 2, "{seen}");
    terminal.run(
        "kubectl logs --namespace daypass --selector app.kubernetes.io/name=daypass --tail=-1 | grep \
        'public address' | grep -o '\"message.*'",
    );
    // No shell and no other user in it.
    let (output, success) = terminal.attempt("kubectl exec --namespace daypass deployment/daypass -- sh -c true");
    assert!(!success && output.contains("executable file not found"), "{output}");
    assert!(
        terminal
            .quiet("kubectl exec --namespace daypass deployment/daypass -- /daypass --version")
            .starts_with("daypass ")
    );
}

fn uninstall(terminal: &mut Session) {
    terminal.say(
        "A member is in while Daypass is uninstalled. The gateway goes, so it can do nothing any more; then its \
        role's namespace, and it with that:",
    );
    engineer::creates(terminal, "nodes-view", "last");
    terminal.run("kubectl --kubeconfig last.kubeconfig get nodes");
    terminal.run("helm uninstall daypass --namespace daypass --wait");
    let refused = terminal.refused("kubectl --kubeconfig last.kubeconfig get nodes");
    assert!(refused.contains("Unable to connect to the server"), "{refused}");
    terminal.say(
        "Namespaces are emptied by Kubernetes, which takes a moment. What is left are the CRDs \
        (`crds.keep`), the namespace that `--create-namespace` made, and in that what Kubernetes puts into every \
        one:",
    );
    let names = "kubectl get \
        namespaces,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,customresourcedefinitions \
        -o name";
    terminal.eventually(
        "role namespaces are gone",
        "test -z \"$(kubectl get namespaces -l daypass.dev/role-id -o name)\"",
    );
    terminal.eventually("the pods are gone", "test -z \"$(kubectl get pods -n daypass -o name)\"");
    terminal.eventually("the garbage is collected", "test -z \"$(kubectl get leases,secrets -n daypass -o name)\"");
    terminal.run(&format!("{names} | grep daypass"));
    let left = terminal.run(
        "kubectl get all,configmaps,secrets,serviceaccounts,leases,roles,rolebindings --namespace daypass -o name",
    );
    assert_eq!(left, "configmap/kube-root-ca.crt\nserviceaccount/default");
    terminal.run("kubectl delete namespace daypass");
    terminal.run("kubectl delete serviceaccount data-plane-owner --namespace default");
    terminal.quiet("kubectl delete namespace shop");
}

/// A CRD of Daypass's, and what the API server makes of one.
fn is_a_crd(object: &str) -> bool {
    let kinds = ["customresourcedefinitions.apiextensions.k8s.io ", "apiservices.apiregistration.k8s.io "];
    kinds.iter().any(|kind| object.starts_with(kind)) && object.ends_with(".daypass.dev")
}

/// Puts `text` between the marks of a file.
fn write_between_marks(file: &Path, text: &str) {
    const MARKS: [&str; 2] = ["<!-- transcript: begin -->\n", "<!-- transcript: end -->\n"];
    let whole = fs::read_to_string(file).unwrap();
    let (head, rest) = whole.split_once(MARKS[0]).unwrap_or_else(|| panic!("no mark in {}", file.display()));
    let (_, tail) = rest.split_once(MARKS[1]).unwrap_or_else(|| panic!("no end mark in {}", file.display()));
    fs::write(file, format!("{head}{}{text}{}{tail}", MARKS[0], MARKS[1])).unwrap();
}
