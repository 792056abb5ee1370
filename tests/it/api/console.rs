//! The console's pages and forms: who may use each, where forms may come from, and what a page costs.

use std::collections::BTreeSet;

use reqwest::header::ORIGIN;
use serde_json::json;

use crate::support::tokens::{AccessToken, SCOPES, forged};
use crate::support::{Answer, Browser, Call, Cluster, Daypass, Http, NewMember, Role, eventually};

/// Whom a route is for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum For {
    Owners,
    Engineers,
    Everybody,
}

/// Every route of the console.
const ROUTES: [(&str, &str, For); 23] = [
    ("GET", "/sign-in", For::Everybody),
    ("POST", "/sign-in", For::Everybody),
    ("POST", "/sign-out", For::Everybody),
    ("POST", "/sign-out/everywhere", For::Everybody),
    ("POST", "/sso/{issuer}", For::Everybody),
    ("GET", "/sso/callback/{issuer}", For::Everybody),
    ("GET", "/members", For::Owners),
    ("GET", "/grant", For::Owners),
    ("POST", "/grant", For::Owners),
    ("GET", "/members/{id}", For::Owners),
    ("POST", "/members/{id}/end", For::Owners),
    ("POST", "/members/{id}/extend", For::Owners),
    ("POST", "/members/{id}/credentials", For::Owners),
    ("POST", "/members/{id}/kubeconfigs/{jti}/revoke", For::Owners),
    ("GET", "/me", For::Engineers),
    ("POST", "/me/kubeconfig", For::Engineers),
    ("POST", "/me/kubeconfigs/{jti}/revoke", For::Engineers),
    ("POST", "/me/end", For::Engineers),
    ("GET", "/tokens", For::Owners),
    ("POST", "/tokens", For::Owners),
    ("POST", "/tokens/{id}/rename", For::Owners),
    ("POST", "/tokens/{id}/rotate", For::Owners),
    ("POST", "/tokens/{id}/revoke", For::Owners),
];

fn routes() -> impl Iterator<Item = (&'static str, &'static str, For)> {
    ROUTES.into_iter()
}

/// A member, its role and a kubeconfig of it.
struct Case {
    cluster: &'static Cluster,
    daypass: &'static Daypass,
    role: Role,
    member: NewMember,
    jti: String,
}

impl Case {
    fn new() -> Self {
        let (cluster, daypass) = Cluster::shared();
        let role = cluster.reader();
        let member = NewMember::new(&daypass.owner, &role, 1);
        let jti = member.kubeconfig(cluster).jti().to_owned();
        Self { cluster, daypass, role, member, jti }
    }

    fn owner(&self) -> Browser {
        Browser::signed_in(self.cluster, self.daypass, "", self.daypass.owner.token())
    }

    fn engineer(&self) -> Browser {
        Browser::signed_in(self.cluster, self.daypass, &self.member.id, &self.member.password)
    }

    fn path(&self, route: &str) -> String {
        let path = format!("/console{route}");
        if route.starts_with("/tokens") {
            return path.replace("{id}", "x");
        }
        path.replace("{id}", &self.member.id).replace("{jti}", &self.jti)
    }

    /// Uses a route with fields that would do something.
    fn call(&self, browser: &Browser, method: &str, route: &str) -> Answer {
        let path = self.path(route);
        match method {
            "GET" => browser.get(&path),
            _ => browser.post(&path, &self.fields()),
        }
    }

