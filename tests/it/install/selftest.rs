//! `daypass selftest`, which `helm test` runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Cluster, Daypass, Role, eventually};

/// Runs it with this token. Its kubeconfig has the API server's address and CA, but no valid credentials.
fn selftest(cluster: &Cluster, url: &str, role: &str, token: &str, more: &[&str]) -> Output {
    let folder = cluster.fresh_folder("selftest");
    let (kubeconfig, ca, token_file) = (folder.join("config"), folder.join("ca"), folder.join("token"));
    cluster.plane.write_token_kubeconfig(&kubeconfig, "nobody").unwrap();
    fs::write(&ca, cluster.serving_certificate()).unwrap();
    fs::write(&token_file, format!("{token}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_daypass"));
    command.env("KUBECONFIG", kubeconfig).args(["selftest", "--url", url, "--data-plane-id", "dp-1"]);
    command.args(["--role", role, "--ca-file"]).arg(ca).arg("--token-file").arg(token_file).args(more);
    command.output().unwrap()
}

/// Its output and errors. Checks that they hold no secret.
fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    for secret in ["dpm_", "dpg_", "eyJ", "Bearer", "Basic"] {
        assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
    }
    (out, err)
}

fn nothing_is_left(cluster: &Cluster, role: &Role) {
    for kind in ["members.daypass.dev", "serviceaccounts", "secrets"] {
        assert_eq!(cluster.names(&role.namespace, kind), [""; 0], "{kind}");
    }
}

#[test]
fn selftest_creates_uses_and_ends_a_member() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    // As in a cluster, the certificate has the public name and the test uses another one.
    let url = daypass.url.replace("127.0.0.1", "localhost");
    let output = selftest(cluster, &url, &role.id, daypass.owner.token(), &["--tls-server-name", "127.0.0.1"]);
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    let id = lines[0].strip_prefix("created the member ").unwrap().split(',').next().unwrap();
    let name = id.strip_prefix(&format!("{}.", role.id)).unwrap();
    assert!(lines[1].contains(&cluster.plane.server_url()), "{out}");
    assert!(lines[2].ends_with(&format!("system:serviceaccount:{}:{name}", role.namespace)), "{out}");
    assert_eq!(lines.len(), 5, "{out}");
    nothing_is_left(cluster, &role);
    let events: Vec<_> = daypass.audit(id).into_iter().map(|event| event["event"].clone()).collect();
    assert_eq!(events, ["MEMBER_CREATED", "KUBECONFIG_ISSUED", "REVOKED"]);
}

#[test]
fn selftest_uses_the_gateway_where_kubeconfigs_point_at_it() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::with_args(cluster, &["--kubeconfig-mode=gateway"]);
    let role = cluster.reader();
    let output = selftest(cluster, &daypass.url, &role.id, daypass.owner.token(), &[]);
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[1].ends_with(&format!("{}/dp-1/gateway", daypass.url)), "{out}");
    assert!(lines[2].contains(&format!("system:serviceaccount:{}:", role.namespace)), "{out}");
    assert_eq!(lines.last().unwrap(), &"the gateway refuses its kubeconfig", "{out}");
    nothing_is_left(cluster, &role);
}

#[test]
fn failed_step_is_named_and_the_member_ended() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    // The caller may create and delete but not get, so the last step is refused.
    let caller = cluster.caller(daypass, &["create", "delete"], &["members"], Some(&role));
    let output = selftest(cluster, &daypass.url, &role.id, caller.token(), &[]);
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(2), "{out}{err}");
    assert!(out.contains("knows its user") && !out.contains("no longer knows"), "{out}");
    assert!(err.contains("checking that the member has ended") && err.contains("403"), "{err}");
    nothing_is_left(cluster, &role);
}

