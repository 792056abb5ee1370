//! Each rule of an ID token, by a token that breaks it alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{KUBERNETES, Sso};
use crate::support::{Cluster, DAYPASS, Daypass, Launch, OpenIdProvider, eventually, now, oidc_args};

fn refused(sso: &Sso, token: &str, what: &str) {
    let answer = sso.daypass.owner.with_token(token).get("/self");
    assert_eq!(answer.status, 401, "{what}: {}", answer.text);
    answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    // The token names a trusted issuer: nobody else was asked about it.
    let calls: Vec<String> = sso.cluster.calls_of(&answer).into_iter().map(|call| call.what).collect();
    assert_eq!(calls, [""; 0], "{what}");
}

#[test]
fn each_rule_of_the_claims_is_enforced() {
    let sso = Sso::shared();
    let now = now().timestamp();
    let good = |changes: Value| sso.person(&changes).get("/self").expect(200);
    for changes in [
        json!({}),
        json!({"aud": ["daypass"]}),
        json!({"aud": ["daypass", "other"], "azp": "daypass"}),
        json!({"aud": ["daypass", "other"], "azp": "cli"}),
        json!({"nbf": now + 30, "iat": now + 30}),
        json!({"iat": now - 3500}),
        json!({"groups": "platform"}),
        json!({"groups": null}),
        json!({"groups": (0..1000).map(|n| n.to_string()).collect::<Vec<_>>()}),
        json!({"typ": "ID", "nonce": "n", "at_hash": "x"}),
        json!({"_claim_names": {"photo": "src1"}}),
    ] {
        good(changes);
    }
    for changes in [
        json!({"sub": null}),
        json!({"sub": ["1"]}),
        json!({"sub": ""}),
        json!({"sub": 1}),
        json!({"aud": null}),
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": ["other"]}),
        json!({"aud": [["daypass"]]}),
        json!({"aud": ["daypass", "other"]}),
        json!({"aud": ["daypass", "other"], "azp": "other"}),
        json!({"azp": "somebody"}),
        json!({"azp": ["daypass"]}),
        json!({"exp": null}),
        json!({"exp": now - 1}),
        json!({"exp": "tomorrow"}),
        json!({"nbf": now + 3600}),
        json!({"nbf": "now"}),
        json!({"iat": null}),
        json!({"iat": now + 3600}),
        json!({"iat": now - 3700}),
        json!({"email": null}),
        json!({"email": ""}),
        json!({"email": "a\u{0}b@example.com"}),
        json!({"email": ["ada@example.com"]}),
        json!({"email_verified": null}),
        json!({"email_verified": false}),
        json!({"email_verified": "true"}),
        json!({"groups": [1]}),
        json!({"groups": {"platform": true}}),
        json!({"groups": ["platform", ""]}),
        json!({"groups": ["line\nbreak"]}),
        json!({"groups": (0..1001).map(|n| n.to_string()).collect::<Vec<_>>()}),
        json!({"groups": null, "_claim_names": {"groups": "a"}, "_claim_sources": {"a": {"endpoint": "https://a"}}}),
        json!({"typ": "Bearer"}),
        json!({"typ": "Logout"}),
        json!({"scope": "openid"}),
        json!({"scp": ["openid"]}),
        json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
        json!({"cnf": {"jkt": "x"}}),
    ] {
        refused(sso, &sso.provider.token(&changes), &changes.to_string());
    }
    // A list of issuers names none, and programs differ about these.
    for (changes, what) in [
        (json!({"iss": [sso.provider.issuer]}), "a list of issuers"),
        (json!({"iss": null, "ISS": sso.provider.issuer}), "another case"),
    ] {
        refused(sso, &sso.provider.token(&changes), what);
    }
}

