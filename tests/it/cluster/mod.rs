//! When the API server, etcd or Daypass is down, slow or overloaded.

pub mod clouds;
mod flow_control;
mod outage;
mod overload;
mod partial;
mod rest;
mod shutdown;
