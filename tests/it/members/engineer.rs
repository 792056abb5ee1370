//! What a support engineer does with a credential in a browser, in a shell, and with its own membership.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::support::{Answer, Cluster, Kubeconfig, NewMember, eventually};

#[test]
fn browser_asks_for_the_credential_and_saves_the_file() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
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
    assert_eq!(
        answer.header("content-disposition"),
        format!("attachment; filename=\"dp-1-{}.kubeconfig\"", member.id)
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(Kubeconfig::new(cluster, &answer).is_accepted(cluster));
    let with_token = daypass.owner.with_token(&member.password).get(url).expect(200);
    assert!(Kubeconfig::new(cluster, &with_token).is_accepted(cluster));
}

#[test]
fn member_sees_only_itself() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let body = json!({"duration": "1", "roleId": role.id, "username": "Ada", "description": "of the owner's own"});
    let created = daypass.owner.post("/members", &body).expect(201).json();
    let id = created["id"].as_str().unwrap();
    let engineer = daypass.owner.with_basic(id, created["credentials"]["password"].as_str().unwrap());
    // RBAC reaches the replica a moment later.
    let mut me = eventually("the role's rules are known", || {
        let me = engineer.get(&format!("/members/{id}/me")).expect(200).json();
        me["role"]["rules"].as_array().is_some_and(|rules| !rules.is_empty()).then_some(me)
    });
    let its_role = me.as_object_mut().unwrap().remove("role").unwrap();
    assert_eq!((&its_role["id"], &its_role["readOnly"]), (&json!(role.id), &json!(true)));
    let rule = json!({
        "namespaces": null, "verbs": ["get", "list"], "apiGroups": [""], "resources": ["namespaces", "pods"],
        "resourceNames": [], "nonResourceURLs": [],
    });
    assert!(its_role["rules"].as_array().unwrap().contains(&rule), "{its_role}");
    // The owner saw the same before it gave the role.
    let given = daypass.listed_role(&role.id);
    assert_eq!((&given["rules"], &given["namespaces"]), (&its_role["rules"], &its_role["namespaces"]));
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
fn member_can_end_itself() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let kubeconfig = member.kubeconfig(cluster);
    member.engineer.delete(&member.path("/me")).expect(204);
    member.engineer.get(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    member.engineer.delete(&member.path("/me")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
    for kind in ["members.daypass.dev", "serviceaccounts", "secrets"] {
        assert_eq!(cluster.names(&role.namespace, kind), [""; 0], "{kind}, when it answers");
    }
    kubeconfig.wait_refused(cluster);
    let events = daypass.audit(&member.id);
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["actor"]),
        (&json!("REVOKED"), &json!({"type": "MEMBER", "username": member.id}))
    );
    assert_eq!(last["member"]["expiresAt"], member.body["expiresAt"], "the answer repeats the grant");
}

/// Runs a script as if pasted. Without a terminal, curl reads the password from standard input.
fn paste(cluster: &Cluster, folder: &Path, text: &str, password: &str) -> Output {
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("setsid");
    shell.args(["--wait", "bash", "-euc", text]).current_dir(folder);
    shell.env("PATH", format!("{}:{path}", cluster.plane.tools().dir().display())).env("HOME", folder);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shell that exits early does not read the password; its status says why.
    let _ = writeln!(shell.stdin.take().unwrap(), "{password}");
    shell.wait_with_output().unwrap()
}

#[test]
fn owner_sees_whether_the_credential_was_used() {
    let (cluster, daypass) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let is_used = || {
        let shown = daypass.owner.get(&member.path("")).expect(200).json()["credentialUsed"].as_bool().unwrap();
        let list = daypass.owner.get(&format!("/members?roleId={}", role.id)).expect(200).json();
        assert_eq!(list["items"][0]["credentialUsed"], shown);
        shown
    };
    assert!(!is_used());
    // Looking is no use that an owner waits for.
    member.engineer.get(&member.path("/me")).expect(200);
    assert!(!is_used());
    member.engineer.get(&member.path("/kubeconfig")).expect(200);
    assert!(is_used());
    let renewed = daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201).json();
    assert!(!is_used());
    let password = renewed["password"].as_str().unwrap();
    member.engineer.with_basic(&member.id, password).post("/sessions", &json!({})).expect(201);
    assert!(is_used());
}

#[test]
fn handover_command_works_and_holds_no_secret() {
    let (cluster, daypass) = Cluster::shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let handover = member.body["credentials"]["handover"].as_str().unwrap();
    assert!(!handover.contains("dpm_") && !handover.contains(&member.password), "{handover}");
    assert!(handover.contains(member.body["expiresAt"].as_str().unwrap()), "{handover}");

    let folder = cluster.fresh_folder("engineer");
    let parts: Vec<&str> = handover.split("\n\n").collect();
    let [_, download, _, use_it, farewell] = parts[..] else { panic!("{handover}") };
    let output = paste(cluster, &folder, &format!("umask 000\n{download}"), &member.password);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = folder.join(format!("dp-1-{}.kubeconfig", member.id));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let output = paste(cluster, &folder, use_it, "");
    let whoami = String::from_utf8_lossy(&output.stdout);
    assert!(whoami.contains(&format!(
        "system:serviceaccount:daypass-{}:{}",
        member.body["roleId"].as_str().unwrap(),
        member.name()
    )));

    // It replaces an existing file of the same name, and the CA's file, instead of writing into them: others could
    // have them open.
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    let [new, ca] = ["kubeconfig.new", "ca.pem"].map(|end| folder.join(format!("dp-1-{}.{end}", member.id)));
    fs::write(&new, "an interrupted download").unwrap();
    [&file, &new, &ca].into_iter().for_each(|path| open(path));
    let mut before = fs::File::open(&file).unwrap();
    let first = fs::read_to_string(&file).unwrap();
    let output = paste(cluster, &folder, &format!("umask 000\n{download}"), &member.password);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&ca), new.exists()), (0o600, 0o600, false));
    let second = fs::read_to_string(&file).unwrap();
    assert!(second != first && second.contains("token:"), "another kubeconfig");
    // A process that had opened the old file still reads the old content.
    let mut seen = String::new();
    before.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, first);
    // A failed download keeps the existing file.
    let output = paste(cluster, &folder, download, "wrong");
    assert!(!output.status.success() && fs::read_to_string(&file).unwrap() == second && !new.exists());

    // A wrong password leaves no file that looks like a kubeconfig.
    let elsewhere = cluster.fresh_folder("engineer");
    let output = paste(cluster, &elsewhere, download, "wrong");
    assert!(!output.status.success() && !elsewhere.join(file.file_name().unwrap()).exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("401"), "{}", String::from_utf8_lossy(&output.stderr));

    let end_it = farewell.split("To end it earlier: ").nth(1).unwrap();
    assert!(paste(cluster, &folder, end_it, &member.password).status.success());
    daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
}