#[test]
fn each_rule_of_the_header_and_the_key_is_enforced() {
    // Its own, since the API server reads the keys of the other.
    let (sso, provider) = (Sso::shared(), OpenIdProvider::start());
    let claims = provider.claims(&json!({}));
    let signed = |kid: &str, header: Value| provider.signed(&json!({"kid": kid, "header": header, "claims": claims}));
    for (kid, algorithm) in
        [("rs", "RS256"), ("r3", "RS384"), ("r5", "RS512"), ("ps", "PS256"), ("p3", "PS384"), ("e3", "ES384")]
    {
        provider.new_key(&json!({"algorithm": algorithm, "kid": kid}));
    }
    // As Entra ID's, whose discovery document names it.
    provider.new_key(&json!({"algorithm": "RS256", "kid": "nameless", "jwk": {"alg": null}}));
    let (small, curve, edwards, secret, encrypts) = ("small", "e5", "ed", "oct", "enc");
    provider.new_key(&json!({"algorithm": "RS256", "kid": small, "bits": 1024}));
    provider.new_key(&json!({"algorithm": "ES512", "kid": curve}));
    provider.new_key(&json!({"algorithm": "EdDSA", "kid": edwards}));
    provider.new_key(&json!({"algorithm": "HS256", "kid": secret}));
    provider.new_key(&json!({"algorithm": "RS256", "kid": encrypts, "jwk": {"use": "enc"}}));
    // A key that the provider does not publish, under a name that it does.
    let hidden = provider.new_key(&json!({"algorithm": "ES256", "kid": "main-too", "hidden": true}));
    provider.new_key(&json!({"algorithm": "ES256", "kid": "main-too"}));
    // Daypass reads them all at its start.
    let daypass = sso.daypass(&[provider.settings(&json!({}))], &[]);
    let ask = |token: &str| daypass.owner.with_token(token).get("/self");
    for kid in ["main", "rs", "r3", "r5", "ps", "p3", "e3", "nameless"] {
        let token = provider.signed(&json!({"kid": kid, "claims": claims}));
        assert_eq!(ask(&token).status, 200, "{kid}");
    }
    for header in [
        json!({"alg": "ES256", "kid": "main", "jku": "https://127.0.0.1:1", "x5u": "https://127.0.0.1:1", "jwk": {}}),
        json!({"alg": "ES256"}),
    ] {
        assert_eq!(ask(&signed("main", header.clone())).status, 200, "{header}");
    }

    let public = |alg: &str| json!({"alg": alg, "kid": "rs"});
    for (token, what) in [
        (signed("main", json!({"alg": "none", "kid": "main"})), "no signature"),
        (signed("main", json!({"alg": "ES256", "kid": "main", "crit": ["exp"]})), "crit"),
        (signed("main", json!({"alg": "ES256", "kid": "main", "typ": "at+jwt"})), "an access token"),
        (signed("main", json!({"alg": "ES256", "kid": "main", "typ": "logout+jwt"})), "a logout token"),
        (signed("main", json!({"alg": "ES384", "kid": "main"})), "another algorithm"),
        (signed("main", json!({"kid": "main"})), "no algorithm"),
        (signed("rs", public("HS256")), "HMAC with the public key"),
        (signed(&hidden, json!({"alg": "ES256", "kid": "main"})), "another key"),
    ] {
        let answer = ask(&token);
        assert_eq!(answer.status, 401, "{what}");
        assert!(sso.cluster.calls_of(&answer).is_empty(), "{what}");
    }
    let good_token = provider.token(&json!({}));
    let [header, payload, signature] = good_token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let other = URL_SAFE_NO_PAD.encode(provider.claims(&json!({"sub": "2"})).to_string());
    for token in [
        format!("{header}.{other}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}.{payload}.{signature}"),
    ] {
        assert_eq!(ask(&token).status, 401, "{token}");
    }
    let asked = provider.key_requests();
    for kid in [small, curve, edwards, secret, encrypts] {
        let answer = ask(&provider.signed(&json!({"kid": kid, "claims": claims})));
        assert_eq!(answer.status, 401, "{kid}: {}", answer.text);
    }
    assert_eq!(provider.key_requests(), asked, "a key that Daypass does not use is no reason to ask for others");
}

