//! Sign-in sessions: how long one lasts, how many a token has, and what ends one early.
//!
//! A session is an [`AccessToken`](super::access_token::AccessToken) with a [`SessionOrigin`].

use chrono::TimeDelta;

/// How long a session lasts, unless its token ends earlier.
pub const SESSION_LIFETIME: TimeDelta = TimeDelta::minutes(30);
/// The most live sessions of a token.
pub const MAX_SESSIONS: usize = 16;

/// The token that a session was issued for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOrigin {
    /// The name of the token's object.
    pub token: String,
    /// Its UID.
    pub token_uid: String,
    /// The fingerprint of its secret, so that rotating the token ends the session.
    pub secret: String,
}
