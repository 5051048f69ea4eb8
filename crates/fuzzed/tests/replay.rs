//! Runs every target on its corpus: `fuzz/corpus/NAME`, one input a line in base64.

use std::path::Path;

fn inputs(name: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let text = std::fs::read_to_string(corpus.join(name)).expect("every target has a corpus");
    let decode = |line| formats::iodata::base64_decode(line).expect("a corpus is base64 lines");
    text.lines().map(decode).collect()
}

#[test]
fn corpora_hold() {
    for (name, check) in fuzzed::TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() > 5, "{name}: the corpus is too small");
        for input in inputs {
            if std::panic::catch_unwind(|| check(&input)).is_err() {
                panic!("{name}: {:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}
