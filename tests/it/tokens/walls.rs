//! The policy daypass-accesstokens: only Daypass writes AccessTokens.

use serde_json::json;

use crate::support::tokens::{AccessToken, SCOPES};
use crate::support::{DAYPASS, WallTest, attack, eventually, legit};

const ONLY: (&str, &str) = ("daypass-accesstokens", "only Daypass writes AccessTokens");
const FORGED: &str = "{apiVersion: daypass.dev/v1alpha1, kind: AccessToken,
    metadata: {name: $KEY-7, namespace: $WHERE},
    spec: {id: $KEY-7-aaaaaa, name: forged,
      owner: {username: system:admin, groups: {names: [system:masters], at: 2026-01-01T00:00:00Z}},
      createdBy: system:admin, scopes: [members:write], expiresAt: 2099-01-01T00:00:00Z,
      tokenHash: $HASH, identity: i}}";
const OTHER: &str = r#"patch accesstoken $TOKEN -n daypass --type=merge -p {"spec":{"tokenHash":"$HASH"}}"#;
const LONGER: &str =
    r#"patch accesstoken $TOKEN -n daypass --type=merge -p {"spec":{"expiresAt":"2099-01-01T00:00:00Z"}}"#;
const USED: &str = concat!(
    "patch accesstoken $TOKEN -n daypass --subresource=status --type=merge ",
    r#"-p {"status":{"lastUsedAt":"2099-01-01T00:00:00Z"}}"#
);
const HOLD: &str =
    r#"patch accesstoken $TOKEN -n daypass --type=merge -p {"metadata":{"finalizers":["example.com/hold"]}}"#;

#[test]
fn only_daypass_writes_access_tokens() {
    let (mut test, daypass) = WallTest::shared();
    let cluster = test.cluster();
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let group = "rbac.authorization.k8s.io";
    let bind = |name: &str, role: &str, user: &str| {
        json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        })
    };
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "tests-all"},
        "rules": everything,
    });
    // RBAC governs the objects separately from the privileges.
    let people = json!({"apiVersion": "v1", "kind": "List", "items": [
        role, bind("tests-tom-all", "tests-all", "tom"), bind("tests-tom-manage", "daypass-tokens-manage", "tom"),
        bind("tests-gina-generate", "daypass-tokens-generate", "gina"), bind("tests-gina-all", "tests-all", "gina"),
    ]});
    cluster.apply(&people.to_string());
    let caller = cluster.generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    let key = pat.object().split('-').next().unwrap();
    test.set("TOKEN", pat.object()).set("KEY", key).set("HASH", &"a".repeat(64)).set("WHERE", "daypass");
    eventually("people have their rights", || {
        let can = |who| test.run(who, "auth can-i create accesstokens.daypass.dev -n daypass", "").status.success();
        (can("tom") && can("gina")).then_some(())
    });
    let mut attempts = Vec::new();
    for who in ["tom", "gina", ""] {
        attempts.extend([
            attack("a forged one", who, "create -f -", FORGED, ONLY),
            attack("another secret", who, OTHER, "", ONLY),
            attack("a later end", who, LONGER, "", ONLY),
            attack("a use", who, USED, "", ONLY),
            attack("with a finalizer", who, HOLD, "", ONLY),
            attack("labelled", who, "label accesstoken $TOKEN -n daypass a=b", "", ONLY),
            legit("revoked", who, "delete accesstoken $TOKEN -n daypass", ""),
        ]);
    }
    attempts.push(legit("its end, by Daypass", DAYPASS, LONGER, ""));
    test.check_all(&attempts);
    test.set("WHERE", "default").check_all(&[attack("in another namespace", "", "create -f -", FORGED, ONLY)]);
    // The privileges alone give no right on the objects.
    for (who, what) in
        [("mia", "create"), ("mia", "patch"), ("adam", "create"), ("adam", "patch"), ("adam", "get"), ("eve", "list")]
    {
        assert!(
            !test.run(who, &format!("auth can-i {what} accesstokens.daypass.dev -n daypass"), "").status.success()
        );
    }
    pat.http.get("/tokens/self").expect(200);
}

#[test]
fn access_token_schema_refuses_invalid_objects() {
    let (mut test, daypass) = WallTest::shared();
    let caller = test.cluster().generator(daypass);
    let pat = AccessToken::new(&caller, &SCOPES);
    test.set("TOKEN", pat.object());
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
        let output = test.run(DAYPASS, &args, "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("invalid"), "{change}: {error}");
    }
}

#[test]
fn kubectl_delete_revokes_a_token_at_once() {
    let (test, daypass) = WallTest::shared();
    let cluster = test.cluster();
    let caller = cluster.generator(daypass);
    for cascade in ["background", "foreground"] {
        let pat = AccessToken::new(&caller, &SCOPES);
        let session = pat.sign_in();
        session.http.get("/tokens/self").expect(200);
        let cascade = format!("--cascade={cascade}");
        cluster.kubectl(&["delete", "accesstoken", pat.object(), "-n", "daypass", &cascade, "--wait=false"]);
        pat.http.assert_refused();
        session.http.assert_refused();
        assert!(!caller.token_ids("").contains(&pat.id));
        cluster.wait_token_gone(&pat);
        cluster.wait_token_gone(&session);
    }
}