    fn fields(&self) -> [(&'static str, &str); 6] {
        let (role, key) = (self.role.id.as_str(), self.member.name());
        [("roleId", role), ("duration", "2"), ("key", key), ("name", "x"), ("replaces", ""), ("password", "dpp_x")]
    }

    /// Panics if anything of the member has changed.
    #[track_caller]
    fn assert_untouched(&self) {
        let owner = &self.daypass.owner;
        assert_eq!(self.member.listed(owner), [&*self.jti]);
        assert_eq!(owner.get(&self.member.path("")).expect(200).json()["durationSeconds"], 3600);
        assert_eq!(self.cluster.names(&self.role.namespace, "members.daypass.dev").len(), 1);
        self.member.engineer.get(&self.member.path("/me")).expect(200);
    }
}

/// What every page has, whatever it says.
#[track_caller]
fn assert_guarded(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action 'self'"), "{policy}");
    for (header, value) in [
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    assert!(answer.headers.get("www-authenticate").is_none(), "there is no way to log out of Basic");
}

#[test]
fn table_covers_every_route_of_the_console() {
    let source = include_str!("../../../src/console/mod.rs");
    let mut found = BTreeSet::new();
    for line in source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
        let (path, handlers) = line.split_once('"').unwrap();
        for (method, name) in [("GET", "get("), ("POST", "post(")] {
            if handlers.contains(name) {
                found.insert((method, path));
            }
        }
    }
    // Redirects and what needs no visitor: the clock, the style and the script.
    for open in ["/", "/console/", "/time", "/assets/{name}"] {
        found.remove(&("GET", open));
    }
    assert_eq!(found, routes().map(|(method, path, _)| (method, path)).collect());
}

#[test]
fn page_is_for_its_kind_of_visitor_alone() {
    let case = Case::new();
    let (owner, engineer) = (case.owner(), case.engineer());
    let stranger = Browser::new(case.cluster, case.daypass);
    let pat = AccessToken::new(&case.cluster.generator(case.daypass), &SCOPES);
    let secret = pat.http.token();
    // What a cookie is no place for, and nothing at all.
    let strangers: Vec<Browser> = [secret, &case.member.password, case.daypass.owner.token(), "x", ""]
        .map(|cookie| stranger.with_session(cookie))
        .into_iter()
        .chain([stranger.clone()])
        .collect();
    for (method, route, audience) in routes().filter(|(_, _, audience)| *audience != For::Everybody) {
        for stranger in &strangers {
            let answer = case.call(stranger, method, route);
            assert_guarded(&answer);
            if method == "GET" {
                assert_eq!(answer.status, 303, "{route}");
                assert!(answer.header("location").starts_with("/console/sign-in?next="), "{route}");
            } else {
                assert_eq!(answer.status, 401, "{route}: {}", answer.text);
                assert!(answer.text.contains("name=\"password\""), "the form to sign in with");
                assert!(!answer.text.contains("dpp_x"), "a secret is not carried on");
            }
        }
        let (other, start) = match audience {
            For::Owners => (&engineer, "/console/me"),
            _ => (&owner, "/console/members"),
        };
        let answer = case.call(other, method, route);
        assert_guarded(&answer);
        if method == "GET" {
            assert_eq!((answer.status, answer.header("location")), (303, start), "{route}");
        } else {
            assert_eq!(answer.status, 403, "{route}: {}", answer.text);
        }
    }
    // What nobody has issued: another secret of the same form.
    for (browser, page) in [(&owner, "/console/members"), (&engineer, "/console/me")] {
        let session = browser.session.as_deref().unwrap();
        let id = session.split('_').nth(1).unwrap();
        let forged = forged(id);
        let answer = browser.with_session(&forged).get(page);
        assert!(answer.header("location").starts_with("/console/sign-in?next="), "{answer:?}");
    }
    case.assert_untouched();
}

#[test]
fn form_of_another_page_is_refused_before_the_cookie_is_read() {
    let case = Case::new();
    let (owner, engineer) = (case.owner(), case.engineer());
    let own = case.daypass.url.as_str();
    let other_port = "https://127.0.0.1:1";
    let origins = [
        (Some("https://evil.example"), None),
        (Some("https://evil.example"), Some("cross-site")),
        (Some(other_port), Some("same-site")),
        (Some(own), Some("cross-site")),
        (Some(own), Some("same-site")),
        (Some(own), Some("none")),
        (Some("null"), Some("same-origin")),
        (None, Some("cross-site")),
        (None, Some("none")),
        (None, None),
    ];
    for (_, route, audience) in routes().filter(|(method, _, _)| *method == "POST") {
        let browser = if audience == For::Engineers { &engineer } else { &owner };
        for (origin, site) in origins {
            let mut request = browser.request("POST", &case.path(route)).form(&case.fields());
            request = origin.into_iter().fold(request, |request, origin| request.header(ORIGIN, origin));
            request = site.into_iter().fold(request, |request, site| request.header("Sec-Fetch-Site", site));
            let answer = Answer::of(request);
            assert_eq!(answer.status, 403, "{route} {origin:?} {site:?}: {}", answer.text);
            assert_guarded(&answer);
        }
    }
    case.assert_untouched();
    owner.get("/console/members").expect(200);
    engineer.get("/console/me").expect(200);
}

#[test]
fn visitor_without_rights_changes_nothing_and_is_told_why() {
    let case = Case::new();
    let nobody = case.cluster.caller(case.daypass, &[], &[], None);
    let browser = Browser::signed_in(case.cluster, case.daypass, "", nobody.token());
    for (method, route, _) in routes().filter(|(_, _, audience)| *audience == For::Owners) {
        let answer = case.call(&browser, method, route);
        assert_guarded(&answer);
        match (method, route) {
            ("GET", "/grant") => assert!(answer.expect(200).text.contains("no role that you may give")),
            ("GET", "/tokens") => assert!(answer.expect(200).text.contains("You lack the right to generate")),
            // Whoever may not list members still gets to what they may.
            ("GET", "/members") => {
                let page = answer.expect(403);
                assert!(page.text.contains("href=\"/console/tokens\"") && page.text.contains("/console/sign-out"));
            }
            ("POST", path) if path.starts_with("/tokens/{id}/re") => {
                assert!([303, 400, 401, 403, 404].contains(&answer.status), "{route}: {}", answer.status);
            }
            _ => assert!([400, 401, 403].contains(&answer.status), "{method} {route}: {}", answer.text),
        }
    }
    case.assert_untouched();
}

#[test]
fn member_of_another_role_is_as_unknown_as_one_that_does_not_exist() {
    let case = Case::new();
    let own = case.cluster.reader();
    let resources = ["members", "members/credentials", "members/kubeconfigs"];
    let verbs = ["create", "list", "get", "update", "delete"];
    let caller = case.cluster.caller(case.daypass, &verbs, &resources, Some(&own));
    let browser = Browser::signed_in(case.cluster, case.daypass, "", caller.token());
    let text = |answer: &Answer| answer.text.split("<main").nth(1).unwrap().split("<code>").next().unwrap().to_owned();
    let found = browser.get(&case.path("/members/{id}"));
    assert_eq!(found.status, 404);
    let missing = browser.get(&format!("/console/members/{}.nobody", own.id));
    assert_eq!((missing.status, text(&missing)), (404, text(&found)));
    case.assert_untouched();
}

/// Every page costs at most the calls to the API server of its REST twins together.
#[test]
fn page_costs_no_more_calls_than_its_twins() {
    let case = Case::new();
    let (owner, engineer) = (case.owner(), case.engineer());
    // What Daypass remembers for some seconds, the page may pay for and its twins not, or the other way round: the
    // state of the walls, and the issuer of the tokens.
    let is_remembered = |call: &Call| {
        let kinds = ["validatingadmissionpolic", "dry run", "selfsubjectreviews", "openid-configuration"];
        kinds.iter().any(|kind| call.label().contains(kind))
    };
    let calls = |answer: Answer| {
        assert!([200, 201].contains(&answer.status), "{}", answer.text);
        case.cluster.calls_of(&answer).iter().filter(|call| !is_remembered(call)).count()
    };
    let (rest, member) = (owner.rest(case.daypass), &case.member);
    let me = engineer.rest(case.daypass);
    let own_role = format!("/self?roleId={}", case.role.id);
    let (own, kubeconfigs) = (member.path(""), member.path("/kubeconfigs"));
    let own_page = member.path("/me");
    let twins: [(&str, &Browser, &Http, &[&str]); 5] = [
        ("/members", &owner, &rest, &["/members", "/self"]),
        ("/grant", &owner, &rest, &["/members/roles", "/self"]),
        ("/members/{id}", &owner, &rest, &[&own, &kubeconfigs, &own_role]),
        ("/tokens", &owner, &rest, &["/tokens", "/self"]),
        ("/me", &engineer, &me, &[&own_page, &kubeconfigs]),
    ];
    for (route, browser, client, twins) in twins {
        // The page first: other tests create roles meanwhile, and some pages ask about each.
        let page = calls(browser.get(&case.path(route)));
        let together: usize = twins.iter().map(|twin| calls(client.get(twin))).sum();
        assert!(page <= together, "{route}: {page} calls, its twins {together}");
    }
}

#[test]
fn form_that_is_sent_twice_does_its_deed_once() {
    let case = Case::new();
    let owner = case.owner();
    // Grant.
    let form = owner.get("/console/grant").expect(200);
    let fields = [("roleId", &*case.role.id), ("duration", "1"), ("key", &form.field("key")), ("username", "<b>x")];
    let first = owner.post("/console/grant", &fields).expect(201);
    assert!(first.text.contains("dpm_") && !first.text.contains("<b>x"));
    let again = owner.post("/console/grant", &fields).expect(303);
    assert!(again.header("location").ends_with("?notice=granted-before"), "{again:?}");
    assert_eq!(case.cluster.names(&case.role.namespace, "members.daypass.dev").len(), 2);
    // A new credential.
    let page = owner.get(&case.path("/members/{id}")).expect(200);
    let replaces = page.field("replaces");
    let renew = || owner.post(&case.path("/members/{id}/credentials"), &[("replaces", &*replaces)]);
    let issued = renew().expect(201);
    let again = renew().expect(409);
    assert!(!again.text.contains("dpm_") && again.text.contains("new credential"), "{}", again.text);
    let secret = issued.text.split("<code id=\"secret\">").nth(1).unwrap().split('<').next().unwrap().to_owned();
    case.member.engineer.with_basic(&case.member.id, &secret).get(&case.member.path("/me")).expect(200);
    // The end.
    owner.post(&case.path("/members/{id}/end"), &[]).expect(303);
    let again = owner.post(&case.path("/members/{id}/end"), &[]).expect(303);
    assert_eq!(again.header("location"), "/console/members?notice=gone");
    // Replicas tell which members have ended.
    eventually("the end is listed", || {
        owner
            .get(&format!("/console/members?roleId={}", case.role.id))
            .text
            .contains("Ended in the last")
            .then_some(())
    });
}

#[test]
fn token_form_that_is_sent_twice_makes_one_token() {
    let (cluster, daypass) = Cluster::shared();
    let caller = cluster.generator(daypass);
    let owner = Browser::signed_in(cluster, daypass, "", caller.token());
    let form = owner.get("/console/tokens").expect(200);
    let key = form.field("key");
    let fields = |password: &'static str| {
        [("name", "CI"), ("expiresInDays", "7"), ("scopes", "members:read"), ("key", &*key), ("password", password)]
    };
    // A session alone creates none, and neither does somebody else's token.
    assert!([400, 401].contains(&owner.post("/console/tokens", &fields("")).status));
    let mut of_another = fields("").to_vec();
    of_another[4].1 = daypass.owner.token();
    owner.post("/console/tokens", &of_another).expect(401);
    let mut own = fields("").to_vec();
    own[4].1 = caller.token();
    let made = owner.post("/console/tokens", &own).expect(201);
    assert!(made.text.contains("dpp_"));
    let again = owner.post("/console/tokens", &own).expect(409);
    assert!(!again.text.contains("dpp_"), "{}", again.text);
    assert_eq!(caller.token_ids("").len(), 1);
    // From then on the form is another one.
    let key = again.field("key");
    (own[0].1, own[3].1) = ("other", &*key);
    owner.post("/console/tokens", &own).expect(201);
    let ids = caller.token_ids("");
    assert_eq!(ids.len(), 2);
    caller.delete(&format!("/tokens/{}", ids[1])).expect(204);
    // Rotation: the second time it says that it was done.
    let page = owner.get("/console/tokens").expect(200);
    let (id, replaces) = (&caller.token_ids("")[0], page.field("replaces"));
    let rotate = || {
        owner.post(&format!("/console/tokens/{id}/rotate"), &[("replaces", &replaces), ("password", caller.token())])
    };
    rotate().expect(201);
    assert!(!rotate().expect(409).text.contains("dpp_"));
    owner.post(&format!("/console/tokens/{id}/rename"), &[("name", "<i>new")]).expect(303);
    assert!(owner.get("/console/tokens").expect(200).text.contains("&#60;i&#62;new"));
    owner.post(&format!("/console/tokens/{id}/revoke"), &[]).expect(303);
    assert!(caller.token_ids("").is_empty());
}

