//! The gateway, with what kubectl does in pods: whatever ends a kubeconfig cuts all of its streams, on each replica,
//! and they say why.

use daypass_local::ControlPlane;

use crate::engineer::creates;
use crate::expiry::{LEADER, is_back, kill_leader};
use crate::pod;
use crate::session::Session;

/// How long a stream may go on after its end, in milliseconds.
const DEADLINE: u64 = 5000;

/// What a member leaves open: its name, what runs, what it shows when it is cut (by default the reason), and its exit
/// code. kubectl takes the end of a watch for the end of what it was asked.
type Stream = (&'static str, &'static str, Option<&'static str>, u64);

const STREAMS: &[Stream] = &[
    ("exec", "script -qec 'kubectl exec -it box -- tail -f /etc/hosts' /dev/null", None, 1),
    (
        "spdy",
        "env KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false \
        script -qec 'kubectl exec -it box -- tail -f /etc/hosts' /dev/null",
        None,
        1,
    ),
    ("attach", "kubectl attach box", None, 1),
    ("cp", "kubectl cp box:/large ./FILE", None, 1),
    ("forward", "kubectl port-forward pod/box :80", Some("lost connection to pod"), 1),
    ("logs", "kubectl logs -f box", None, 1),
    ("logs_http1", "env DISABLE_HTTP2=1 kubectl logs -f box", None, 1),
    ("watch", "kubectl get pods -w", None, 0),
];
const LIBRARIES: &[Stream] = &[
    ("python", concat!("$PYTHON_CLIENT ", env!("CARGO_MANIFEST_DIR"), "/tests/clients/exec.py"), None, 1),
    ("javascript", concat!("node ", env!("CARGO_MANIFEST_DIR"), "/tests/clients/exec.mjs"), None, 1),
];
/// In these nothing happens for longer than a proxy's usual idle timeout.
const IDLE: &[Stream] = &[
    ("exec", "kubectl exec box -- sh -c 'echo open; exec sleep 3600'", None, 1),
    ("spdy", "env KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec box -- sh -c 'echo open; sleep 3600'", None, 1),
    ("forward", "kubectl port-forward pod/box :80", Some("lost connection to pod"), 1),
    ("logs", "sh -c 'echo open; kubectl logs -f web'", None, 1),
    ("watch", "kubectl get pods web -w", None, 0),
];
/// A container beside the others, with its terminal. kubectl goes on with its log when it loses it.
const DEBUG: &[Stream] = &[(
    "debug",
    "script -qec 'kubectl debug -it box --image localhost/pause:1 --image-pull-policy Never --custom mounts.json \
    -- tail -f /etc/hosts' /dev/null",
    None,
    1,
)];

/// What ends a member, and the reason that its streams show.
#[derive(Clone, Copy)]
struct Cause {
    /// The member's name in the terminal.
    name: &'static str,
    role: &'static str,
    /// Uses `$ID`, the member's id, and `$MEMBER`, kubectl's options for it.
    command: &'static str,
    reason: &'static str,
}

const EXPIRY: Cause = cause("expiry", EXPIRES, "this membership ended at 20");
const DELETE: Cause = cause("delete", r#"owner -X DELETE "$MEMBERS/$ID""#, EARLY);
const KUBECTL: Cause = cause("kubectl", "kubectl delete member $MEMBER --wait=false", EARLY);
const CAUSES: [Cause; 7] = [
    EXPIRY,
    DELETE,
    cause("shorter", SHORTENS, "this membership ended at 20"),
    cause("replaced", r#"owner -X POST "$MEMBERS/$ID/credentials""#, "the member's credential was replaced"),
    cause("revoked", REVOKES, "this kubeconfig was revoked"),
    KUBECTL,
    Cause { role: "shop-brief", ..cause("role", REMOVES, EARLY) },
];
const EARLY: &str = "this membership was ended early";

/// The end is a time to come, which counts instead of the command's.
const EXPIRES: &str = r#"at=$(($(date +%s) + 10))
created=$(date -d "$(kubectl get member $MEMBER -o 'jsonpath={.metadata.creationTimestamp}')" +%s)
kubectl patch member $MEMBER --type merge -p '{"spec":{"duration":"'$((at - created))'s"}}'
begun=${at}000 done=${at}000"#;
const SHORTENS: &str = r#"kubectl patch member $MEMBER --type merge -p '{"spec":{"duration":"1s"}}'"#;
const REVOKES: &str = r#"JTI=$(owner "$MEMBERS/$ID/kubeconfigs" | sed 's/.*"jti":"\([^"]*\)".*/\1/')
owner -X DELETE "$MEMBERS/$ID/kubeconfigs/$JTI""#;
/// Kubernetes takes its time to delete what is in a namespace.
const REMOVES: &str = "kubectl delete namespace daypass-shop-brief --wait=false && \
    kubectl wait --for delete member $MEMBER --timeout 120s";

/// `begin FILE COMMAND…` runs a command in the background: FILE.out has what it prints, FILE.rc its exit code and
/// when it ended. `end FILE COMMAND` ends a member: FILE.at says when it began and when it was done.
const FUNCTIONS: &str = r#"now() { date +%s%3N; }
begin() { { "${@:2}" > "$1.out" 2>&1 < /dev/null; echo "$? $(now)" > "$1.rc"; } & }
end() { begun=$(now) done=; eval "$2" && echo "$begun ${done:-$(now)}" > "$1.at"; }"#;

const NGINX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/nginx.conf");

/// A member with these streams, through so many addresses.
struct Opened {
    id: String,
    cause: Cause,
    streams: &'static [Stream],
    addresses: usize,
}

const fn cause(name: &'static str, command: &'static str, reason: &'static str) -> Cause {
    Cause { name, role: "shop-debug", command, reason }
}

/// Everything that ends a kubeconfig cuts its streams, through both replicas, through proxies, and after a crash.
pub fn cuts_what_is_open(plane: &ControlPlane, terminal: &mut Session) {
    terminal.say("The kubeconfigs point at Daypass from now on, which is a change of one value:");
    terminal.run(
        "helm upgrade daypass deploy/charts/daypass --namespace daypass --reuse-values \
        --set kubeconfig.mode=gateway --wait --hide-notes",
    );
    terminal.quiet("kubectl rollout status deployment/daypass --namespace daypass");
    terminal.eventually(
        "the old pods have stopped",
        "test \"$(kubectl get pods -n daypass -l app.kubernetes.io/name=daypass -o name | wc -l)\" = 2",
    );
    // A role to remove.
    terminal.quiet(
        "sed 's|shop-debug|shop-brief|; s|pods/portforward|&, pods/ephemeralcontainers, services/proxy|; \
        s|create, get|&, patch|' more-roles.yaml > brief-role.yaml && helm upgrade daypass deploy/charts/daypass \
        --namespace daypass --reuse-values --values brief-role.yaml --wait --hide-notes",
    );
    terminal.quiet(FUNCTIONS);
    let replicas = replicas(terminal);
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    let addresses: Vec<String> = replicas.iter().map(|(_, address)| address.clone()).collect();
    pod::start(terminal);
    let idle = open(terminal, Cause { name: "idle", ..DELETE }, IDLE, &addresses);
    are_open(terminal, std::slice::from_ref(&idle));
    terminal.quiet("IDLE=$(date +%s)");
    pod::works(plane, terminal);

    terminal.say("A member leaves these open, through each replica:");
    STREAMS.iter().for_each(|(_, command, ..)| terminal.show(&command.replace("FILE", "large"), ""));
    let debug = Cause { name: "look", role: "shop-brief", ..DELETE };
    let mut opened = vec![idle, open(terminal, debug, DEBUG, &addresses)];
    opened.extend(CAUSES.map(|cause| open(terminal, cause, STREAMS, &addresses)));
    let proxies = start_nginx(terminal, &addresses[0]);
    opened.push(open(terminal, Cause { name: "proxied", ..DELETE }, STREAMS, &proxies));
    opened.push(open(terminal, Cause { name: "library", ..DELETE }, LIBRARIES, &addresses));
    terminal.eventually("what idles has done so for two minutes", "test $(($(date +%s) - IDLE)) -gt 125");
    are_open(terminal, &opened);
    terminal.say("The owner ends the member. Each ends, and says why:");
    terminal.show(DELETE.command, "");
    are_cut(terminal, &opened);
    terminal.run("tail -qn 1 delete.0.*.out");
    terminal.quiet("kill $NGINX");

    terminal.say("So they do right after the leader's process was killed, at the other replica:");
    let leader = terminal.quiet(LEADER);
    let (_, survivor) = replicas.iter().find(|(pod, _)| *pod != leader).unwrap();
    let crash = [Cause { name: "later", ..EXPIRY }, Cause { name: "at_once", ..KUBECTL }];
    let opened = crash.map(|cause| open(terminal, cause, STREAMS, std::slice::from_ref(survivor)));
    are_open(terminal, &opened);
    let killed = kill_leader(terminal);
    assert_eq!(killed.leader, leader, "the other one leads now");
    are_cut(terminal, &opened);
    is_back(terminal, &killed);
    terminal.quiet("kubectl delete pod,service box --namespace shop");
}

/// The replicas' pods, and where they listen.
fn replicas(terminal: &mut Session) -> Vec<(String, String)> {
    let pods = terminal.quiet(
        "kubectl get pods -n daypass -l app.kubernetes.io/name=daypass --no-headers -o \
        custom-columns=N:.metadata.name,A:.status.podIP",
    );
    let columns = pods.lines().map(|line| line.split_once(char::is_whitespace).unwrap());
    columns.map(|(pod, address)| (pod.to_owned(), format!("{}:8443", address.trim()))).collect()
}

/// nginx in front of a replica, which passes TLS through or encrypts again.
fn start_nginx(terminal: &mut Session, replica: &str) -> Vec<String> {
    let (through, again) = ("18443", "18444");
    for name in ["tls.crt", "tls.key"] {
        let data = format!("jsonpath={{.data.{}}}", name.replace('.', "\\."));
        terminal.quiet(&format!("kubectl get secret daypass-tls -n daypass -o '{data}' | base64 -d > {name}"));
    }
    terminal.quiet(&format!(
        "sed \"s|DAYPASS|{replica}|; s|THROUGH_PORT|{through}|; s|AGAIN_PORT|{again}|; s|FOLDER|$PWD|; \
        s|_name daypass|&.node.test|\" {NGINX} > nginx.conf; nginx -c $PWD/nginx.conf > nginx.out 2>&1 & NGINX=$!"
    ));
    let addresses = [through, again].map(|port| format!("127.0.0.1:{port}"));
    for address in &addresses {
        terminal.eventually(
            "nginx listens",
            &format!("true > /dev/tcp/{} || {{ cat nginx.out; false; }}", address.replace(':', "/")),
        );
    }
    addresses.into()
}

/// Creates a member and opens these streams, through each address.
fn open(terminal: &mut Session, cause: Cause, streams: &'static [Stream], addresses: &[String]) -> Opened {
    let (member, name) = (creates(terminal, cause.role, cause.name), cause.name);
    for (number, address) in addresses.iter().enumerate() {
        let kubeconfig = format!("{name}.{number}.kubeconfig");
        terminal.quiet(&format!(
            "sed 's|^\\( *\\)server: .*|\\1server: https://{address}/eu-prod-1/gateway\\n\\1tls-server-name: \
            daypass.node.test|' {name}.kubeconfig > {kubeconfig}"
        ));
        for (stream, command, ..) in streams {
            let file = format!("{name}.{number}.{stream}");
            let command = command.replace("kubectl ", "kubectl --namespace shop ");
            let command = command.replace("FILE", &format!("{file}.large"));
            terminal.quiet(&format!("KUBECONFIG={kubeconfig} begin {file} {command}"));
        }
    }
    Opened { id: member.id, cause, streams, addresses: addresses.len() }
}

impl Opened {
    /// The names of the streams' files.
    fn files(&self) -> impl Iterator<Item = String> {
        let (name, streams) = (self.cause.name, self.streams);
        (0..self.addresses)
            .flat_map(move |number| streams.iter().map(move |(stream, ..)| format!("{name}.{number}.{stream}")))
    }
}

/// Waits until each stream has shown something. None has ended.
fn are_open(terminal: &mut Session, opened: &[Opened]) {
    for file in opened.iter().flat_map(Opened::files) {
        terminal.eventually(&file, &format!("test -s {file}.out || test -s {file}.rc"));
    }
    for file in opened.iter().flat_map(Opened::files) {
        terminal.quiet(&format!("test ! -e {file}.rc || {{ cat {file}.*; false; }}"));
    }
}

/// Ends each member in its way. Its streams end then, and not before; they say why, and so does what comes after.
fn are_cut(terminal: &mut Session, opened: &[Opened]) {
    for Opened { id, cause, .. } in opened {
        let member = format!("{} -n daypass-{}", id.split_once('.').unwrap().1, cause.role);
        let command = cause.command.replace('\'', r"'\''");
        terminal.quiet(&format!("ID={id} MEMBER='{member}'; end {} '{command}'", cause.name));
    }
    for Opened { cause, streams, addresses, .. } in opened {
        let at = numbers(&terminal.quiet(&format!("cat {}.at", cause.name)));
        for number in 0..*addresses {
            for (stream, _, shows, code) in *streams {
                let file = format!("{}.{number}.{stream}", cause.name);
                let ended = terminal.eventually(&file, &format!("test -s {file}.rc && cat {file}.rc"));
                let ended = numbers(&ended);
                let output = terminal.quiet(&format!("cat {file}.out"));
                assert!(output.contains(shows.unwrap_or(cause.reason)), "{file}: {output}");
                assert_eq!(ended[0], *code, "{file}: {output}");
                assert!(at[0] <= ended[1], "{file} ended at {} before {at:?}: {output}", ended[1]);
                assert!(ended[1] <= at[1] + DEADLINE, "{file} ended at {} after {at:?}: {output}", ended[1]);
            }
            let get = format!("kubectl --kubeconfig {}.{number}.kubeconfig get pods --namespace shop", cause.name);
            let (output, success) = terminal.attempt(&get);
            assert!(!success && output.contains(cause.reason), "{get}: {output}");
        }
    }
}

/// The numbers in a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|number| number.parse().unwrap()).collect()
}
