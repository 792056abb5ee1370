//! Killed with SIGKILL at any call and started again, Daypass leaves nothing behind, loses nothing and brings nothing back.
//!
//! A proxy before the API server kills it: before the call is heard of, or after it was carried out and before the answer arrives.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use daypass_local::{Component, Shutdown};
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{
    Answer, Created, Daypass, Http, Kubeconfig, Lab, Launch, Pool, Proxy, Remains, Role, Taken, Trap, eventually,
};

/// More calls than any story makes; one that is not over by then never is.
const MOST_CALLS: usize = 60;

const TRAPS: [fn(u32) -> Trap; 2] = [Trap::KillBefore, Trap::KillAfter];

/// A control plane whose only garbage collector is Daypass, with the proxy before it.
struct Bench {
    lab: Lab,
    proxy: Proxy,
    role: Role,
}

/// One Daypass reaps at a time, so each test has a bench for itself.
fn bench() -> Taken<Bench> {
    static BENCHES: Pool<Bench> = Pool::new();
    BENCHES.take(|| {
        let lab = Lab::private();
        let role = lab.reader();
        lab.kubectl(&["delete", "resourcequota", "daypass", "-n", &role.namespace]);
        lab.plane.stop_component(Component::ControllerManager, Shutdown::Graceful).unwrap();
        let proxy = Proxy::start(&lab);
        Bench { lab, proxy, role }
    })
}

impl Bench {
    /// A Daypass behind the proxy. Always the same replica, so that it need not wait until its own Lease has run out.
    fn start(&self) -> Daypass {
        let args = vec!["--identity".to_owned(), "daypass-0".to_owned()];
        let daypass = Daypass::start(
            &self.lab,
            &Launch { kubeconfig: Some(self.proxy.kubeconfig.clone()), args, ..Launch::default() },
        );
        eventually("it leads", || (daypass.metric("daypass_leader") > 0.5).then_some(()));
        daypass
    }

    /// Kills Daypass where the trap has not, and starts it again; the call at which it died.
    fn restart(&self, daypass: &mut Daypass) -> Option<String> {
        daypass.kill();
        let trapped = self.proxy.disarm();
        assert!(!daypass.log().contains("panicked"), "{}", daypass.log());
        *daypass = self.start();
        trapped
    }

    fn list(&self, kinds: &str) -> Vec<Value> {
        let list = self.lab.kubectl(&["get", kinds, "-n", &self.role.namespace, "-o", "json"]);
        serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().clone()
    }

    /// A name that no Member has had.
    fn fresh_name(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("member-{:02}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// The names of all Members.
    fn members(&self) -> BTreeSet<String> {
        self.lab.names(&self.role.namespace, "members").into_iter().collect()
    }

    /// Waits until nothing stays of what is not a living member's: no service account without its Member, no Secret that is
    /// not of a living member's present credential. (A Secret whose token was never recorded is given two minutes; its token
    /// was answered to nobody.)
    fn wait_clean(&self, story: &str) {
        eventually(&format!("nothing is left over {story}"), || {
            let objects = self.list("members,serviceaccounts,secrets");
            let of = |kind: &'static str| objects.iter().filter(move |item| item["kind"] == kind);
            let living = |uid: &Value| {
                of("Member").find(|member| {
                    member["metadata"]["uid"] == *uid && member["metadata"]["deletionTimestamp"].is_null()
                })
            };
            let uid_of = |item: &Value| item["metadata"]["labels"]["daypass.dev/member-uid"].clone();
            let accounts_ok = of("ServiceAccount")
                .filter(|account| account["metadata"]["name"] != "default")
                .all(|account| living(&uid_of(account)).is_some());
            let secrets_ok = of("Secret").all(|secret| {
                let labels = &secret["metadata"]["labels"];
                let Some(member) = living(&uid_of(secret)) else { return false };
                let hash = member["status"]["credentialHash"].as_str().unwrap_or_default();
                labels["daypass.dev/jti"].is_null()
                    || labels["daypass.dev/credential"]
                        .as_str()
                        .is_some_and(|of| !of.is_empty() && hash.starts_with(of))
            });
            let none_ended = of("Member").all(|member| member["status"]["phase"] != "Terminating");
            (accounts_ok && secrets_ok && none_ended).then_some(())
        });
    }

    /// Waits until every Member that is there is provisioned with a service account of its own.
    fn wait_all_active(&self) {
        eventually("every Member has its service account", || {
            let objects = self.list("members,serviceaccounts");
            let has_account = |uid: &Value| {
                objects.iter().any(|item| {
                    item["kind"] == "ServiceAccount" && item["metadata"]["labels"]["daypass.dev/member-uid"] == *uid
                })
            };
            let members = objects.iter().filter(|item| item["kind"] == "Member");
            members
                .clone()
                .all(|member| member["status"]["phase"] == "Active" && has_account(&member["metadata"]["uid"]))
                .then_some(())
        });
    }
}

/// How a request that was sent went.
enum Sent<T> {
    /// It was not sent at all.
    Not,
    /// It got no answer; whether the change was made that decides it.
    Unanswered { decided: bool },
    /// It was answered well.
    Answered(T),
}

impl<T> Sent<T> {
    /// Whether it has changed something.
    fn decided(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Unanswered { decided: true })
    }

    fn answer(&self) -> Option<&T> {
        if let Self::Answered(answer) = self { Some(answer) } else { None }
    }
}

/// The owner's and the engineer's requests up to where Daypass died, and what they were answered.
struct Story {
    create: Sent<Value>,
    kubeconfig: Sent<Answer>,
    shorten: Sent<()>,
    second_kubeconfig: Sent<Answer>,
    renew: Sent<String>,
    delete: Sent<()>,
}

impl Story {
    fn tell(bench: &Bench, owner: &Http) -> Self {
        let mut story = Self {
            create: Sent::Not,
            kubeconfig: Sent::Not,
            shorten: Sent::Not,
            second_kubeconfig: Sent::Not,
            renew: Sent::Not,
            delete: Sent::Not,
        };
        // An error means that Daypass died; what comes after that in the story is never sent.
        let _ = story.go_on(bench, owner);
        story
    }