#[test]
fn session_ends_with_what_it_was_issued_for() {
    let case = Case::new();
    let engineer = case.engineer();
    engineer.get("/console/me").expect(200);
    case.daypass.owner.post(&case.member.path("/credentials"), &json!({})).expect(201);
    let answer = engineer.get("/console/me").expect(303);
    assert!(answer.header("location").contains("notice=session-ended"), "{answer:?}");
    let owner = case.owner();
    let signed_out = owner.post("/console/sign-out", &[]).expect(303);
    assert!(signed_out.header("set-cookie").starts_with("__Host-daypass=; Max-Age=0;"), "{signed_out:?}");
    // Logging out revokes: the cookie of before is worth nothing.
    assert_eq!(owner.get("/console/members").status, 303);
    owner.rest(case.daypass).assert_refused();
}

#[test]
fn signing_out_everywhere_ends_the_sessions_of_other_browsers() {
    let case = Case::new();
    let (here, there) = (case.engineer(), case.engineer());
    let owner = case.owner();
    there.get("/console/me").expect(200);
    here.post("/console/sign-out/everywhere", &[]).expect(303);
    for browser in [&here, &there] {
        browser.get("/console/me").expect(303);
        browser.rest(case.daypass).get(&case.member.path("/me")).expect(401);
    }
    owner.get("/console/members").expect(200);
    case.member.engineer.get(&case.member.path("/me")).expect(200);
}

