//! Audits access tokens that somebody deletes with `kubectl`. Daypass marks the tokens that it ends itself, so those
//! are not reported twice.

use std::collections::HashSet;

use super::Controller;
use crate::cluster::WatchEvent;
use crate::domain::access_token::AccessToken;
use crate::domain::session::SessionOrigin;
use crate::observability::audit::{Actor, Cause, Kind};

/// The UIDs of the live tokens and sessions, from the events so far.
#[derive(Debug, Default)]
pub(super) struct TokenWatch {
    live: HashSet<String>,
}

impl TokenWatch {
    /// Reports a deletion that has not been reported yet.
    pub(super) fn on_event(&mut self, controller: &Controller, event: WatchEvent<AccessToken>) {
        match event {
            // Deletions during a gap in the watch go unreported: another replica may have made and reported them.
            WatchEvent::Restarted => self.live.clear(),
            WatchEvent::Listed | WatchEvent::Interrupted => {}
            WatchEvent::Present(token) => {
                if token.deleting || token.ended {
                    self.live.remove(&token.uid);
                } else {
                    self.live.insert(token.uid);
                }
            }
            WatchEvent::Deleted(token) => {
                self.live.remove(&token.uid);
                if !token.ended && !self.was_deleted_with_its_token(&token) {
                    report(controller, &token);
                }
            }
        }
    }

    /// Whether Kubernetes garbage-collected this session after the deletion of its token. The token of a session that
    /// somebody deleted is still live.
    fn was_deleted_with_its_token(&self, token: &AccessToken) -> bool {
        match &token.session {
            Some(SessionOrigin::Token { token_uid, .. }) => !self.live.contains(token_uid),
            Some(SessionOrigin::Owner | SessionOrigin::Member { .. }) | None => false,
        }
    }
}

fn report(controller: &Controller, token: &AccessToken) {
    let tokens = &controller.tokens;
    let is_over = controller.clock.now() >= token.ends_at(&tokens.rules);
    let kind = match (&token.session, is_over) {
        (Some(_), _) => Kind::SessionEnded,
        (None, true) => Kind::TokenExpired,
        (None, false) => Kind::TokenRevoked,
    };
    let actor = if is_over { Actor::Daypass } else { Actor::Kubernetes };
    tokens.report(kind, token, Cause::internal(&actor));
}
