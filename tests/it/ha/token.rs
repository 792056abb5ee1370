//! The kubelet rotates Daypass's own token; here the API server refuses the old one at once.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Cluster, Daypass, Launch, NewMember, claims, eventually, replica, wait_until};

/// Longer than the caches of Daypass's client (a minute) and of the API server's authenticator (10 s).
const KEPT: Duration = Duration::from_secs(180);

/// A token of Daypass's account, valid while this Secret exists.
fn bound_token(cluster: &Cluster, secret: &str) -> String {
    cluster.kubectl(&["create", "secret", "generic", secret, "-n", "daypass"]);
    let bound = format!("--bound-object-name={secret}");
    let args = ["create", "token", "daypass", "-n", "daypass", "--duration=2h", "--bound-object-kind=Secret", &bound];
    cluster.kubectl(&args).trim().to_owned()
}

#[test]
fn rotated_service_account_token_is_used_without_restart() {
    let cluster = Cluster::breakable();
    let role = cluster.reader();
    let folder = cluster.fresh_folder("token");
    let (file, kubeconfig) = (folder.join("token"), folder.join("kubeconfig"));
    let old = bound_token(&cluster, "pod-one");
    fs::write(&file, &old).unwrap();
    let text = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let plain = text.lines().find(|line| line.trim_start().trim_start_matches("- ").starts_with("token:")).unwrap();
    let by_file = plain.split("token:").next().unwrap().to_owned() + &format!("tokenFile: {}", file.display());
    fs::write(&kubeconfig, text.replace(plain, &by_file)).unwrap();
    let daypass = Daypass::start(&cluster, &Launch { kubeconfig: Some(kubeconfig), ..replica("a") });
    let brief = NewMember::applied(&cluster, &daypass, &role, "brief", &json!({"duration": "1h"}));
    let lasting = NewMember::applied(&cluster, &daypass, &role, "lasting", &json!({"duration": "1h"}));
    let body = json!({"name": "ci", "expiresInDays": 1, "scopes": ["members:read"]});
    let pat = daypass.owner.post("/tokens", &body).expect(201).json();
    let pat = daypass.owner.with_token(pat["token"].as_str().unwrap());

    // At once; with the kubelet both are valid for a while.
    let end = brief.end_in_seconds(&cluster, &role, 5);
    let new = bound_token(&cluster, "pod-two");
    fs::write(&file, &new).unwrap();
    cluster.kubectl(&["delete", "secret", "pod-one", "-n", "daypass"]);
    let rotated = Instant::now();
    wait_until(end);
    // As a caller's id. (The audit log has the issuance at once, in another form.)
    let id = format!(r#"["JTI={}"]"#, claims(&new)["jti"].as_str().unwrap());
    let is_taken_up = || fs::read_to_string(cluster.plane.audit_log()).unwrap().contains(&id);
    let forged = daypass.owner.with_token(&format!("{}x", daypass.owner.token()));
    let (mut rounds, mut undecided) = (0, 0);
    while !is_taken_up() {
        assert!(rotated.elapsed() < KEPT, "the new token is not taken up");
        for refused in [brief.engineer.get(&brief.path("/me")), forged.get("/members")] {
            assert!([401, 503].contains(&refused.status), "{}", refused.text);
        }
        for client in [&daypass.owner, &pat] {
            let answer = client.get(&lasting.path(""));
            assert!([200, 503].contains(&answer.status), "{}", answer.text);
            undecided += usize::from(answer.status == 503);
        }
        rounds += 2;
    }
    assert_eq!(undecided, 0, "a token that is refused is read again at once");
    println!("{undecided} of {rounds} requests undecided until {:?} after the rotation", rotated.elapsed());
    eventually("Daypass is ready", || (daypass.probe("/readyz").0 == 200).then_some(()));
    eventually("its calls are accepted", || (pat.get(&lasting.path("")).status == 200).then_some(()));
    assert!(cluster.token_review(&old, "").is_none(), "the old one is refused");
    brief.assert_dead(&daypass);
    cluster.wait_gone(&role, "brief");
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    assert_eq!(forged.get("/members").status, 401);
    daypass.wait_event(&brief.id, "EXPIRED");
}
