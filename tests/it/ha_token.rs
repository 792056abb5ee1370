//! Daypass's own token is rotated, as the kubelet does, while the old one is refused.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Created, Daypass, Lab, Launch, eventually, replica, site, wait_until};

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
    fs::write(&file, bound_token(&lab, "pod-two")).unwrap();
    lab.kubectl(&["delete", "secret", "pod-one", "-n", "daypass"]);
    let rotated = Instant::now();
    eventually("the old one is refused", || lab.token_review(&old, "").is_none().then_some(()));
    wait_until(end);
    // Until the new one is read, nothing can be checked, and what cannot be checked is not accepted.
    let mut undecided = 0;
    let forged = format!("{}x", daypass.owner.token());
    while brief.engineer.get(&brief.path("/me")).status != 401 || daypass.owner.get(&brief.path("")).status != 404 {
        undecided += 1;
        assert!(rotated.elapsed() < KEPT, "the new token is not taken up");
        assert!([401, 503].contains(&brief.engineer.get(&brief.path("/me")).status));
        assert!([401, 503].contains(&daypass.owner.with_token(&forged).get("/members").status));
        for client in [&daypass.owner, &pat] {
            assert!([200, 503].contains(&client.get(&lasting.path("")).status));
        }
    }
    println!("{undecided} rounds of 503, until {:?} after the rotation", rotated.elapsed());
    lab.wait_gone(&role, "brief");
    lasting.engineer.get(&lasting.path("/kubeconfig")).expect(200);
    pat.get(&lasting.path("")).expect(200);
    assert_eq!(daypass.owner.with_token(&forged).get("/members").status, 401);
    eventually("it is ready", || (daypass.probe("/readyz").0 == 200).then_some(()));
    daypass.recorded(&brief.id, "EXPIRED");
}