#[test]
fn wrong_password_signs_nobody_in() {
    let case = Case::new();
    let mut browser = Browser::new(case.cluster, case.daypass);
    for (username, password) in [
        (&*case.member.id, "dpm_view.x_wrong"),
        (&*case.member.id, ""),
        ("somebody.else", &*case.member.password),
        ("", "dpp_x"),
        ("", "opaque"),
    ] {
        let answer = browser.sign_in(username, password);
        assert!([400, 401].contains(&answer.status), "{username}: {}", answer.text);
        assert!(browser.session.is_none() && answer.text.contains("role=\"alert\""));
        assert!(password.is_empty() || !answer.text.contains(password), "what was typed is not shown");
        assert_guarded(&answer);
    }
    // A session opens no session: fixation would need that.
    let session = case.owner().session.unwrap();
    assert_eq!(browser.sign_in("", &session).status, 403);
    assert!(browser.session.is_none());
}

#[test]
fn only_pages_of_the_console_follow_a_sign_in() {
    let case = Case::new();
    for (next, expected) in [
        ("/console/grant?duration=3", "/console/grant?duration=3"),
        ("https://evil.example/console/members", "/console/members"),
        ("//evil.example", "/console/members"),
        ("/console/me", "/console/members"),
    ] {
        let browser = Browser::new(case.cluster, case.daypass);
        let fields = [("password", case.daypass.owner.token()), ("next", next)];
        let answer = browser.post("/console/sign-in", &fields).expect(303);
        assert_eq!(answer.header("location"), expected);
        let cookie = answer.header("set-cookie");
        assert!(cookie.starts_with("__Host-daypass=dpp_"), "the name keeps other hosts from setting it");
        for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(cookie.split("; ").any(|part| part == attribute), "{attribute} in {cookie}");
        }
    }
}

