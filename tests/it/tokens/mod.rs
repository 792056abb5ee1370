//! Access tokens and their sessions.

mod attempts;
mod command;
mod deletion;
mod expiry;
mod identity;
mod limit;
mod owners;
mod privileges;
mod rotation;
mod schemes;
mod scopes;
mod secrets;
mod sessions;
mod sign_in;
mod users;
mod walls;
