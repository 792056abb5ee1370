//! Notices access tokens that somebody deletes with `kubectl`, for the audit trail. Daypass marks those that it ends
//! itself.

use std::collections::HashSet;

use super::Controller;
use crate::cluster::WatchEvent;
use crate::domain::access_token::AccessToken;
use crate::observability::audit::{Actor, Cause, Kind};

/// The UIDs of the tokens and sessions that stand, by the events so far.
#[derive(Debug, Default)]
pub(super) struct TokenWatch {
    standing: HashSet<String>,
}

impl TokenWatch {
    /// Reports a deletion that nobody has reported yet.
    pub(super) fn on_event(&mut self, controller: &Controller, event: WatchEvent<AccessToken>) {
        match event {
            // What went while there was no watch is not seen: it could have been ended by another replica.
            WatchEvent::Restarted => self.standing.clear(),
            WatchEvent::Present(token) => {
                if token.deleting || token.ended {
                    self.standing.remove(&token.uid);
                } else {
                    self.standing.insert(token.uid);
                }
            }
            WatchEvent::Deleted(token) => {
                self.standing.remove(&token.uid);
                if !token.ended && !self.went_with_its_token(&token) {
                    report(controller, &token);
                }
            }
        }
    }

    /// Kubernetes deletes the sessions of a token that is deleted. A session that was deleted by itself has a token
    /// that stands.
    fn went_with_its_token(&self, token: &AccessToken) -> bool {
        token.session.as_ref().is_some_and(|of| !self.standing.contains(&of.token_uid))
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
