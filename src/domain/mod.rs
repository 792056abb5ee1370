//! The rules of Daypass: pure code without a Kubernetes client, HTTP, clock or random source.

pub mod access_token;
mod escapes;
#[cfg(test)]
pub(crate) mod examples;
pub mod gateway_token;
pub mod grants;
pub mod hex;
pub mod kubeconfig;
pub mod kubeconfig_secret;
pub mod lifetime;
pub mod member;
pub mod member_id;
pub mod network;
pub mod owner;
pub mod redact;
pub mod rights;
pub mod role;
mod rules;
pub mod scope;
pub mod secret;
pub mod session;
pub mod text;
pub mod time;
pub mod token;
mod token_id;
pub mod walls;