    fn go_on(&mut self, bench: &Bench, owner: &Http) -> Option<()> {
        let proxy = &bench.proxy;
        let body = json!({"duration": 2, "roleId": bench.role.id});
        let request = owner.request("POST", "/members").json(&body);
        self.create = send(proxy, request, "/members?", 201, |answer| answer.json());
        let member = self.create.answer()?;
        let name = member["id"].as_str()?.split_once('.')?.1;
        let (spec, status) = (format!("/members/{name}?"), format!("/members/{name}/status?"));
        let (path, engineer) = (path(member), engineer(owner, member, password(member)));
        let download =
            || send(proxy, engineer.request("GET", &format!("{path}/kubeconfig")), "/token?", 200, |answer| answer);
        self.kubeconfig = download();
        self.kubeconfig.answer()?;
        let shorter = json!({"duration": 1});
        self.shorten = send(proxy, owner.request("PATCH", &path).json(&shorter), &spec, 200, drop);
        self.shorten.answer()?;
        self.second_kubeconfig = download();
        self.second_kubeconfig.answer()?;
        let renewed = |answer: Answer| answer.json()["password"].as_str().unwrap().to_owned();
        self.renew = send(proxy, owner.request("POST", &format!("{path}/credentials")), &status, 201, renewed);
        self.renew.answer()?;
        self.delete = send(proxy, owner.request("DELETE", &path), &status, 204, drop);
        self.delete.answer().copied()
    }

