//! Fuzzes the target of `daypass::fuzz` that the environment variable `FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    daypass::fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name} is not a target"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
