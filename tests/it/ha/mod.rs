//! Several replicas: leadership, rolling upgrades, and Daypass's own token.

mod leader;
pub mod load;
mod replicas;
mod rolling;
mod token;
mod upgrade;
