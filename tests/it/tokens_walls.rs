//! The policy daypass-accesstokens: nobody but Daypass writes an AccessToken, by whatever path.

use serde_json::json;

use crate::support::tokens::{Pat, SCOPES};
use crate::support::{DAYPASS, Stage, attack, eventually, legit};

const ONLY: (&str, &str) = ("daypass-accesstokens", "only Daypass writes AccessTokens");
const FORGED: &str = "{apiVersion: daypass.dev/v1alpha1, kind: AccessToken,
    metadata: {name: $KEY-7, namespace: $WHERE},
    spec: {id: $KEY-7-aaaaaa, name: forged, owner: {username: system:admin, groups: {names: [system:masters], at: 2026-01-01T00:00:00Z}},
      createdBy: system:admin, scopes: [members:write], expiresAt: 2099-01-01T00:00:00Z, tokenHash: $HASH, identity: i}}";
const OTHER: &str = r#"patch accesstoken $TOKEN -n daypass --type=merge -p {"spec":{"tokenHash":"$HASH"}}"#;
const LONGER: &str =
    r#"patch accesstoken $TOKEN -n daypass --type=merge -p {"spec":{"expiresAt":"2099-01-01T00:00:00Z"}}"#;
const USED: &str = r#"patch accesstoken $TOKEN -n daypass --subresource=status --type=merge -p {"status":{"lastUsedAt":"2099-01-01T00:00:00Z"}}"#;
const HOLD: &str =
    r#"patch accesstoken $TOKEN -n daypass --type=merge -p {"metadata":{"finalizers":["example.com/hold"]}}"#;

#[test]
fn nobody_else_writes_one() {
    let (mut stage, daypass) = Stage::shared();
    let lab = stage.lab();
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let group = "rbac.authorization.k8s.io";
    let bind = |name: &str, role: &str, user: &str| {
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        })
    };
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "tests-all"}, "rules": everything});
    // The objects are RBAC's to give; what the privileges are verbs on is not them.
    let people = json!({"apiVersion": "v1", "kind": "List", "items": [
        role, bind("tests-tom-all", "tests-all", "tom"), bind("tests-tom-manage", "daypass-tokens-manage", "tom"),
        bind("tests-gina-generate", "daypass-tokens-generate", "gina"), bind("tests-gina-all", "tests-all", "gina"),
    ]});
    lab.apply(&people.to_string());
    let caller = lab.generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    let key = pat.object().split('-').next().unwrap();
    stage.set("TOKEN", pat.object()).set("KEY", key).set("HASH", &"a".repeat(64)).set("WHERE", "daypass");
    eventually("people have their rights", || {
        let can = |who| stage.run(who, "auth can-i create accesstokens.daypass.dev -n daypass", "").status.success();
        (can("tom") && can("gina")).then_some(())
    });
    let mut attempts = Vec::new();
    for who in ["tom", "gina", ""] {
        attempts.extend([
            attack("a forged one", who, "create -f -", FORGED, ONLY),
            attack("another secret", who, OTHER, "", ONLY),
            attack("a later end", who, LONGER, "", ONLY),
            attack("a use", who, USED, "", ONLY),
            attack("held", who, HOLD, "", ONLY),
            attack("labelled", who, "label accesstoken $TOKEN -n daypass a=b", "", ONLY),
            legit("revoked", who, "delete accesstoken $TOKEN -n daypass", ""),
        ]);
    }
    attempts.push(legit("its end, by Daypass", DAYPASS, LONGER, ""));
    stage.play(&attempts);
    stage.set("WHERE", "default").play(&[attack("in another namespace", "", "create -f -", FORGED, ONLY)]);
    // Who has only the privileges has no right on the objects at all.
    for (who, what) in
        [("mia", "create"), ("mia", "patch"), ("adam", "create"), ("adam", "patch"), ("adam", "get"), ("eve", "list")]
    {
        assert!(
            !stage.run(who, &format!("auth can-i {what} accesstokens.daypass.dev -n daypass"), "").status.success()
        );
    }
    pat.http.get("/tokens/self").expect(200);
}

#[test]
fn what_is_written_past_the_policy_is_bound_by_its_schema() {
    let (mut stage, daypass) = Stage::shared();
    let caller = stage.lab().generator(daypass);
    let pat = Pat::new(&caller, &SCOPES);
    stage.set("TOKEN", pat.object());
    for change in [
        r#"{"spec":{"owner":{"username":"system:admin"}}}"#,
        r#"{"spec":{"scopes":["members:read"]}}"#,
        r#"{"spec":{"createdBy":"somebody"}}"#,
        r#"{"spec":{"identity":"another"}}"#,
        r#"{"spec":{"id":"a-b"}}"#,
        r#"{"spec":{"expiresAt":"2101-01-01T00:00:00Z"}}"#,
        r#"{"spec":{"expiresAt":null}}"#,
        r#"{"spec":{"tokenHash":"secret"}}"#,
    ] {
        let args = format!("patch accesstoken $TOKEN -n daypass --type=merge -p {change}");
        let output = stage.run(DAYPASS, &args, "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("invalid"), "{change}: {error}");
    }
}

#[test]
fn who_deletes_one_revokes_it_at_once_and_nothing_is_left_hanging() {
    let (stage, daypass) = Stage::shared();
    let lab = stage.lab();
    let caller = lab.generator(daypass);
    for cascade in ["background", "foreground"] {
        let pat = Pat::new(&caller, &SCOPES);
        let session = pat.sign_in();
        session.http.get("/tokens/self").expect(200);
        let cascade = format!("--cascade={cascade}");
        lab.kubectl(&["delete", "accesstoken", pat.object(), "-n", "daypass", &cascade, "--wait=false"]);
        pat.http.assert_refused();
        session.http.assert_refused();
        assert!(!caller.token_ids("").contains(&pat.id));
        lab.wait_token_gone(&pat);
        lab.wait_token_gone(&session);
    }
}
