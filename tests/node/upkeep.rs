//! An operator's changes, and the resources that Daypass uses.

use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{ready_pods, usage};
use crate::session::Session;

const ROLE: &str = r#"cat > more-roles.yaml <<'EOF'
roles:
  shop-debug:
    name: Debug the shop
    description: Looks into the shop's pods
    namespaces: [shop]
    rules:
      - apiGroups: [""]
        resources: [pods, pods/log]
        verbs: [get, list, watch]
      - apiGroups: [""]
        resources: [pods/exec, pods/attach, pods/portforward]
        verbs: [create, get]
EOF"#;

/// How many requests the load makes.
const REQUESTS: u32 = 2000;
/// How long the pods are measured at rest.
const REST: Duration = Duration::from_secs(20);
/// How many members exist meanwhile.
const MEMBERS: u32 = 90;

/// `helm upgrade` adds a role from the values and keeps the pods.
pub fn upgrade_adds_a_role_without_restart(terminal: &mut Session) {
    terminal.quiet("kubectl create namespace shop");
    terminal.quiet("kubectl run web --namespace shop --image localhost/pause:1 --image-pull-policy Never");
    terminal.quiet("kubectl wait --namespace shop --for condition=Ready pod/web --timeout 120s");
    terminal.say("A role is added, for the namespace `shop`. No pod is started anew for that:");
    terminal.run(ROLE);
    let before = ready_pods(terminal);
    terminal.run(
        "helm upgrade daypass deploy/charts/daypass --namespace daypass --values values.yaml \
        --values more-roles.yaml --wait --hide-notes",
    );
    assert_eq!(ready_pods(terminal), before, "the same pods as before");
    terminal.run("owner \"$MEMBERS/roles\" | grep -o '\"id\":\"[a-z-]*\"'");
    let listed = terminal.quiet("owner \"$MEMBERS/roles\"");
    assert!(listed.contains("\"shop-debug\""), "{listed}");
}

/// A changed value of the pods replaces them one by one.
pub fn upgrade_replaces_pods(terminal: &mut Session) {
    let before = ready_pods(terminal);
    terminal.say("A changed value that the pods are made of replaces them, one after the other:");
    terminal.run(
        "helm upgrade daypass deploy/charts/daypass --namespace daypass --reuse-values \
        --set logFormat=text --wait --hide-notes",
    );
    terminal.run("kubectl rollout status deployment/daypass --namespace daypass");
    let after = ready_pods(terminal);
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after.iter().all(|pod| !before.contains(pod)), "{before:?} {after:?}");
    terminal.eventually(
        "the old pods have stopped",
        "test \"$(kubectl get pods -n daypass -l app.kubernetes.io/name=daypass -o name | wc -l)\" = 2",
    );
}

/// The resource use of both pods at rest and under load, as a sentence.
pub fn measure(terminal: &mut Session) -> String {
    let (start, first) = (Instant::now(), usage(terminal));
    // Not a wait: the measurement takes this long.
    thread::sleep(REST);
    let rest = usage(terminal);
    let millicores = (rest.cpu - first.cpu) / start.elapsed().as_secs_f64() * 1000.0;

    for n in 0..MEMBERS {
        let metadata = format!("{{name: load-{n}, namespace: daypass-projects-view}}");
        terminal.quiet(&format!(
            "printf '%s\\n' 'apiVersion: daypass.dev/v1alpha1' 'kind: Member' \
            'metadata: {metadata}' 'spec: {{duration: 1h}}' --- >> load.yaml"
        ));
    }
    terminal.quiet("kubectl apply -f load.yaml");
    let active = "kubectl get members -n daypass-projects-view --no-headers | grep -c Active";
    terminal.eventually("all are active", &format!("test \"$({active})\" -ge {MEMBERS}"));
    let (start, before) = (Instant::now(), usage(terminal));
    let answered = terminal.quiet(&format!(
        r#"{{ printf 'header = "Authorization: Bearer %s"\n' "$DAYPASS_TOKEN"
seq {REQUESTS} | sed 's|.*|url = "'"$MEMBERS"'?limit=100"\noutput = "/dev/null"|'; }} |
curl -sS --cacert daypass-ca.crt -K - --parallel --parallel-max 16 --write-out '%{{http_code}}\n' 2> /dev/null |
sort | uniq -c"#
    ));
    let (seconds, after) = (start.elapsed().as_secs_f64(), usage(terminal));
    assert_eq!(answered.split_whitespace().collect::<Vec<_>>(), [&*REQUESTS.to_string(), "200"], "{answered}");
    terminal.quiet("kubectl delete -f load.yaml --wait=false");
    let milliseconds = (after.cpu - before.cpu) / f64::from(REQUESTS) * 1000.0;
    format!(
        "Measured in this run, by the cgroups of the two containers: at rest the larger working set is {} MiB, \
         and both together use {millicores:.1} millicores. \
         {REQUESTS} requests for a list of {MEMBERS} members, 16 at a time, took {seconds:.1} s and \
         {milliseconds:.2} ms of processor time each; after them the larger working set is {} MiB.\n",
        mib(rest.memory),
        mib(after.memory),
    )
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1024 * 1024)
}
