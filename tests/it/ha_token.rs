//! Daypass's own token is rotated, as the kubelet does, while the old one is refused.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Created, Daypass, Lab, Launch, claims, eventually, replica, site, wait_until};

/// Longer than the client keeps a token that it has read (a minute), and the API server one that it has checked (10 s).
const KEPT: Duration = Duration::from_secs(180);

/// A token of Daypass that is good while this Secret is there.
fn bound_token(lab: &Lab, secret: &str) -> String {
    lab.kubectl(&["create", "secret", "generic", secret, "-n", "daypass"]);
    let bound = format!("--bound-object-name={secret}");
    let args = ["create", "token", "daypass", "-n", "daypass", "--duration=2h", "--bound-object-kind=Secret", &bound];
    lab.kubectl(&args).trim().to_owned()
}

#[test]
fn a_rotated_token_is_taken_up_without_a_restart() {
    let lab = site();
    let role = lab.reader();
    let folder = lab.fresh_folder("token");
    let (file, kubeconfig) = (folder.join("token"), folder.join("kubeconfig"));
    let old = bound_token(&lab, "pod-one");
    fs::write(&file, &old).unwrap();
    let text = fs::read_to_string(&lab.kubeconfig).unwrap();
    let plain = text.lines().find(|line| line.trim_start().trim_start_matches("- ").starts_with("token:")).unwrap();
    let by_file = plain.split("token:").next().unwrap().to_owned() + &format!("tokenFile: {}", file.display());
    fs::write(&kubeconfig, text.replace(plain, &by_file)).unwrap();
    let daypass = Daypass::start(&lab, &Launch { kubeconfig: Some(kubeconfig), ..replica("a") });
    let brief = Created::applied(&lab, &daypass, &role, "brief", &json!({"duration": "1h"}));
    let lasting = Created::applied(&lab, &daypass, &role, "lasting", &json!({"duration": "1h"}));
    let body = json!({"name": "ci", "expiresInDays": 1, "scopes": ["members:read"]});
    let pat = daypass.owner.post("/tokens", &body).expect(201).json();
    let pat = daypass.owner.with_token(pat["token"].as_str().unwrap());

    // At once, where the kubelet lets both be good for a while.
    let end = brief.end_in(&lab, &role, 5);
    let new = bound_token(&lab, "pod-two");
    fs::write(&file, &new).unwrap();
    lab.kubectl(&["delete", "secret", "pod-one", "-n", "daypass"]);
    let rotated = Instant::now();
    wait_until(end);
    // As the caller's; that it was issued is there at once.
    let id = format!(r#"["JTI={}"]"#, claims(&new)["jti"].as_str().unwrap());
    let is_taken_up = || fs::read_to_string(lab.plane.audit_log()).unwrap().contains(&id);
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
    eventually("it is ready", || (daypass.probe("/readyz").0 == 200).then_some(()));
    eventually("its calls are accepted", || (pat.get(&lasting.path("")).status == 200).then_some(()));
    assert!(lab.token_review(&old, "").is_none(), "the old one is refused");
    brief.assert_dead(&daypass);
    lab.wait_gone(&role, "brief");
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    assert_eq!(forged.get("/members").status, 401);
    daypass.recorded(&brief.id, "EXPIRED");
}
