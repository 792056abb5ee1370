//! The REST API: routes, validation, authentication, authorization, and protection against strangers.

mod authorization;
mod authorizers;
mod bodies;
mod browser;
mod calls;
mod console;
mod denials;
mod framing;
mod generated;
mod hang_ups;
mod openapi;
mod routes;
mod secrets;
mod silence;
mod strangers;
mod tls;
mod validation;
