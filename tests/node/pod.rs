//! What kubectl does in a pod, through the gateway, as users of other proxies found it broken.

use daypass_local::ControlPlane;

use crate::browser;
use crate::engineer::creates;
use crate::session::Session;

/// A pod with this machine's programs. A copy of its large file takes half an hour, and its page tries what it can.
const POD: &str = concat!(
    r#"kubectl apply -f - <<'EOF'
apiVersion: v1
kind: Pod
metadata: {name: box, namespace: shop, labels: {app: box}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: box
      image: localhost/pause:1
      imagePullPolicy: Never
      command: [sh, -c, 'truncate -s 1G /large; perl /page/serve.pl & while echo tick; do sleep 1; done']
      env: [{name: TAR_OPTIONS, value: --checkpoint=50 --checkpoint-action=sleep=1}]
      securityContext: {runAsUser: 0}
      volumeMounts:
        - {name: usr, mountPath: /usr}
        - {name: lib, mountPath: /lib}
        - {name: lib64, mountPath: /lib64}
        - {name: page, mountPath: /page, readOnly: true}
  volumes:
    - {name: usr, hostPath: {path: /usr}}
    - {name: lib, hostPath: {path: /lib}}
    - {name: lib64, hostPath: {path: /lib64}}
    - {name: page, hostPath: {path: "#,
    env!("CARGO_MANIFEST_DIR"),
    r"/tests/node/page}}
EOF
kubectl wait --namespace shop --for condition=Ready pod/box --timeout 120s
kubectl expose pod box --namespace shop --port 80"
);

/// What gives a debugging container this machine's programs, too.
const MOUNTS: &str = r#"cat > mounts.json <<'EOF'
{"volumeMounts": [{"name": "usr", "mountPath": "/usr"}, {"name": "lib", "mountPath": "/lib"},
    {"name": "lib64", "mountPath": "/lib64"}]}
EOF"#;

/// Somebody types a word in the terminal of a debugging container.
const TALKS: &str = r#"mkfifo typed
script -qec "$K debug -it box -c talk --image localhost/pause:1 --image-pull-policy Never \
    --custom mounts.json -- sh -c 'read word; echo got-\$word'" /dev/null < typed > talk.out 2>&1 &
exec 7> typed; echo word >&7"#;

/// A command, and the last line that it shows.
const WORKS: [(&str, &str); 10] = [
    ("$K exec box -- echo shown", "shown"),
    ("env $SPDY $K exec box -- echo shown", "shown"),
    ("head -c 20000000 /dev/zero | $K exec -i box -- wc -c", "20000000"),
    ("head -c 20000000 /dev/zero | env $SPDY $K exec -i box -- wc -c", "20000000"),
    ("$K exec box -- head -c 20000000 /large | wc -c", "20000000"),
    ("$K exec box -- sh -c 'exit 3'; echo $?", "3"),
    ("$K cp box:/usr/bin/bash copied && cmp copied /usr/bin/bash && echo same", "same"),
    ("$K cp copied box:/copied && $K exec box -- cmp /copied /usr/bin/bash && echo same", "same"),
    ("$K debug box -c look --image localhost/pause:1 --image-pull-policy Never -- /pause looked; echo $?", "0"),
    ("curl -sS http://127.0.0.1:$PORT/", "<p>a page of a pod</p>"),
];

/// Asks for the pod's page through the gateway, with more options of curl.
const PAGE: &str = r#"page() {
URL=${MEMBERS%%/processing*}/eu-prod-1/gateway/api/v1/namespaces/shop/services/box:80/proxy/
sed -n 's/ *token: /Authorization: Bearer /p' busy.kubeconfig | tr -d '"' |
    curl -sSi -H @- --cacert daypass-ca.crt "$@" "$URL"
}"#;

/// Starts the pod.
pub fn start(terminal: &mut Session) {
    terminal.quiet(POD);
    terminal.quiet(MOUNTS);
}

/// What kubectl does in pods works, and a page that a pod serves cannot act as Daypass's own.
pub fn works(plane: &ControlPlane, terminal: &mut Session) {
    creates(terminal, "shop-brief", "busy");
    terminal.quiet("K='kubectl --kubeconfig busy.kubeconfig --namespace shop'");
    terminal.quiet("SPDY=KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false");
    terminal.quiet("$K port-forward pod/box :80 > busy.out 2>&1 & FORWARD=$!");
    let port = r"PORT=$(sed -n 's/.*127.0.0.1:\([0-9]*\) .*/\1/p' busy.out); test $PORT";
    terminal.eventually("a port is forwarded", port);
    for (command, shows) in WORKS {
        let output = terminal.quiet(command);
        assert_eq!(output.lines().last(), Some(shows), "{command}: {output}");
    }
    terminal.quiet("kill $FORWARD");
    terminal.eventually("the ephemeral container has run", "$K logs box -c look | grep looked");
    terminal.quiet(TALKS);
    terminal.eventually("a word is typed", "grep got-word talk.out || { cat talk.out; false; }");
    terminal.quiet("exec 7>&-");

    terminal.quiet(PAGE);
    let answer = terminal.eventually("the Service has its pod", "page | grep -B99 '<p>a page'").to_lowercase();
    assert!(answer.contains("content-security-policy: sandbox") && answer.contains("nosniff"), "{answer}");
    for header in ["set-cookie", "service-worker-allowed", "strict-transport-security", "clear-site-data"] {
        assert!(!answer.contains(header), "{answer}");
    }
    let refused = terminal.quiet("page -H 'Sec-Fetch-Mode: navigate'");
    assert!(refused.contains(" 403") && !refused.contains("a page"), "{refused}");
    browser::shows_no_page_of_a_pod(plane, terminal);
}
