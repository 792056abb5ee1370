//! The admission policies (the walls): what they refuse, and what they let pass.

mod certificates;
mod cluster;
mod finalizers;
mod kubernetes;
mod members;
mod namespaces;
mod off;
mod older;
mod persistence;
mod roles;
