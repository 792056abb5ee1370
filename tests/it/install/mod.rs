//! The chart, the rights of the roles, `daypass lint` and `helm test`.

mod chart;
mod elsewhere;
mod lint;
mod rights;
mod selftest;
mod shipped_roles;
mod uninstall;
