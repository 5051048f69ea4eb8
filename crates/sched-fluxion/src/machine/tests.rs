//! Graphs out of R.

use super::*;
use crate::options::Options;

#[test]
fn what_stands_for_a_graph_must_be_one() {
    let nonsense = [
        json!("nonsense"),
        json!(7),
        json!({}),
        json!({"graph": "x"}),
        json!({"graph": {"nodes": [1], "edges": []}}),
    ];
    for scheduling in nonsense {
        let r = json!({"version": 1, "scheduling": scheduling, "execution": {"nodelist": ["n0"],
            "R_lite": [{"rank": "0", "children": {"core": "0"}}], "starttime": 0, "expiration": 0}});
        let as_read = Machine::from_r(r.clone(), None, &Options::default());
        assert!(as_read.is_err(), "{scheduling}");
        let forced = Options {
            load_format: "rv1exec_force".into(),
            ..Options::default()
        };
        assert!(Machine::from_r(r, None, &forced).is_ok());
    }
}
