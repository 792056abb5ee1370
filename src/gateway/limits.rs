//! How many requests and streams may be open, for each member and in all. Each replica counts its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::member_id::MemberId;

/// A member may hold one in so many of the places that the others leave. A few members then cannot take everybody's:
/// each that fills its part leaves three quarters of the rest, and the last ones go to members that hold nothing.
const SHARE: usize = 4;

/// A number of requests and one of streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    /// Requests whose answer ends by itself.
    pub requests: usize,
    /// Watches, followed logs, upgraded connections.
    pub streams: usize,
}

/// The most that may be open.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one member.
    pub member: Places,
    /// Of all members.
    pub total: Places,
}

/// Too much is open. A client may try again in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Of this member.
    #[error("this member has too many requests open; close some, and try again")]
    OfMember,
    /// Of all members: the places that are left are for others.
    #[error("too many requests are open; try again")]
    InAll,
}

/// What is open.
#[derive(Debug)]
pub struct Usage {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: Places,
    /// Without members that have nothing open.
    members: HashMap<MemberId, Places>,
}

/// A place of an open request or stream, until it is dropped.
#[derive(Debug)]
#[must_use = "it counts until it is dropped"]
pub struct Held {
    usage: Arc<Usage>,
    member: MemberId,
    is_stream: bool,
}

impl Places {
    fn of(&mut self, is_stream: bool) -> &mut usize {
        if is_stream { &mut self.streams } else { &mut self.requests }
    }
}

impl Usage {
    /// Nothing is open.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Counts one more.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn hold(self: &Arc<Self>, member: &MemberId, is_stream: bool) -> Result<Held, TooMany> {
        let Limits { member: mut of_member, total: mut in_all } = self.limits;
        let mut counts = self.counts();
        let mut open = counts.members.get(member).copied().unwrap_or_default();
        if *open.of(is_stream) >= *of_member.of(is_stream) {
            return Err(TooMany::OfMember);
        }
        let left = in_all.of(is_stream).saturating_sub(*counts.total.of(is_stream));
        let share = ((left + *open.of(is_stream)) / SHARE).max(1);
        if left == 0 || *open.of(is_stream) >= share {
            return Err(TooMany::InAll);
        }
        *counts.total.of(is_stream) += 1;
        *open.of(is_stream) += 1;
        counts.members.insert(member.clone(), open);
        Ok(Held { usage: Arc::clone(self), member: member.clone(), is_stream })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.usage.counts();
        *counts.total.of(self.is_stream) -= 1;
        if let Some(open) = counts.members.get_mut(&self.member) {
            *open.of(self.is_stream) -= 1;
            if *open == Places::default() {
                counts.members.remove(&self.member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { member: Places { requests: 2, streams: 3 }, total: Places { requests: 10, streams: 20 } };

    fn member(number: u8) -> MemberId {
        MemberId::parse(&format!("view.m{number}")).unwrap()
    }

    #[test]
    fn member_has_its_own_places_for_requests_and_streams() {
        let usage = Usage::new(LIMITS);
        let requests = [(); 2].map(|()| usage.hold(&member(1), false).unwrap());
        assert_eq!(usage.hold(&member(1), false).unwrap_err(), TooMany::OfMember);
        let streams = [(); 3].map(|()| usage.hold(&member(1), true).unwrap());
        assert_eq!(usage.hold(&member(1), true).unwrap_err(), TooMany::OfMember);
        let other = usage.hold(&member(2), false).unwrap();
        drop(requests);
        assert!(usage.hold(&member(1), false).is_ok());
        drop((streams, other));
        assert_eq!(usage.counts().total, Places::default());
        assert!(usage.counts().members.is_empty());
    }

    /// The defaults of the options.
    #[test]
    fn few_members_cannot_take_everybodys_places() {
        let usage = Usage::new(Limits {
            member: Places { requests: 50, streams: 200 },
            total: Places { requests: 200, streams: 1000 },
        });
        for (is_stream, most, members) in [(false, 50, 19), (true, 200, 25)] {
            let mut held = Vec::new();
            for number in 1..members {
                let before = held.len();
                while let Ok(place) = usage.hold(&member(number), is_stream) {
                    held.push(place);
                }
                assert!((1..=most).contains(&(held.len() - before)), "{number} has {}", held.len() - before);
                // Whoever has nothing still gets a place.
                drop(usage.hold(&member(0), is_stream).unwrap());
            }
            assert!(usage.hold(&member(1), is_stream).is_err());
            let last = usage.hold(&member(members), is_stream).unwrap();
            assert_eq!(usage.hold(&member(0), is_stream).unwrap_err(), TooMany::InAll);
            drop(last);
        }
    }

    #[test]
    fn refusal_leaves_nothing_behind() {
        let usage = Usage::new(Limits { member: LIMITS.member, total: Places::default() });
        assert_eq!(usage.hold(&member(1), true).unwrap_err(), TooMany::InAll);
        assert!(usage.counts().members.is_empty());
        let usage = Usage::new(Limits { member: Places::default(), total: LIMITS.total });
        assert_eq!(usage.hold(&member(1), true).unwrap_err(), TooMany::OfMember);
        assert!(usage.counts().members.is_empty());
    }

    proptest! {
        #[test]
        fn counts_agree_with_what_is_held(
            steps in proptest::collection::vec((0..3u8, any::<bool>(), any::<bool>()), 0..80),
        ) {
            let (usage, mut held) = (Usage::new(LIMITS), Vec::new());
            for (number, is_stream, opens) in steps {
                if opens {
                    held.extend(usage.hold(&member(number), is_stream));
                } else if !held.is_empty() {
                    drop(held.swap_remove(usize::from(number) % held.len()));
                }
                let counts = usage.counts();
                prop_assert_eq!(counts.total.requests + counts.total.streams, held.len());
                prop_assert!(counts.total.requests <= 10 && counts.total.streams <= 20);
                for (member, open) in &counts.members {
                    let held = held.iter().filter(|held| held.member == *member).count();
                    prop_assert!(open.requests <= 2 && open.streams <= 3 && held > 0);
                    prop_assert_eq!(open.requests + open.streams, held);
                }
            }
        }
    }
}
