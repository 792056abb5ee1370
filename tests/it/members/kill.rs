//! Killed at any call and restarted, Daypass leaves nothing behind, loses nothing and revives nothing.
//!
//! A proxy before the API server kills Daypass: before it forwards the call, or after the call and before the answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;
use daypass_local::{Component, Shutdown};
use reqwest::blocking::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{
    Answer, Cluster, Daypass, Fault, Http, Kubeconfig, Launch, Leftovers, NewMember, Pool, PoolGuard, Proxy, Role,
    eventually, time, wait_until,
};

/// More calls than any story makes.
const MOST_CALLS: usize = 60;

const KILLS: [fn(u32) -> Fault; 2] = [Fault::KillBefore, Fault::KillAfter];

/// A cluster without Kubernetes' garbage collector, with the proxy before its API server.
struct ProxiedCluster {
    cluster: Cluster,
    proxy: Proxy,
    role: Role,
}

/// Only one Daypass leads in a cluster, so each test has its own proxied.
fn proxied_cluster() -> PoolGuard<ProxiedCluster> {
    static POOL: Pool<ProxiedCluster> = Pool::new(2);
    POOL.take(|| {
        let cluster = Cluster::own();
        let role = cluster.reader();
        cluster.kubectl(&["delete", "resourcequota", "daypass", "-n", &role.namespace]);
        cluster.plane.stop_component(Component::ControllerManager, Shutdown::Graceful).unwrap();
        let proxy = Proxy::start(&cluster);
        ProxiedCluster { cluster, proxy, role }
    })
}

impl ProxiedCluster {
    /// A Daypass behind the proxy. Its identity is always the same: a killed leader takes its own Lease back at once.
    fn start(&self) -> Daypass {
        let args = vec!["--identity".to_owned(), "daypass-0".to_owned()];
        let daypass = Daypass::start(
            &self.cluster,
            &Launch { kubeconfig: Some(self.proxy.kubeconfig.clone()), args, ..Launch::default() },
        );
        eventually("Daypass leads", || (daypass.metric("daypass_leader") > 0.5).then_some(()));
        daypass
    }

    /// Kills Daypass unless the proxy has, and restarts it. Returns the call at which it died.
    fn restart(&self, daypass: &mut Daypass) -> Option<String> {
        daypass.kill();
        let happened_at = self.proxy.cancel();
        assert!(!daypass.log().contains("panicked"), "{}", daypass.log());
        *daypass = self.start();
        happened_at
    }

    /// All Members, service accounts and Secrets of the role, with their `kind`.
    fn objects(&self) -> Vec<Value> {
        let kinds = ["Member", "ServiceAccount", "Secret"].into_iter();
        kinds
            .flat_map(|kind| {
                self.cluster.list(&self.role.namespace, kind).into_iter().map(move |mut object| {
                    object["kind"] = json!(kind);
                    object
                })
            })
            .collect()
    }

