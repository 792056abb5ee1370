//! All Members, by id.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use crate::cluster::{WatchEvent, Watched, WatchedMember};
use crate::crd::Unreadable;
use crate::domain::member::Member;
use crate::domain::member_id::MemberId;
use crate::domain::role::RoleId;

/// How long a deleted Member is remembered: longer than any call takes.
const GONE: Duration = Duration::from_secs(60);

/// The Members that a replica knows.
#[derive(Default)]
pub struct Members {
    state: Mutex<State>,
    is_complete: watch::Sender<bool>,
}

/// What happened to a Member.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is there, new or changed.
    Present(Arc<Member>),
    /// It cannot be read. Treat it as ended.
    Unreadable(MemberId),
    /// It was deleted; this is its last state, if that was readable.
    Deleted(MemberId, Option<Arc<Member>>),
    /// It was deleted while the watch was down.
    Vanished(MemberId),
}

#[derive(Default)]
struct State {
    known: BTreeMap<MemberId, Known>,
    /// The number of the current list, or of the last one.
    list: u64,
    /// The UIDs of Members deleted a moment ago: a read that began before must not bring one back.
    gone: HashMap<String, Instant>,
    followers: Vec<UnboundedSender<Change>>,
}

struct Known {
    /// The Member, or `None` if it cannot be read.
    member: Option<Arc<Member>>,
    /// The list that had it, or during which it was created.
    list: u64,
}

impl Members {
    /// Takes in an event of the watch.
    pub fn apply(&self, event: WatchEvent<Watched>) {
        let mut state = self.lock();
        match event {
            WatchEvent::Restarted => state.list += 1,
            WatchEvent::Interrupted
            | WatchEvent::Present(Watched::Beat(_))
            | WatchEvent::Deleted(Watched::Beat(_)) => {}
            WatchEvent::Present(Watched::Member(WatchedMember { id, member: Ok(member) })) => state.put(id, member),
            WatchEvent::Present(Watched::Member(WatchedMember { id, member: Err(why) })) => {
                state.put_unreadable(id, &why)
            }
            WatchEvent::Deleted(Watched::Member(WatchedMember { id, member })) => state.delete(id, member.ok()),
            WatchEvent::Listed => {
                state.drop_vanished();
                self.is_complete.send_replace(true);
            }
        }
    }

    /// Takes in what a read or a write of this replica has returned, so that its next list has it.
    pub fn observe(&self, member: &Member) {
        let mut state = self.lock();
        if !state.gone.contains_key(&member.uid) && !state.holds(member) {
            state.put(member.id.clone(), member.clone());
        }
    }

    /// Takes in what another list has found, if the watch has missed it. `before` is what was known before that list.
    /// Returns `false` if only a live read can tell: an unknown Member may have been deleted since, and an unreadable
    /// one has no version to compare.
    pub fn compare(&self, listed: WatchedMember, before: Option<&Arc<Member>>) -> bool {
        let mut state = self.lock();
        let Some(known) = state.known.get(&listed.id) else { return false };
        match (listed.member, &known.member) {
            (Ok(member), Some(_)) => state.put(listed.id, member),
            (Err(_), None) => {}
            (Err(why), Some(held)) if before.is_some_and(|before| Arc::ptr_eq(before, held)) => {
                state.put_unreadable(listed.id, &why);
            }
            (Ok(_), None) | (Err(_), Some(_)) => return false,
        }
        true
    }

    /// Whether a list was completed since the start.
    pub fn is_complete(&self) -> watch::Receiver<bool> {
        self.is_complete.subscribe()
    }

    /// Forgets this Member: a live read has not found it.
    pub fn forget(&self, member: &Member) {
        let mut state = self.lock();
        let is_it = |known: &Known| known.member.as_ref().is_some_and(|held| held.uid == member.uid);
        state.bury(&member.uid);
        if state.known.get(&member.id).is_some_and(is_it) {
            state.known.remove(&member.id);
        }
    }

    /// The Member of this id, if it is known and readable.
    pub fn get(&self, id: &MemberId) -> Option<Arc<Member>> {
        self.lock().known.get(id)?.member.clone()
    }

