//! The chart, single sign-on in it, the rights of the roles, `daypass lint` and `helm test`.

mod chart;
mod elsewhere;
mod lint;
mod rights;
mod selftest;
mod shipped_roles;
mod sso;
mod uninstall;