    /// A name that no Member has had.
    fn fresh_name(&self) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        format!("member-{:02}", COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until a duration of one second is over, so that shortening a member to it ends the member.
    fn wait_a_second_after_creation(&self, name: &str) {
        let member = self.cluster.object(&self.role.namespace, "member", name).unwrap();
        wait_until(time(&member["metadata"]["creationTimestamp"]) + TimeDelta::seconds(1));
    }

    /// The names of all Members.
    fn members(&self) -> BTreeSet<String> {
        self.cluster.names(&self.role.namespace, "members").into_iter().collect()
    }

    /// Waits until no service account lacks its Member and every Secret belongs to a living member's current
    /// credential. (Daypass keeps a Secret without a record for two minutes.)
    fn wait_clean(&self, story: &str) {
        eventually(&format!("nothing is left over {story}"), || {
            let objects = self.objects();
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
                labels["daypass.dev/credential"].as_str().is_some_and(|of| !of.is_empty() && hash.starts_with(of))
            });
            let none_ended = of("Member").all(|member| member["status"]["phase"] != "Terminating");
            (accounts_ok && secrets_ok && none_ended).then_some(())
        });
    }

    /// Waits until every Member is active and has its service account.
    fn wait_all_active(&self) {
        eventually("every Member has its service account", || {
            let objects = self.objects();
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

/// The outcome of a request.
enum Sent<T> {
    /// Not sent.
    Not,
    /// Sent without an answer. `decided`: whether the API server made the change that decides it.
    Unanswered { decided: bool },
    /// Answered with success.
    Answered(T),
}

impl<T> Sent<T> {
    /// Whether it has changed anything.
    fn decided(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::Unanswered { decided: true })
    }

    fn answer(&self) -> Option<&T> {
        if let Self::Answered(answer) = self { Some(answer) } else { None }
    }
}

/// The owner's and the engineer's requests until Daypass died, with their outcomes.
struct Story {
    create: Sent<Value>,
    kubeconfig: Sent<Answer>,
    shorten: Sent<()>,
    second_kubeconfig: Sent<Answer>,
    revoke: Sent<()>,
    renew: Sent<String>,
    delete: Sent<()>,
}

impl Story {
    fn tell(proxied: &ProxiedCluster, owner: &Http) -> Self {
        let mut story = Self {
            create: Sent::Not,
            kubeconfig: Sent::Not,
            shorten: Sent::Not,
            second_kubeconfig: Sent::Not,
            revoke: Sent::Not,
            renew: Sent::Not,
            delete: Sent::Not,
        };
        // An error means that Daypass died. The rest of the story is not sent.
        let _ = story.go_on(proxied, owner);
        story
    }

    fn go_on(&mut self, proxied: &ProxiedCluster, owner: &Http) -> Option<()> {
        let proxy = &proxied.proxy;
        let body = json!({"duration": 2, "roleId": proxied.role.id});
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
        let second = Kubeconfig::new(&proxied.cluster, self.second_kubeconfig.answer()?);
        let one = format!("{path}/kubeconfigs/{}", second.jti());
        self.revoke = send(proxy, owner.request("DELETE", &one), &status, 204, drop);
        self.revoke.answer()?;
        let renewed = |answer: Answer| answer.json()["password"].as_str().unwrap().to_owned();
        self.renew = send(proxy, owner.request("POST", &format!("{path}/credentials")), &status, 201, renewed);
        self.renew.answer()?;
        self.delete = send(proxy, owner.request("DELETE", &path), &status, 204, drop);
        self.delete.answer().copied()
    }

    /// Compares the answers with the current state.
    fn check(&self, proxied: &ProxiedCluster, owner: &Http, before: &BTreeSet<String>) {
        let Some(member) = self.create.answer() else {
            let new = proxied.members().difference(before).count();
            assert_eq!(
                new,
                usize::from(self.create.decided()),
                "the Member exists exactly if its creation was decided"
            );
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
        if let (Sent::Unanswered { decided }, Some(second)) = (&self.revoke, self.second_kubeconfig.answer()) {
            let second = Kubeconfig::new(&proxied.cluster, second);
            let listed = owner.get(&format!("{path}/kubeconfigs")).expect(200).text;
            assert_eq!(listed.contains(second.jti()), !decided, "{listed}");
            // A Secret this young may still wait for its record, so the sweep deletes it only after two minutes.
            return;
        }
        for (answer, is_over) in [
            (&self.kubeconfig, is_over || self.shorten.decided()),
            (&self.second_kubeconfig, is_over || self.revoke.decided()),
        ] {
            let Some(answer) = answer.answer() else { continue };
            // It is used for the first time, so the API server has not cached it.
            let kubeconfig = Kubeconfig::new(&proxied.cluster, answer);
            if is_over {
                kubeconfig.wait_refused(&proxied.cluster);
            } else {
                assert!(kubeconfig.is_accepted(&proxied.cluster), "an answered kubeconfig works");
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

/// Sends a request. The change whose path contains `decides` decides whether it took effect.
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
fn kill_at_any_call_of_a_request_keeps_every_answer_true() {
    let proxied = proxied_cluster();
    let mut daypass = proxied.start();
    for kill in KILLS {
        for nth in 1.. {
            assert!(nth < MOST_CALLS);
            let before = proxied.members();
            proxied.proxy.plan(kill(daypass.pid()), nth);
            let story = Story::tell(&proxied, &daypass.owner);
            let is_over = !proxied.proxy.has_happened();
            let happened_at = proxied.restart(&mut daypass);
            story.check(&proxied, &daypass.owner, &before);
            proxied.wait_clean(&format!("after {happened_at:?}"));
            // The calls for a member left by this story must not count in the next one.
            proxied.members().difference(&before).for_each(|name| proxied.proxy.ignore(name));
            if is_over {
                break;
            }
        }
    }
    proxied.wait_all_active();
    assert!(!daypass.log().contains("panicked"));
}

#[test]
fn member_extended_while_it_is_ended_lives_on() {
    let proxied = proxied_cluster();
    let daypass = proxied.start();
    let (cluster, role, name) = (&proxied.cluster, &proxied.role, proxied.fresh_name());
    let member = NewMember::applied(cluster, &daypass, role, &name, &json!({"duration": "1h"}));
    let kubeconfig = member.kubeconfig(cluster);
    let change = |duration: &str| {
        cluster.patch(&role.namespace, "member", &name, &json!({"spec": {"duration": duration}}));
    };
    proxied.wait_a_second_after_creation(&name);
    // Not what else the sweep deletes.
    proxied.proxy.plan_of(Fault::Hold, 1, &format!("/members/{name}?"));
    change("1s");
    eventually("Daypass deletes the Member", || proxied.proxy.has_happened().then_some(()));
    change("2h");
    proxied.proxy.release();
    let held = proxied.proxy.cancel().unwrap();
    assert!(held.starts_with("DELETE") && held.contains("/members/"), "{held}");
    eventually("the new end is recorded", || {
        let status = cluster.object(&role.namespace, "member", &name).unwrap()["status"].clone();
        (status["observedGeneration"] == 3).then_some(())
    });
    assert_eq!(daypass.owner.get(&member.path("")).expect(200).json()["durationSeconds"], 7200);
    assert!(kubeconfig.is_accepted(cluster));
    assert_eq!(cluster.leftovers(role, &name), Leftovers { member: true, account: true, secrets: 1 });
    assert!(!daypass.event_kinds(&member.id).contains(&"EXPIRED".to_owned()));
}

#[test]
fn kill_during_provisioning_resumes_it() {
    let proxied = proxied_cluster();
    let mut daypass = proxied.start();
    for kill in KILLS {
        for nth in 1.. {
            assert!(nth < MOST_CALLS);
            let name = proxied.fresh_name();
            let status = |daypass: &Daypass| {
                Answer::try_of(daypass.owner.request("GET", &format!("/members/{}.{name}", proxied.role.id)))
                    .is_ok_and(|answer| answer.expect(200).json()["status"] == "ACTIVE")
            };
            proxied.proxy.plan(kill(daypass.pid()), nth);
            proxied.cluster.apply_member(&proxied.role, &name, &json!({"duration": "1h"}));
            eventually("Daypass is killed, or done", || {
                (proxied.proxy.has_happened() || status(&daypass)).then_some(())
            });
            let is_over = !proxied.proxy.has_happened();
            let before = daypass.event_kinds(&format!("{}.{name}", proxied.role.id));
            proxied.restart(&mut daypass);
            eventually("the member is active", || status(&daypass).then_some(()));
            let member = NewMember::with_credential(&daypass, &proxied.role, &name);
            member.engineer.get(&member.path("/me")).expect(200);
            let kinds = [before, daypass.event_kinds(&member.id)].concat();
            assert!(kinds.iter().filter(|kind| *kind == "MEMBER_CREATED").count() <= 1, "{kinds:?}");
            proxied.proxy.ignore(&name);
            if is_over {
                break;
            }
        }
    }
    proxied.wait_clean("at the end");
    proxied.wait_all_active();
}

#[test]
fn kill_while_ending_a_member_resumes_it() {
    let proxied = proxied_cluster();
    let mut daypass = proxied.start();
    for kill in KILLS {
        for nth in 1.. {
            assert!(nth < MOST_CALLS);
            let name = proxied.fresh_name();
            let member =
                NewMember::applied(&proxied.cluster, &daypass, &proxied.role, &name, &json!({"duration": "1h"}));
            let kubeconfig = member.kubeconfig(&proxied.cluster);
            proxied.wait_a_second_after_creation(&name);
            proxied.proxy.plan(kill(daypass.pid()), nth);
            proxied.cluster.patch(&proxied.role.namespace, "member", &name, &json!({"spec": {"duration": "1s"}}));
            let is_gone = || proxied.cluster.leftovers(&proxied.role, &name) == Leftovers::NOTHING;
            eventually("Daypass is killed, or done", || (proxied.proxy.has_happened() || is_gone()).then_some(()));
            let is_over = !proxied.proxy.has_happened();
            let before = daypass.event_kinds(&member.id);
            let happened_at = proxied.restart(&mut daypass);
            daypass.owner.get(&member.path("")).problem(404, "DP_ERR_NOT_FOUND");
            let engineer = daypass.owner.with_basic(&member.id, &member.password);
            engineer.get(&member.path("/kubeconfig")).problem(401, "DP_ERR_CREDENTIAL_REFUSED");
            proxied.cluster.wait_gone(&proxied.role, &name);
            proxied.wait_clean(&format!("after {happened_at:?}"));
            kubeconfig.wait_refused(&proxied.cluster);
            let kinds = [before, daypass.event_kinds(&member.id)].concat();
            assert!(kinds.iter().filter(|kind| *kind == "EXPIRED").count() <= 1, "{happened_at:?}: {kinds:?}");
            if is_over {
                break;
            }
        }
    }
    assert!(!daypass.log().contains("panicked"));
}
