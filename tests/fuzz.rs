//! Replays the inputs in `fuzz/corpus`, which `make fuzz` or people found. `make fuzz` searches for more.

use std::fs;
use std::path::Path;

use daypass::fuzz::TARGETS;

#[test]
fn fuzz_targets_accept_all_inputs_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|input| input.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name}");
        for input in inputs {
            println!("{}", input.display());
            target(&fs::read(&input).unwrap());
        }
    }
    // Without a target, a folder's inputs would never run.
    let folders = fs::read_dir(&corpus).unwrap().count();
    assert_eq!(folders, TARGETS.len());
}