    /// Compares what was answered with what holds now.
    fn check(&self, bench: &Bench, owner: &Http, before: &BTreeSet<String>) {
        let Some(member) = self.create.answer() else {
            let new = bench.members().difference(before).count();
            assert_eq!(new, usize::from(self.create.decided()), "a Member is made, or it is not");
            return;
        };
        let path = path(member);
        let now = owner.get(&path);
        assert_eq!(now.status, if self.delete.decided() { 404 } else { 200 }, "{}", now.text);
        if now.status == 200 {
            let hours = if self.shorten.decided() { 1 } else { 2 };
            assert_eq!(now.json()["durationSeconds"], hours * 3600);
        }
        let first = password(member);
        let works = |password: &str| engineer(owner, member, password).get(&format!("{path}/me")).status == 200;
        assert_eq!(works(first), !self.renew.decided() && !self.delete.decided(), "the first credential");
        if let Some(second) = self.renew.answer() {
            assert_eq!(works(second), !self.delete.decided(), "the second credential");
        }
        let is_over = self.renew.decided() || self.delete.decided();
        for (answer, is_over) in
            [(&self.kubeconfig, is_over || self.shorten.decided()), (&self.second_kubeconfig, is_over)]
        {
            let Some(answer) = answer.answer() else { continue };
            // It was not used before, so that the API server does not remember it.
            let kubeconfig = Kubeconfig::new(&bench.lab, answer);
            if is_over {
                kubeconfig.wait_refused(&bench.lab);
            } else {
                assert!(kubeconfig.is_accepted(&bench.lab), "a kubeconfig that was answered works");
            }
        }
    }
}

fn path(member: &Value) -> String {
    format!("/members/{}", member["id"].as_str().unwrap())
}

fn password(member: &Value) -> &str {
    member["credentials"]["password"].as_str().unwrap()
}

fn engineer(owner: &Http, member: &Value, password: &str) -> Http {
    owner.with_basic(member["id"].as_str().unwrap(), password)
}

/// Sends a request that decides something by one change, whose path ends like `decides`.
fn send<T>(
    proxy: &Proxy,
    request: RequestBuilder,
    decides: &str,
    status: u16,
    read: impl FnOnce(Answer) -> T,
) -> Sent<T> {
    let count = || proxy.made().iter().filter(|change| change.contains(decides)).count();
    let before = count();
    match Answer::try_of(request) {
        Ok(answer) => Sent::Answered(read(answer.expect(status))),
        Err(_) => Sent::Unanswered { decided: count() > before },
    }
}

#[test]
fn killed_at_any_call_of_a_request_it_keeps_every_promise_that_it_made() {
    let bench = bench();
    let mut daypass = bench.start();
    for kill in TRAPS {
        for nth in 1.. {
            assert!(nth < MOST_CALLS);
            let before = bench.members();
            bench.proxy.set(kill(daypass.pid()), nth);
            let story = Story::tell(&bench, &daypass.owner);
            let is_over = !bench.proxy.has_trapped();
            let trapped = bench.restart(&mut daypass);
            story.check(&bench, &daypass.owner, &before);
            bench.wait_clean(&format!("after {trapped:?}"));
            // Whatever is left of this story is a member in order, whose provisioning is none of the next one's calls.
            bench.members().difference(&before).for_each(|name| bench.proxy.ignore(name));
            if is_over {
                break;
            }
        }
    }
    bench.wait_all_active();
    assert!(!daypass.log().contains("panicked"));
}

#[test]
fn killed_while_it_provisions_a_member_it_goes_on_where_it_was() {
    let bench = bench();
    let mut daypass = bench.start();
    for kill in TRAPS {
        for nth in 1.. {
            assert!(nth < MOST_CALLS);
            let name = bench.fresh_name();
            let status = |daypass: &Daypass| {
                Answer::try_of(daypass.owner.request("GET", &format!("/members/{}.{name}", bench.role.id)))
                    .is_ok_and(|answer| answer.expect(200).json()["status"] == "ACTIVE")
            };
            bench.proxy.set(kill(daypass.pid()), nth);
            bench.lab.apply_member(&bench.role, &name, &json!({"duration": "1h"}));
            eventually("it is killed or done", || (bench.proxy.has_trapped() || status(&daypass)).then_some(()));
            let is_over = !bench.proxy.has_trapped();
            let before = daypass.kinds(&format!("{}.{name}", bench.role.id));
            bench.restart(&mut daypass);
            eventually("the member is active", || status(&daypass).then_some(()));
            let member = Created::with_credential(&daypass, &bench.role, &name);
            member.engineer.get(&member.path("/me")).expect(200);
            let kinds = [before, daypass.kinds(&member.id)].concat();
            assert!(kinds.iter().filter(|kind| *kind == "MEMBER_CREATED").count() <= 1, "{kinds:?}");
            bench.proxy.ignore(&name);
            if is_over {
                break;
            }
        }
    }
    bench.wait_clean("at the end");
    bench.wait_all_active();
}

#[test]
fn killed_while_it_ends_a_member_it_ends_it_when_it_is_back() {
    let bench = bench();
    let mut daypass = bench.start();
    for kill in TRAPS {
        for nth in 1.. {
            assert!(nth < MOST_CALLS);
            let name = bench.fresh_name();
            let member = Created::applied(&bench.lab, &daypass, &bench.role, &name, &json!({"duration": "1h"}));
            let kubeconfig = member.kubeconfig(&bench.lab);
            bench.proxy.set(kill(daypass.pid()), nth);
            bench.lab.patch(&bench.role.namespace, "member", &name, &json!({"spec": {"duration": "1s"}}));
            let is_gone = || bench.lab.remains(&bench.role, &name) == Remains::NOTHING;
            eventually("it is killed or done", || (bench.proxy.has_trapped() || is_gone()).then_some(()));
            let is_over = !bench.proxy.has_trapped();
            let before = daypass.kinds(&member.id);
            let trapped = bench.restart(&mut daypass);
            daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
            let engineer = daypass.owner.with_basic(&member.id, &member.password);
            engineer.get(&member.path("/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
            bench.lab.wait_gone(&bench.role, &name);
            bench.wait_clean(&format!("after {trapped:?}"));
            kubeconfig.wait_refused(&bench.lab);
            let kinds = [before, daypass.kinds(&member.id)].concat();
            assert!(kinds.iter().filter(|kind| *kind == "EXPIRED").count() <= 1, "{trapped:?}: {kinds:?}");
            if is_over {
                break;
            }
        }
    }
    assert!(!daypass.log().contains("panicked"));
}
