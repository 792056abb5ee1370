//! What a support engineer does with a credential: in a browser, in a shell, and to its own membership.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::support::{Answer, Created, Kubeconfig, Lab};

#[test]
fn a_browser_is_asked_for_the_credential_and_saves_the_file() {
    let (lab, daypass) = Lab::shared();
    let member = Created::new(&daypass.owner, &lab.reader(), 1);
    let url = member.body["credentials"]["kubeconfigUrl"].as_str().unwrap();
    assert_eq!(url, format!("{}/processing/data-planes/dp-1/members/{}/kubeconfig", daypass.url, member.id));
    let browser =
        |request: reqwest::blocking::RequestBuilder| Answer::of(request.header("Accept", "text/html,*/*;q=0.8"));

    let asked = browser(daypass.owner.anonymous().request("GET", url));
    asked.problem(401, "DP_ERR_NO_CREDENTIALS");
    assert_eq!(asked.header("www-authenticate"), r#"Basic realm="daypass member", charset="UTF-8""#);
    let wrong = browser(daypass.owner.with_basic(&member.id, "wrong").request("GET", url));
    wrong.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert!(wrong.header("www-authenticate").starts_with("Basic "), "it may ask again");

    let answer = browser(member.engineer.request("GET", url)).expect(200);
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert_eq!(answer.header("content-disposition"), format!("attachment; filename=\"dp-1-{}.kubeconfig\"", member.id));
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(Kubeconfig::new(lab, &answer).is_accepted(lab));
    let with_token = daypass.owner.with_token(&member.password).get(url).expect(200);
    assert!(Kubeconfig::new(lab, &with_token).is_accepted(lab));
}

#[test]
fn a_member_sees_itself_and_no_more() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let body = json!({"duration": "1", "roleId": role.id, "username": "Ada", "description": "of the owner's own"});
    let created = daypass.owner.post("/members", &body).expect(201).json();
    let id = created["id"].as_str().unwrap();
    let engineer = daypass.owner.with_basic(id, created["credentials"]["password"].as_str().unwrap());
    let mut me = engineer.get(&format!("/members/{id}/me")).expect(200).json();
    let left = me.as_object_mut().unwrap().remove("secondsLeft").unwrap().as_i64().unwrap();
    assert!((1..=3600).contains(&left), "{left}");
    assert_eq!(
        me,
        json!({
            "id": id, "dataPlaneId": "dp-1", "roleId": role.id, "username": "Ada", "createdAt": created["createdAt"],
            "expiresAt": created["expiresAt"], "kubeconfigUrl": created["credentials"]["kubeconfigUrl"],
        })
    );
}

#[test]
fn a_member_ends_itself() {
    let (lab, daypass) = Lab::shared();
    let role = lab.reader();
    let member = Created::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(lab);
    member.engineer.delete(&member.path("/me")).expect(204);
    member.engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    member.engineer.delete(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    for kind in ["members.daypass.dev", "serviceaccounts", "secrets"] {
        assert_eq!(lab.names(&role.namespace, kind), [""; 0], "{kind}, when it answers");
    }
    kubeconfig.wait_refused(lab);
    let events = daypass.audit(&member.id);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["actor"]),
        (&json!("REVOKED"), &json!({"type": "MEMBER", "username": member.id}))
    );
    assert_eq!(last["member"]["expiresAt"], member.body["expiresAt"], "what was granted is repeated");
}

/// Runs a text as a person would paste it, without a terminal: curl then reads the password from its standard input.
fn paste(lab: &Lab, folder: &Path, text: &str, password: &str) -> Output {
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("setsid");
    shell.args(["--wait", "bash", "-euc", text]).current_dir(folder);
    shell.env("PATH", format!("{}:{path}", lab.plane.tools().dir().display())).env("HOME", folder);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shell that ended before it read the password says why by its status.
    let _ = writeln!(shell.stdin.take().unwrap(), "{password}");
    shell.wait_with_output().unwrap()
}

#[test]
fn the_handover_works_as_it_stands_and_has_no_secret_in_it() {
    let (lab, daypass) = Lab::shared();
    let member = Created::new(&daypass.owner, &lab.reader(), 1);
    let handover = member.body["credentials"]["handover"].as_str().unwrap();
    assert!(!handover.contains("dpm_") && !handover.contains(&member.password), "{handover}");
    assert!(handover.contains(member.body["expiresAt"].as_str().unwrap()), "{handover}");

    let folder = lab.fresh_folder("engineer");
    let parts: Vec<&str> = handover.split("\n\n").collect();
    let [_, download, _, use_it, farewell] = parts[..] else { panic!("{handover}") };
    let output = paste(lab, &folder, &format!("umask 000\n{download}"), &member.password);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = folder.join(format!("dp-1-{}.kubeconfig", member.id));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let output = paste(lab, &folder, use_it, "");
    let whoami = String::from_utf8_lossy(&output.stdout);
    assert!(whoami.contains(&format!(
        "system:serviceaccount:daypass-{}:{}",
        member.body["roleId"].as_str().unwrap(),
        member.name()
    )));

    // Nor is a file of its name left open that was there: it is replaced, and the CA's, which somebody else could
    // change.
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    let [new, ca] = ["kubeconfig.new", "ca.pem"].map(|end| folder.join(format!("dp-1-{}.{end}", member.id)));
    fs::write(&new, "an interrupted download").unwrap();
    [&file, &new, &ca].into_iter().for_each(|path| open(path));
    let mut before = fs::File::open(&file).unwrap();
    let first = fs::read_to_string(&file).unwrap();
    let output = paste(lab, &folder, &format!("umask 000\n{download}"), &member.password);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&ca), new.exists()), (0o600, 0o600, false));
    let second = fs::read_to_string(&file).unwrap();
    assert!(second != first && second.contains("token:"), "another kubeconfig");
    // Whoever had opened the old file reads the old one.
    let mut seen = String::new();
    before.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, first);
    // One that fails leaves the one that is there.
    let output = paste(lab, &folder, download, "wrong");
    assert!(!output.status.success() && fs::read_to_string(&file).unwrap() == second && !new.exists());

    // A wrong password leaves no file that looks like a kubeconfig.
    let elsewhere = lab.fresh_folder("engineer");
    let output = paste(lab, &elsewhere, download, "wrong");
    assert!(!output.status.success() && !elsewhere.join(file.file_name().unwrap()).exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("401"), "{}", String::from_utf8_lossy(&output.stderr));

    let end_it = farewell.split("To end it earlier: ").nth(1).unwrap();
    assert!(paste(lab, &folder, end_it, &member.password).status.success());
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
}
