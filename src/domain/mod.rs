//! The rules of Daypass, pure: no Kubernetes client, no HTTP, no reading of clocks or random sources.

pub mod access_token;
pub mod id;
pub mod lifetime;
pub mod member;
pub mod network;
pub mod owner;
pub mod rights;
pub mod role;
pub mod scope;
pub mod secret;
pub mod token;
mod token_id;
pub mod walls;
