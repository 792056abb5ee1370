//! Replays the fuzzer's corpus: what it, or a person, once found worth trying. `make fuzz` looks for more.

use std::fs;
use std::path::Path;

use daypass::fuzz::TARGETS;

#[test]
fn no_input_of_the_corpus_breaks_a_promise() {
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
    // A folder that no target reads would look as if it were replayed.
    let folders = fs::read_dir(&corpus).unwrap().count();
    assert_eq!(folders, TARGETS.len());
}