    /// Whether a live member of another role has the same name.
    pub fn has_namesake(&self, id: &MemberId, now: DateTime<Utc>) -> bool {
        let state = self.lock();
        let mut members = state.known.values().filter_map(|known| known.member.as_ref());
        members.any(|it| it.id.name() == id.name() && it.id.role != id.role && it.is_live(now))
    }

    /// The live members of these roles, in no order.
    pub fn live(&self, is_asked: impl Fn(&RoleId) -> bool, now: DateTime<Utc>) -> Vec<Arc<Member>> {
        let state = self.lock();
        let asked = state.known.values().filter_map(|known| known.member.as_ref());
        asked.filter(|member| is_asked(&member.id.role) && member.is_live(now)).cloned().collect()
    }

    /// The readable Members of a role.
    pub fn of_role(&self, role: &RoleId) -> Vec<Arc<Member>> {
        let state = self.lock();
        let readable = state.known.values().filter_map(|known| known.member.as_ref());
        readable.filter(|member| member.id.role == *role).cloned().collect()
    }

    /// All readable Members, and how many are unreadable.
    pub fn all(&self) -> (Vec<Arc<Member>>, usize) {
        let state = self.lock();
        let readable: Vec<_> = state.known.values().filter_map(|known| known.member.clone()).collect();
        let unreadable = state.known.len() - readable.len();
        (readable, unreadable)
    }

    /// All changes from now on; first, each Member that is known already.
    pub fn changes(&self) -> UnboundedReceiver<Change> {
        let (sender, receiver) = unbounded_channel();
        let mut state = self.lock();
        for (id, known) in &state.known {
            // Sending fails only without the receiver, which is here.
            let _ = sender.send(known.change(id));
        }
        state.followers.push(sender);
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic under the lock leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn change(&self, id: &MemberId) -> Change {
        self.member.clone().map_or_else(|| Change::Unreadable(id.clone()), Change::Present)
    }
}

impl State {
    /// Keeps the newer version: a list, or an event on its way, may be older than a write of this replica.
    fn put(&mut self, id: MemberId, member: Member) {
        if self.holds(&member) {
            return;
        }
        let member = Arc::new(member);
        self.known.insert(id, Known { member: Some(Arc::clone(&member)), list: self.list });
        self.tell(Change::Present(member));
    }

    /// Whether this version or a newer one is known already. Then the member is in the current list, too.
    fn holds(&mut self, member: &Member) -> bool {
        let list = self.list;
        let known = self.known.get_mut(&member.id);
        let known = known.filter(|known| known.member.as_ref().is_some_and(|held| !is_newer(member, held)));
        known.map(|known| known.list = list).is_some()
    }

    fn put_unreadable(&mut self, id: MemberId, why: &Unreadable) {
        tracing::warn!(member = %id, %why, "a Member cannot be read; treating it as ended");
        self.known.insert(id.clone(), Known { member: None, list: self.list });
        self.tell(Change::Unreadable(id));
    }

    fn delete(&mut self, id: MemberId, last: Option<Member>) {
        // This replica may have created a Member of the same name since.
        let is_later = |known: &Known| match (&known.member, &last) {
            (Some(held), Some(last)) => held.uid != last.uid && is_newer(held, last),
            _ => false,
        };
        let held = if self.known.get(&id).is_some_and(is_later) { None } else { self.known.remove(&id) };
        for gone in
            held.and_then(|held| held.member).iter().map(|held| &held.uid).chain(last.as_ref().map(|it| &it.uid))
        {
            self.bury(gone);
        }
        self.tell(Change::Deleted(id, last.map(Arc::new)));
    }

    /// Removes what the list that is now complete did not have.
    fn drop_vanished(&mut self) {
        let list = self.list;
        let vanished: Vec<_> = self.known.extract_if(.., |_, known| known.list < list).collect();
        for (id, known) in vanished {
            known.member.iter().for_each(|member| self.bury(&member.uid));
            self.tell(Change::Vanished(id));
        }
    }