#[test]
fn link_to_a_kubeconfig_leads_people_to_the_console_and_programs_to_the_challenge() {
    let case = Case::new();
    let browser = Browser::new(case.cluster, case.daypass);
    let path = format!("/dp-1{}", case.member.path("/kubeconfig"));
    let click =
        browser.request("GET", &path).header("Sec-Fetch-Mode", "navigate").header("Sec-Fetch-Dest", "document");
    let answer = Answer::of(click).expect(303);
    assert_eq!(answer.header("location"), format!("{}/console/sign-in?username={}", case.daypass.url, case.member.id));
    let program = browser.get(&path).expect(401);
    assert!(program.header("www-authenticate").starts_with("Basic "));
}

#[test]
fn console_can_be_switched_off() {
    let (cluster, _) = Cluster::shared();
    let daypass = Daypass::with_args(cluster, &["--console=false"]);
    let browser = Browser::new(cluster, &daypass);
    for path in ["/", "/console/", "/console/sign-in", "/console/time"] {
        browser.get(path).expect(404);
    }
    // Then a browser asks for user name and password itself.
    let link = browser.request("GET", "/dp-1/members/view.a/kubeconfig").header("Sec-Fetch-Mode", "navigate");
    let answer = Answer::of(link.header("Sec-Fetch-Dest", "document")).expect(401);
    assert!(answer.header("www-authenticate").starts_with("Basic "));
}
