//! Gateway kubeconfigs: their content, their number and their end, and which members get them.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Cluster, Daypass, Kubeconfig, NewMember, Role, eventually, time};

/// The shared cluster, and a replica in it that issues gateway kubeconfigs. It knows no address of the API server.
fn shared() -> (&'static Cluster, &'static Daypass) {
    static GATEWAY: OnceLock<Daypass> = OnceLock::new();
    let (cluster, _) = Cluster::shared();
    (cluster, GATEWAY.get_or_init(|| Daypass::with_args(cluster, &["--kubeconfig-mode=gateway"])))
}

fn records(cluster: &Cluster, role: &Role, member: &NewMember) -> Value {
    cluster.object(&role.namespace, "member", member.name()).unwrap()["status"]["kubeconfigs"].clone()
}

#[test]
fn gateway_kubeconfig_points_at_daypass_and_its_token_is_recorded_as_a_hash() {
    let (cluster, daypass) = shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let answer = member.engineer.get(&member.path("/kubeconfig")).expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let kubeconfig = Kubeconfig::new(cluster, &answer);
    let token = &kubeconfig.token;
    assert!(token.starts_with(&format!("dpg_{}.0_", member.id)), "{token}");

    let [id] = &member.listed(&daypass.owner)[..] else { panic!("one") };
    let name = format!("dp-1-{}-{}", member.id, &id[..8]);
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": format!("{}/dp-1/gateway", daypass.url),
            "certificate-authority-data": STANDARD.encode(cluster.serving_certificate()),
        }}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    let parsed: Value = serde_yaml::from_str(&kubeconfig.text).unwrap();
    assert_eq!(parsed, expected);
    let end = member.body["expiresAt"].as_str().unwrap();
    for text in [end, "no need to download it again", "/me, with", &format!("/kubeconfigs/{id}")] {
        assert!(kubeconfig.text.contains(text), "{text}: {}", kubeconfig.text);
    }
    assert!(!kubeconfig.text.contains("close them yourself"), "the gateway closes streams");

    let secret = cluster.object(&role.namespace, "secret", &format!("{}.0", member.name())).unwrap();
    let record = &records(cluster, &role, &member)[0];
    let digest: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    let fields = ["slot", "id", "mode", "tokenHash", "secretUid", "from"].map(|field| &record[field]);
    let uid = &secret["metadata"]["uid"];
    assert_eq!(fields, [&json!(0), &json!(id), &json!("gateway"), &json!(digest), uid, &json!("127.0.0.1")]);
    assert!(record.get("tokenExpiresAt").is_none() && record.get("lastUsedAt").is_none(), "{record}");
    // What a leader of version 0.1.0 looks for.
    let meta = &secret["metadata"];
    assert_eq!(
        (&meta["labels"]["daypass.dev/jti"], &meta["labels"]["daypass.dev/credential"]),
        (&json!(id), &record["credential"])
    );
    let left = time(&member.body["expiresAt"]) - time(&meta["annotations"]["daypass.dev/expires-at"]);
    assert_eq!(left.num_seconds(), 70);

    let list = daypass.owner.get(&member.path("/kubeconfigs")).expect(200).json();
    let item = &list["items"][0];
    assert_eq!((&item["mode"], &item["expiresAt"]), (&json!("GATEWAY"), &member.body["expiresAt"]));
    assert!(item.get("lastUsedAt").is_none(), "{item}");
    let issued = daypass.audit(&member.id).into_iter().filter(|event| event["jti"] == **id);
    assert_eq!(issued.map(|event| event["event"].clone()).collect::<Vec<_>>(), ["KUBECONFIG_ISSUED"]);
}

#[test]
fn gateway_token_is_no_credential_elsewhere() {
    let (cluster, daypass) = shared();
    let member = NewMember::new(&daypass.owner, &cluster.reader(), 1);
    let kubeconfig = member.kubeconfig(cluster);
    assert!(!kubeconfig.is_accepted(cluster), "by the API server");
    let owner = &daypass.owner;
    for client in [owner.with_token(&kubeconfig.token), owner.with_basic(&member.id, &kubeconfig.token)] {
        for path in ["", "/me", "/kubeconfig", "/kubeconfigs"] {
            client.get(&member.path(path)).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
        }
        client.get("/members").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
}

#[test]
fn member_with_minutes_left_gets_a_kubeconfig_that_an_extension_keeps() {
    let (cluster, daypass) = shared();
    let role = cluster.reader();
    let member = NewMember::applied(cluster, daypass, &role, "brief", &json!({"duration": "300s"}));
    member.kubeconfig(cluster);
    let issued = member.listed(&daypass.owner);
    assert_eq!(issued.len(), 1);
    for hours in [8, 2] {
        let changed = daypass.owner.patch(&member.path(""), &json!({"duration": hours})).expect(200).json();
        let list = daypass.owner.get(&member.path("/kubeconfigs")).expect(200).json();
        assert_eq!(
            (&list["items"][0]["jti"], &list["items"][0]["expiresAt"]),
            (&json!(issued[0]), &changed["expiresAt"])
        );
    }
    assert_eq!(cluster.names(&role.namespace, "secrets"), [format!("{}.0", member.name())]);
}

#[test]
fn revoked_gateway_kubeconfig_loses_record_and_secret() {
    let (cluster, daypass) = shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    member.kubeconfig(cluster);
    member.kubeconfig(cluster);
    let [one, two] = &member.listed(&daypass.owner)[..] else { panic!("two") };
    daypass.owner.delete(&member.path(&format!("/kubeconfigs/{one}"))).expect(204);
    assert_eq!(member.listed(&member.engineer), [two.as_str()]);
    let left = records(cluster, &role, &member);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["id"]), (1, &json!(two)));
    assert_eq!(cluster.names(&role.namespace, "secrets"), [format!("{}.1", member.name())]);
    daypass.owner.delete(&member.path(&format!("/kubeconfigs/{one}"))).problem(404, "DP_ERR_NOT_FOUND");
}