#[test]
fn selftest_waits_for_a_new_caller() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    cluster.kubectl(&["create", "serviceaccount", "late", "-n", "default"]);
    let token = cluster.token("default", "late", "daypass");
    let bind =
        ["create", "rolebinding", "late", "--clusterrole=daypass-engines-manage", "--serviceaccount=default:late"];
    std::thread::scope(|scope| {
        let run = scope.spawn(|| selftest(cluster, &daypass.url, &role.id, &token, &[]));
        let denied = |event: &Value| event["event"] == "DENIED" && event["roleId"] == *role.id;
        eventually("the token is refused", || daypass.audit_events().iter().any(denied).then_some(()));
        cluster.kubectl(&[&bind[..], &["-n", &role.namespace]].concat());
        assert!(run.join().unwrap().status.success());
    });
}

#[test]
fn missing_right_is_reported() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let caller = cluster.caller(daypass, &[], &[], None);
    let output = selftest(cluster, &daypass.url, &role.id, caller.token(), &["--wait-seconds", "10"]);
    let (out, err) = said(&output);
    assert_eq!((output.status.code(), &*out), (Some(2), ""), "{err}");
    assert!(err.contains("creating a member") && err.contains("DP_ERR_FORBIDDEN"), "{err}");
}

#[test]
fn wrong_certificate_or_name_is_refused() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let args = ["--tls-server-name", "elsewhere.example.com", "--wait-seconds", "2"];
    let output = selftest(cluster, &daypass.url, &role.id, daypass.owner.token(), &args);
    let (out, err) = said(&output);
    assert_eq!((output.status.code(), &*out), (Some(2), ""), "{err}");
    assert!(err.contains("creating a member"), "{err}");
    assert_eq!(daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json()["items"], json!([]));
}

/// A proxy between a client and Daypass that loses every answer on the first connection.
struct Lossy {
    url: String,
    first: Arc<Mutex<Vec<TcpStream>>>,
}

impl Lossy {
    fn start(daypass_url: &str) -> Self {
        let target = daypass_url.strip_prefix("https://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let first = Arc::<Mutex<Vec<TcpStream>>>::default();
        let kept = first.clone();
        thread::spawn(move || {
            for (n, client) in listener.incoming().map(Result::unwrap).enumerate() {
                let server = TcpStream::connect(&target).unwrap();
                if n == 0 {
                    kept.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                }
                // After both parts of the handshake, what the client sends is a request.
                let [greeted, asked] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
                let (is_greeted, has_asked) = (greeted.clone(), asked.clone());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    pump(from, to, |bytes| {
                        asked.fetch_or(is_greeted.load(Ordering::SeqCst) && bytes.len() > 100, Ordering::SeqCst);
                        true
                    });
                });
                thread::spawn(move || {
                    pump(server, client, |_| {
                        greeted.store(true, Ordering::SeqCst);
                        n > 0 || !has_asked.load(Ordering::SeqCst)
                    });
                });
            }
        });
        Self { url, first }
    }

    /// Cuts the first connection.
    fn cut(&self) {
        for end in self.first.lock().unwrap().iter() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// Copies bytes until one end closes.
fn pump(mut from: TcpStream, mut to: TcpStream, mut is_passed_on: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if is_passed_on(&buffer[..length]) && to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn member_of_a_lost_answer_is_found_and_ended() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let lossy = Lossy::start(&daypass.url);
    let events = |kind: &str| -> Vec<Value> {
        let events = daypass.audit_events().into_iter();
        let of_role = events.filter(|event| event["event"] == kind && event["member"]["roleId"] == *role.id);
        of_role.map(|event| event["member"]["id"].clone()).collect()
    };
    let output = thread::scope(|scope| {
        let run = scope.spawn(|| selftest(cluster, &lossy.url, &role.id, daypass.owner.token(), &[]));
        eventually("the member is made", || (!events("MEMBER_CREATED").is_empty()).then_some(()));
        lossy.cut();
        run.join().unwrap()
    });
    let (out, err) = said(&output);
    assert!(output.status.success(), "{out}{err}");
    assert_eq!((events("MEMBER_CREATED").len(), events("REVOKED")), (2, events("MEMBER_CREATED")));
    nothing_is_left(cluster, &role);
}