#[test]
fn other_issuers_key_is_refused() {
    let sso = Sso::shared();
    let other = OpenIdProvider::start();
    let claims = sso.provider.claims(&json!({}));
    // Under the name of a key that the issuer has.
    refused(sso, &other.signed(&json!({"kid": "main", "claims": claims})), "another issuer's key");
    // Two issuers know the same name, and neither key counts for the other.
    let settings = json!({"name": "two", "usernamePrefix": "two:", "groupsPrefix": "two:"});
    let daypass = sso.daypass(&[sso.provider.settings(&json!({})), other.settings(&settings)], &[]);
    let status = |token: &str| daypass.owner.with_token(token).get("/self").status;
    assert_eq!(status(&sso.provider.token(&json!({}))), 200);
    let theirs = daypass.owner.with_token(&other.token(&json!({}))).get("/self").expect(200).json();
    assert_eq!(theirs["username"], "two:ada@example.com");
    assert_eq!(status(&other.signed(&json!({"kid": "main", "claims": claims}))), 401);
}

#[test]
fn without_issuers_the_api_server_decides_about_every_token() {
    let (cluster, daypass) = Cluster::shared();
    let unclear = cluster.resign(daypass.owner.token(), |claims| claims["iss"] = json!([claims["iss"]]));
    let answer = daypass.owner.with_token(&unclear).get("/self");
    answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let calls: Vec<String> = cluster.calls_of(&answer).into_iter().map(|call| call.what).collect();
    assert_eq!(calls, ["create tokenreviews"]);
}

#[test]
fn names_of_kubernetes_itself_are_refused_without_a_prefix() {
    let sso = Sso::shared();
    let settings = json!({"usernamePrefix": "", "groupsPrefix": "", "unprefixed": true});
    let daypass = sso.daypass(&[sso.provider.settings(&settings)], &[]);
    let status = |claims: Value| daypass.owner.with_token(&sso.provider.token(&claims)).get("/self").status;
    assert_eq!(status(json!({})), 200);
    assert_eq!(status(json!({"groups": ["a", "system:masters"]})), 401);
    assert_eq!(status(json!({"email": "system:serviceaccount:default:owner"})), 401);
}

#[test]
fn token_that_the_api_server_accepts_is_refused() {
    let sso = Sso::shared();
    let both = sso.provider.token(&json!({"aud": ["daypass", KUBERNETES], "azp": "daypass"}));
    let ours = sso.provider.token(&json!({}));
    assert!(sso.cluster.api.accepts(&both), "the control");
    assert!(!sso.cluster.api.accepts(&ours));
    let answer = sso.daypass.owner.with_token(&both).get("/self");
    answer.problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    let reviews = |answer| {
        let calls = sso.cluster.calls_of(&answer);
        calls.iter().filter(|call| call.what == "create tokenreviews").count()
    };
    assert_eq!(reviews(answer), 1);
    assert!(sso.daypass.log().contains("give Daypass an audience of its own"));
    // Once for each token.
    let client = sso.daypass.owner.with_token(&ours);
    assert_eq!(reviews(client.get("/self").expect(200)), 1);
    for _ in 0..3 {
        assert_eq!(reviews(client.get("/self").expect(200)), 0);
    }
    let accepts = sso.daypass(&[sso.provider.settings(&json!({}))], &["--accept-api-server-audience"]);
    accepts.owner.with_token(&both).get("/self").expect(200);
}

#[test]
fn nobody_new_is_accepted_while_the_api_server_does_not_review_tokens() {
    let (cluster, provider) = (Cluster::exclusive(), OpenIdProvider::start());
    cluster.expect_refusals();
    let args = oidc_args(&cluster, &[provider.settings(&json!({}))]);
    let mut daypass = Daypass::start(&cluster, &Launch { args, ..Launch::default() });
    let [known, new] = ["known", "new"].map(|id| daypass.owner.with_token(&provider.token(&json!({"jti": id}))));
    known.get("/self").expect(200);
    let rules = cluster.object("default", "clusterrole", "daypass").unwrap()["rules"].clone();
    let is_kept = |rule: &&Value| rule["resources"] != json!(["tokenreviews"]);
    let less: Vec<&Value> = rules.as_array().unwrap().iter().filter(is_kept).collect();
    assert!(less.len() < rules.as_array().unwrap().len());
    let review = json!({"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"});
    let set = |rules: Value, expected: bool| {
        cluster.patch("default", "clusterrole", "daypass", &json!({"rules": rules}));
        eventually("the rules are in force", || (cluster.api.allows(DAYPASS, &review) == expected).then_some(()));
    };
    set(json!(less), false);
    new.get("/self").problem(503, "DP_ERR_UNAVAILABLE");
    known.get("/self").expect(200);
    set(rules, true);
    new.get("/self").expect(200);
    daypass.stop();
}

