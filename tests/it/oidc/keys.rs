//! An issuer's keys: rotation, and issuers that are down or hostile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::Sso;
use crate::support::{OpenIdProvider, eventually};

/// What tests/oidc-provider/front.go can do instead of answering.
const FAULTS: [&str; 8] = ["slow", "hang", "endless", "large", "redirect", "500", "html", "drop"];

#[test]
fn issuer_that_is_down_or_hostile_stops_its_own_people_alone() {
    let sso = Sso::shared();
    let documents = ["discovery", "jwks"];
    let mut faulty: Vec<(String, OpenIdProvider)> = Vec::new();
    for (document, fault) in documents.iter().flat_map(|document| FAULTS.map(|fault| (*document, fault))) {
        let provider = OpenIdProvider::start();
        provider.post("/faults", &json!({document: fault}));
        faulty.push((format!("{document}-{fault}"), provider));
    }
    for (name, fields) in [
        ("other-issuer", json!({"issuer": "https://other.example.com"})),
        ("slash", json!({"issuer": format!("{}/", OpenIdProvider::start().issuer)})),
        ("plain", json!({"jwks_uri": "http://127.0.0.1:1/keys"})),
        ("no-keys", json!({"jwks_uri": null})),
    ] {
        let provider = OpenIdProvider::start();
        provider.post("/faults", &json!({"discoveryFields": fields}));
        faulty.push((name.to_owned(), provider));
    }
    let settings = |(name, provider): &(String, OpenIdProvider)| {
        let prefix = format!("{name}:");
        provider.settings(&json!({"name": name, "usernamePrefix": prefix, "groupsPrefix": prefix}))
    };
    let mut issuers: Vec<Value> = faulty.iter().map(settings).collect();
    // A CA that the provider's certificate is not from.
    let stranger = OpenIdProvider::start();
    let ca = faulty[0].1.ca_file.clone();
    issuers
        .push(stranger.settings(&json!({"name": "ca", "caFile": ca, "usernamePrefix": "ca:", "groupsPrefix": "ca:"})));
    faulty.push(("ca".to_owned(), stranger));
    // One that Mozilla's CAs know nothing of.
    let private = OpenIdProvider::start();
    let settings =
        json!({"name": "private", "caFile": null, "usernamePrefix": "private:", "groupsPrefix": "private:"});
    issuers.push(private.settings(&settings));
    faulty.push(("private".to_owned(), private));
    issuers.push(sso.provider.settings(&json!({})));
    let daypass = sso.daypass(&issuers, &[]);

    let ada = daypass.owner.with_token(&sso.provider.token(&json!({})));
    // On a slow machine, its keys may take their time beside all the others.
    eventually("the good issuer's keys are there", || (ada.get("/self").status == 200).then_some(()));
    thread::scope(|scope| {
        for (name, provider) in &faulty {
            let person = daypass.owner.with_token(&provider.token(&json!({})));
            scope.spawn(move || {
                let body = person.get("/self").problem(503, "DP_ERR_UNAVAILABLE");
                assert!(body["detail"].as_str().unwrap().contains("issuer"), "{name}: {body}");
            });
        }
    });
    ada.get("/self").expect(200);
    daypass.owner.get("/self").expect(200);
    assert!(faulty.iter().all(|(_, provider)| provider.redirected() == 0), "no redirect is followed");
    let fetched =
        |name: &str| daypass.metric(&format!("daypass_oidc_keys_fetched_timestamp_seconds{{issuer=\"{name}\"}}"));
    assert!(fetched("corp") > 0.0);
    for (name, _) in &faulty {
        assert_eq!(fetched(name), 0.0, "{name}");
        let failed = format!("daypass_oidc_key_refreshes_total{{issuer=\"{name}\",outcome=\"failed\"}}");
        eventually("the failure is counted", || (daypass.metric(&failed) >= 1.0).then_some(()));
    }
    // One that recovers.
    let (name, provider) = &faulty[0];
    provider.post("/faults", &json!({}));
    let person = daypass.owner.with_token(&provider.token(&json!({})));
    eventually(&format!("{name} has recovered"), || (person.get("/self").status == 200).then_some(()));
}

#[test]
fn keys_rotate_under_load_and_nobody_is_refused() {
    let (sso, provider) = (Sso::shared(), OpenIdProvider::start());
    let daypass = sso.daypass(&[provider.settings(&json!({}))], &[]);
    let claims = provider.claims(&json!({}));
    let token = |kid: &str| provider.signed(&json!({"kid": kid, "claims": claims}));
    let before = daypass.owner.with_token(&token("main"));
    before.get("/self").expect(200);
    let asked = provider.key_requests();
    for _ in 0..50 {
        before.get("/self").expect(200);
    }
    assert_eq!(provider.key_requests(), asked, "known keys cost no call to the issuer");

    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    before.get("/self").expect(200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Two rotations one after the other: the second meets the pause between two questions.
        for kid in ["second", "third"] {
            provider.new_key(&json!({"algorithm": "RS256", "kid": kid, "active": true}));
            let after = daypass.owner.with_token(&token(kid));
            eventually("the new key is known", || {
                let answer = after.get("/self");
                assert!([200, 503].contains(&answer.status), "{}", answer.text);
                (answer.status == 200).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 0);
    // Once for each rotation, and perhaps again if an answer took too long; not once for each request.
    assert!((asked + 2..=asked + 4).contains(&provider.key_requests()), "{}", provider.key_requests() - asked);
}

#[test]
fn issuer_that_goes_down_leaves_its_known_keys() {
    let (sso, provider) = (Sso::shared(), OpenIdProvider::start());
    let daypass = sso.daypass(&[provider.settings(&json!({}))], &[]);
    let known = daypass.owner.with_token(&provider.token(&json!({})));
    known.get("/self").expect(200);
    provider.new_key(&json!({"algorithm": "ES256", "kid": "new"}));
    let unknown = provider.signed(&json!({"kid": "new", "claims": provider.claims(&json!({}))}));
    drop(provider);
    daypass.owner.with_token(&unknown).get("/self").problem(503, "DP_ERR_UNAVAILABLE");
    known.get("/self").expect(200);
}