    /// Notes that the Member of this UID is gone for good.
    fn bury(&mut self, uid: &str) {
        let now = Instant::now();
        self.gone.retain(|_, since| now.duration_since(*since) < GONE);
        self.gone.insert(uid.to_owned(), now);
    }

    fn tell(&mut self, change: Change) {
        self.followers.retain(|follower| follower.send(change.clone()).is_ok());
    }
}

/// Compares resource versions, as numbers (KEP-5504). Versions that are no numbers count as newer, as they come.
fn is_newer(member: &Member, than: &Member) -> bool {
    let number = |member: &Member| member.resource_version.parse::<u64>().ok();
    match (number(member), number(than)) {
        (Some(version), Some(held)) => version > held,
        _ => member.resource_version != than.resource_version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::examples::{HOUR, at, member as example};

    fn id(name: &str) -> MemberId {
        MemberId::parse(&format!("view.{name}")).unwrap()
    }

    fn member(name: &str, version: u64) -> Member {
        Member { id: id(name), resource_version: version.to_string(), ..example() }
    }

    fn present(name: &str, version: u64) -> WatchEvent<Watched> {
        WatchEvent::Present(Watched::Member(WatchedMember { id: id(name), member: Ok(member(name, version)) }))
    }

    fn unreadable(name: &str) -> WatchEvent<Watched> {
        WatchEvent::Present(Watched::Member(WatchedMember { id: id(name), member: Err(Unreadable::Id) }))
    }

    fn deleted(member: Member) -> WatchEvent<Watched> {
        WatchEvent::Deleted(Watched::Member(WatchedMember { id: member.id.clone(), member: Ok(member) }))
    }

    /// A feed that has listed these.
    fn feed(listed: &[(&str, u64)]) -> Members {
        let members = Members::default();
        list(&members, listed);
        members
    }

    fn list(members: &Members, listed: &[(&str, u64)]) {
        members.apply(WatchEvent::Restarted);
        listed.iter().for_each(|(name, version)| members.apply(present(name, *version)));
        members.apply(WatchEvent::Listed);
    }

    fn names(members: &Members) -> Vec<String> {
        members.all().0.iter().map(|member| format!("{}@{}", member.id.name(), member.resource_version)).collect()
    }

    fn told(changes: &mut UnboundedReceiver<Change>) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(change) = changes.try_recv() {
            told.push(match change {
                Change::Present(member) => format!("+{}", member.id.name()),
                Change::Unreadable(id) => format!("?{}", id.name()),
                Change::Deleted(id, last) => format!("-{}{}", id.name(), if last.is_some() { "" } else { "?" }),
                Change::Vanished(id) => format!("!{}", id.name()),
            });
        }
        told
    }

    #[test]
    fn nothing_is_complete_before_the_first_whole_list() {
        let members = Members::default();
        members.apply(WatchEvent::Restarted);
        members.apply(present("a", 1));
        assert!(!*members.is_complete().borrow());
        // The list failed, and another one follows.
        list(&members, &[("b", 2)]);
        assert!(*members.is_complete().borrow());
        assert_eq!(names(&members), ["b@2"]);
    }

    #[test]
    fn own_write_is_not_replaced_by_an_older_event_or_list() {
        let members = feed(&[("a", 5)]);
        members.observe(&member("a", 9));
        members.apply(present("a", 7));
        assert_eq!(names(&members), ["a@9"]);
        list(&members, &[("a", 8)]);
        assert_eq!(names(&members), ["a@9"]);
        members.apply(present("a", 10));
        assert_eq!(names(&members), ["a@10"]);
    }

    #[test]
    fn member_created_during_a_list_stays() {
        let members = feed(&[("a", 5)]);
        members.apply(WatchEvent::Restarted);
        members.observe(&member("b", 9));
        members.apply(present("a", 5));
        members.apply(WatchEvent::Listed);
        assert_eq!(names(&members), ["a@5", "b@9"]);
    }

    #[test]
    fn what_vanished_is_removed_and_told() {
        let members = feed(&[("a", 1), ("b", 2)]);
        let mut changes = members.changes();
        assert_eq!(told(&mut changes), ["+a", "+b"]);
        list(&members, &[("b", 2), ("c", 3)]);
        assert_eq!(told(&mut changes), ["+c", "!a"]);
        assert_eq!(names(&members), ["b@2", "c@3"]);
    }

    #[test]
    fn deletion_does_not_remove_a_later_member_of_the_name() {
        let members = feed(&[("a", 1)]);
        members.observe(&Member { uid: "later".into(), ..member("a", 9) });
        members.apply(deleted(member("a", 8)));
        assert_eq!(names(&members), ["a@9"]);
        members.apply(deleted(Member { uid: "later".into(), ..member("a", 10) }));
        assert_eq!(names(&members), [""; 0]);
    }

    #[test]
    fn read_that_began_before_a_deletion_does_not_bring_the_member_back() {
        let uid = |name: &str| Member { uid: name.into(), ..member(name, 1) };
        let members = feed(&[]);
        ["a", "b", "c"].into_iter().for_each(|name| members.observe(&uid(name)));
        members.apply(deleted(uid("a")));
        members.forget(&uid("b"));
        list(&members, &[]);
        members.observe(&uid("d"));
        list(&members, &[]);
        ["a", "b", "c", "d"].into_iter().for_each(|name| members.observe(&uid(name)));
        assert_eq!(names(&members), [""; 0]);
        members.observe(&Member { uid: "later".into(), ..member("a", 9) });
        assert_eq!(names(&members), ["a@9"]);
    }

    #[test]
    fn unreadable_member_is_ended_until_it_is_readable() {
        let members = feed(&[("a", 1), ("b", 2)]);
        let mut changes = members.changes();
        members.apply(unreadable("a"));
        assert_eq!((names(&members), members.all().1), (vec!["b@2".to_owned()], 1));
        assert!(members.get(&id("a")).is_none());
        members.apply(present("a", 4));
        assert_eq!(names(&members), ["a@4", "b@2"]);
        assert_eq!(told(&mut changes), ["+a", "+b", "?a", "+a"]);
        members
            .apply(WatchEvent::Deleted(Watched::Member(WatchedMember { id: id("a"), member: Err(Unreadable::Id) })));
        assert_eq!((names(&members), told(&mut changes)), (vec!["b@2".to_owned()], vec!["-a?".to_owned()]));
    }

    #[test]
    fn another_list_adds_what_the_watch_has_missed() {
        let members = feed(&[("a", 5), ("b", 6)]);
        let before = members.get(&id("a"));
        let compare = |name: &str, member: Result<Member, Unreadable>| {
            members.compare(WatchedMember { id: id(name), member }, before.as_ref())
        };
        assert!(compare("a", Ok(member("a", 4))) && compare("b", Ok(member("b", 8))));
        assert_eq!(names(&members), ["a@5", "b@8"]);
        // It may be gone: its deletion is never told again.
        assert!(!compare("c", Ok(member("c", 7))) && !compare("c", Err(Unreadable::Id)));
        assert!(!compare("b", Err(Unreadable::Id)), "it has changed since");
        assert_eq!(names(&members), ["a@5", "b@8"]);
        assert!(compare("a", Err(Unreadable::Id)) && compare("a", Err(Unreadable::Id)));
        assert_eq!((names(&members), members.all().1), (vec!["b@8".to_owned()], 1));
        assert!(!compare("a", Ok(member("a", 4))), "the unreadable one may be later");
    }

    #[test]
    fn only_live_members_of_the_roles_are_listed() {
        let members = feed(&[("a", 1)]);
        let live = |role: &str, now| members.live(|id| id.as_str() == role, at(now)).len();
        assert_eq!((live("view", 0), live("edit", 0), live("view", HOUR)), (1, 0, 0));
        let namesake = |id: &str, now| members.has_namesake(&MemberId::parse(id).unwrap(), at(now));
        assert!(
            namesake("edit.a", 0) && !namesake("edit.a", HOUR) && !namesake("view.a", 0) && !namesake("edit.b", 0)
        );
    }
}