#[test]
fn new_credential_ends_gateway_kubeconfigs() {
    let (cluster, daypass) = shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    member.kubeconfig(cluster);
    daypass.owner.post(&member.path("/credentials"), &json!({})).expect(201);
    assert_eq!(member.listed(&daypass.owner), [""; 0]);
    assert_eq!(records(cluster, &role, &member), json!([]));
    assert_eq!(cluster.names(&role.namespace, "secrets"), [""; 0]);
    member.engineer.get(&member.path("/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
}

#[test]
fn ten_kubeconfigs_of_both_modes_together_are_issued() {
    let (cluster, daypass) = shared();
    let (_, direct) = Cluster::shared();
    let role = cluster.reader();
    let member = NewMember::new(&daypass.owner, &role, 1);
    let elsewhere = member.at(direct);
    let path = member.path("/kubeconfig");
    let answers = thread::scope(|scope| {
        let get = |count: u8| {
            if count.is_multiple_of(2) { member.engineer.get(&path) } else { elsewhere.engineer.get(&path) }
        };
        let threads: Vec<_> = (0..14).map(|count| scope.spawn(move || get(count))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<Answer>>()
    });
    let (issued, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    refused.iter().for_each(|answer| drop(answer.problem(409, "DP_ERR_TOO_MANY_KUBECONFIGS")));
    assert_eq!(issued.len(), 10);
    let modes = records(cluster, &role, &member);
    let modes: Vec<&str> = modes.as_array().unwrap().iter().map(|record| record["mode"].as_str().unwrap()).collect();
    let of_gateway = issued.iter().filter(|answer| answer.text.contains("dpg_")).count();
    assert_eq!(modes.iter().filter(|mode| **mode == "gateway").count(), of_gateway);
    assert_eq!((modes.len(), member.listed(&direct.owner).into_iter().collect::<BTreeSet<_>>().len()), (10, 10));
    assert_eq!(cluster.names(&role.namespace, "secrets").len(), 10);
    for member in [&member, &elsewhere] {
        member.engineer.get(&path).problem(409, "DP_ERR_TOO_MANY_KUBECONFIGS");
    }
}

#[test]
fn with_both_modes_a_role_chooses_and_one_that_runs_commands_gets_the_gateway() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::with_args(cluster, &["--kubeconfig-mode=both"]);
    let watch = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "watch"]}]);
    let exec = json!([{"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["create", "watch"]}]);
    let role = |rules: &Value, mode: Value| {
        cluster.role_of(&json!({"description": "A test's", "rules": rules, "kubeconfigMode": mode}))
    };
    let silent = cluster.role(watch.clone());
    let (direct, executing) = (role(&watch, json!("direct")), role(&exec, json!("direct")));
    for (role, of_gateway) in [(&silent, true), (&direct, false), (&executing, true)] {
        let member = NewMember::new(&daypass.owner, role, 1);
        // Daypass sees the rights of a new role a moment later.
        eventually("the role's streams are listed", || {
            (daypass.listed_role(&role.id)["streamsOutliveMember"] == !of_gateway).then_some(())
        });
        let kubeconfig = member.kubeconfig(cluster);
        assert_eq!(kubeconfig.token.starts_with("dpg_"), of_gateway, "{}", role.id);
    }
}

#[test]
fn direct_kubeconfigs_without_the_address_of_the_api_server_are_refused_at_the_start() {
    let (cluster, _) = Cluster::shared();
    for mode in ["direct", "both"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daypass"));
        command.env("KUBECONFIG", &cluster.kubeconfig);
        command.args(["serve", "--data-plane-id=dp-1", "--public-url=https://a", "--listen=127.0.0.1:0"]);
        let output = command.args(["--admin-listen=127.0.0.1:0", "--kubeconfig-mode", mode]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("needs --data-plane-server"), "{said}");
    }
}
