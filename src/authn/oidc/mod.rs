//! People by their own identity: ID tokens (OpenID Connect Core 1.0), which Daypass verifies by itself.
//!
//! [`Issuers`] are the configuration, [`IdToken`] is the form of a token, [`Keys`] check its signature, [`claims`]
//! decides who it names, and [`People`] brings them together. [`Attempt`] is a sign-in with a browser. Only `fetch`
//! and `redeem` ask an issuer anything.

pub mod claims;
mod config;
mod console_client;
mod endpoints;
mod fetch;
mod held_keys;
mod keys;
mod people;
mod redeem;
mod sign_in;
mod token;

pub use claims::{Person, Refused};
pub use config::{EmailVerified, InvalidConfig, Issuer, Issuers};
pub use console_client::ConsoleClient;
pub use keys::{Key, Keys, Unusable};
pub use people::People;
pub use sign_in::{Attempt, log_error};
pub use token::{IdToken, NamedIssuer};

pub(super) use people::{Decider, Trusted};