#[test]
fn nobody_is_accepted_while_the_api_server_lacks_the_issuers_keys() {
    // The API server would accept this token, once it has the issuer's keys.
    let (cluster, provider) = (Cluster::own(), OpenIdProvider::start());
    // A restarted API server refuses whatever comes before it has read RBAC.
    cluster.expect_refusals();
    let args = oidc_args(&cluster, &[provider.settings(&json!({}))]);
    let mut daypass = Daypass::start(&cluster, &Launch { args, ..Launch::default() });
    daypass.owner.with_token(&provider.token(&json!({}))).get("/self").expect(200);
    provider.post("/faults", &json!({"discovery": "500"}));
    provider.trusted_by_api_server(&cluster, KUBERNETES);
    let both = provider.token(&json!({"aud": ["daypass", KUBERNETES], "azp": "daypass"}));
    let client = daypass.owner.with_token(&both);
    client.get("/self").problem(503, "DP_ERR_UNAVAILABLE");
    provider.post("/faults", &json!({}));
    eventually("the API server has the keys", || cluster.api.accepts(&both).then_some(()));
    client.get("/self").problem(401, "DP_ERR_CREDENTIAL_REFUSED");
    daypass.stop();
}

#[test]
fn required_claims_and_the_age_of_tokens_are_enforced() {
    let sso = Sso::shared();
    let settings = json!({"requiredClaims": {"tenant": "ours"}, "maxTokenAge": "10m"});
    let daypass = sso.daypass(&[sso.provider.settings(&settings)], &[]);
    let status = |claims: Value| daypass.owner.with_token(&sso.provider.token(&claims)).get("/self").status;
    let now = now().timestamp();
    assert_eq!(status(json!({"tenant": "ours"})), 200);
    assert_eq!(status(json!({"tenant": "theirs"})), 401);
    assert_eq!(status(json!({"tenant": ["ours"]})), 401);
    assert_eq!(status(json!({})), 401);
    assert_eq!(status(json!({"tenant": "ours", "iat": now - 500})), 200);
    assert_eq!(status(json!({"tenant": "ours", "iat": now - 700})), 401);
}

#[test]
fn wrong_settings_keep_daypass_from_starting() {
    let sso = Sso::shared();
    let own = sso.cluster.kubectl(&["get", "--raw", "/.well-known/openid-configuration"]);
    let own: Value = serde_json::from_str(&own).unwrap();
    for (issuers, said) in [
        (json!([sso.provider.settings(&json!({"usernamePrefix": null}))]), "usernamePrefix is required"),
        (json!([sso.provider.settings(&json!({"usernameExpression": "claims.sub"}))]), "expressions (CEL)"),
        (json!([sso.provider.settings(&json!({"url": own["issuer"]}))]), "own issuer of service account tokens"),
        (json!([]), "needs at least one issuer"),
        (json!({"a": "b"}), "must be a list"),
    ] {
        let mut args = oidc_args(&sso.cluster, &[]);
        args[1] = format!("--oidc-issuers-file={}", sso.cluster.save(&issuers.to_string()).display());
        let mut daypass = Daypass::start(&sso.cluster, &Launch { args, impatient: true, ..Launch::default() });
        eventually("it gives up", || daypass.ended());
        assert!(daypass.log().contains(said), "{said}: {}", daypass.log());
    }
    let args = vec!["--auth-methods=kubernetes,oidc".to_owned()];
    let mut daypass = Daypass::start(&sso.cluster, &Launch { args, impatient: true, ..Launch::default() });
    eventually("it gives up", || daypass.ended());
    assert!(daypass.log().contains("needs --oidc-issuers-file"), "{}", daypass.log());
}
