//! The page of a pod in a real browser, in the sandbox's network: Debian's Chromium, driven by page.mjs, which speaks
//! with the test as the console's scripts do (tests/it/console).

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use daypass_local::ControlPlane;
use serde_json::{Value, json};

use crate::session::Session;

const LOGS: &str = "kubectl logs --namespace daypass --selector app.kubernetes.io/name=daypass --tail=-1";

/// Whatever a browser does at the address of a pod's page, that page runs no script in the console's origin and does
/// nothing to it.
pub fn shows_no_page_of_a_pod(plane: &ControlPlane, terminal: &mut Session) {
    let tools =
        env::var_os("CONSOLE_TOOLS").unwrap_or_else(|| panic!("CONSOLE_TOOLS is not set: use `make test-node`"));
    let mut node = plane.command(&Path::new(&tools).join("node"));
    node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/page.mjs"));
    node.env("HOME", plane.state_dir().join("terminal")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut node = node.spawn().unwrap();
    let mut input = node.stdin.take().unwrap();
    writeln!(input, "{}", given(terminal)).unwrap();
    let mut output = String::new();
    for line in BufReader::new(node.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix("ask ") {
            Some(asked) => writeln!(input, "{}", leaks(terminal, &serde_json::from_str(asked).unwrap())).unwrap(),
            None => output += &format!("{line}\n"),
        }
    }
    assert!(node.wait().unwrap().success() && output.contains("\ndone: "), "{output}");
}

/// What the script gets.
fn given(terminal: &mut Session) -> Value {
    json!({
        "url": terminal.quiet("echo ${MEMBERS%%/processing*}"),
        "path": "/eu-prod-1/gateway/api/v1/namespaces/shop/services/box:80/proxy/",
        "certificate": terminal.quiet("cat daypass-ca.crt"),
        "key": terminal.quiet("kubectl get secret daypass-tls --namespace daypass -o 'jsonpath={.data.tls\\.key}'"),
        "owner": terminal.quiet("echo $DAYPASS_TOKEN"),
        "token": terminal.quiet("sed -n 's/ *token: //p' busy.kubeconfig | tr -d '\"'"),
    })
}

/// How many of the secrets are in the replicas' logs, the only thing that the script asks for.
fn leaks(terminal: &mut Session, asked: &Value) -> usize {
    assert_eq!(asked["deed"], "leaks");
    let logs = terminal.quiet(LOGS);
    assert!(logs.contains("shop-brief"), "no audit trail: {logs}");
    asked["secrets"].as_array().unwrap().iter().filter(|secret| logs.contains(secret.as_str().unwrap())).count()
}
