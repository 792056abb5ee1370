//! Sessions of people, which are issued for an ID token.

use serde_json::{Value, json};

use super::Sso;
use crate::support::tokens::AccessToken;
use crate::support::{NewMember, OpenIdProvider, now, time};

#[test]
fn session_acts_as_its_person_and_ends_with_the_id_token() {
    let sso = Sso::shared();
    let claims = json!({"sub": "page-ada"});
    let ada = sso.person(&claims);
    let session = AccessToken::session_of(&ada);
    let owner = json!({"username": "corp:ada@example.com", "issuer": sso.provider.issuer, "subject": "page-ada"});
    assert_eq!((&session.body["kind"], &session.body["owner"]), (&json!("ID_TOKEN"), &owner));
    // The ID token lasts for five minutes.
    let left = (time(&session.body["expiresAt"]) - now()).num_seconds();
    assert!((120..=300).contains(&left), "{left}");
    let (me, theirs) = (session.http.get("/self").expect(200).json(), ada.get("/self").expect(200).json());
    for same in ["username", "uid", "groups", "issuer", "subject", "scopes"] {
        assert_eq!(me[same], theirs[same], "{same}");
    }
    assert_eq!(me["credential"]["issuedFor"], "ID_TOKEN");
    let member = NewMember::new(&session.http, &sso.role, 1);
    let events = sso.daypass.audit(&member.id);
    let actor = &events.iter().find(|event| event["event"] == "MEMBER_CREATED").unwrap()["actor"];
    assert_eq!((&actor["type"], &actor["subject"]), (&json!("CALLER"), &json!("page-ada")));
    session.http.delete(&member.path("")).expect(204);
    let lasting = sso.provider.token(&json!({"sub": "page-ada", "exp": now().timestamp() + 7200}));
    let lasting = AccessToken::session_of(&sso.daypass.owner.with_token(&lasting));
    let left = (time(&lasting.body["expiresAt"]) - now()).num_minutes();
    assert!((25..=30).contains(&left), "{left}");
}

#[test]
fn session_belongs_to_the_person_and_not_to_the_name() {
    let sso = Sso::shared();
    let person = |sub: &str| sso.person(&json!({"sub": sub, "email": "page-desk@example.com"}));
    let (before, after) = (person("page-desk-1"), person("page-desk-2"));
    let (theirs, own) = (AccessToken::session_of(&before), AccessToken::session_of(&after));
    after.delete("/sessions").expect(204);
    own.http.get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    assert_eq!(theirs.http.get("/self").expect(200).json()["subject"], "page-desk-1");
}

#[test]
fn session_ends_with_the_settings_of_its_issuer() {
    let sso = Sso::shared();
    let session =
        AccessToken::session_of(&sso.person(&json!({"sub": "page-issuer", "exp": now().timestamp() + 7200})));
    let with = |settings: Value, more: &[&str]| sso.daypass(&[settings], more);
    session.at(&with(sso.provider.settings(&json!({})), &[])).get("/self").expect(200);
    let another = OpenIdProvider::start();
    for changed in [
        sso.provider.settings(&json!({"usernamePrefix": "other:"})),
        sso.provider.settings(&json!({"groupsPrefix": "other:"})),
        another.settings(&json!({})),
    ] {
        session.at(&with(changed, &[])).get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    }
    // Whether Kubernetes tokens are accepted makes no difference to it.
    let mut off = crate::support::oidc_args(&sso.cluster, &[sso.provider.settings(&json!({}))]);
    off[0] = "--auth-methods=oidc".to_owned();
    let off = crate::support::Daypass::start(
        &sso.cluster,
        &crate::support::Launch { args: off, ..crate::support::Launch::default() },
    );
    session.at(&off).get("/self").expect(200);
    session.http.get("/self").expect(200);
}
