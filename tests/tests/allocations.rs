//! An inference in steady state allocates its result and nothing else.

use graft_engine::{Engine, detect_isa};
use graft_kernels::Isa;
use graft_tests::{quantize_glyphs, read_bundle};

const N_RUNS: u64 = 20;

#[test]
fn an_inference_allocates_its_result_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("glyphs.graft");
    quantize_glyphs(&path, "unit");
    let bundle = read_bundle(&path).unwrap();
    for isa in [Isa::Scalar, detect_isa().unwrap()] {
        let mut engine = Engine::load_with(&bundle, isa, 1).unwrap();
        let input: Vec<i8> = (0..engine.input_len()).map(|i| (i % 97) as i8).collect();
        engine.embed(&input).unwrap();
        let seen = allocation_counter::measure(|| {
            for _ in 0..N_RUNS {
                engine.embed(&input).unwrap();
            }
        });
        assert_eq!(seen.count_total, N_RUNS, "{isa}: {seen:?}");
        assert_eq!(seen.bytes_total, N_RUNS * engine.embedding_len() as u64, "{isa}");
        assert_eq!(seen.count_current, 0, "{isa}");
    }
}
