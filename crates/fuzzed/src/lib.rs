//! What is fuzzed: every parser of bytes from outside, and what must hold for what it accepts.
//!
//! [`TARGETS`] is the one list. `fuzz/` runs it under cargo-fuzz; a test of this crate runs the
//! corpora found there, so that what a fuzzer once found stays found.
//!
//! A target panics when something does not hold; refusing input is always fine.

mod graphs;
mod stored;
mod text;
mod trees;
mod wire_bytes;

/// A name and what to do with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    ("archive", trees::archive),
    ("batch_directives", text::batch_directives),
    ("config_r", trees::config_r),
    ("constraint", trees::constraint),
    ("count", text::count),
    ("dependency", text::dependency),
    ("eventlog", trees::eventlog),
    ("frame", wire_bytes::frame),
    ("fsd", text::fsd),
    ("glob", wire_bytes::glob),
    ("graph_grug", graphs::grug),
    ("graph_hwloc", graphs::hwloc),
    ("graph_jgf", graphs::jgf),
    ("graph_rv1", graphs::rv1),
    ("hostlist", text::hostlist),
    ("hwloc", text::hwloc),
    ("idset", text::idset),
    ("iodata", trees::iodata),
    ("jobid", text::jobid),
    ("jobspec", trees::jobspec),
    ("matching", graphs::matching),
    ("message", wire_bytes::message),
    ("query", text::query),
    ("queues", trees::queues),
    ("resource_set", trees::resource_set),
    ("scheduling", trees::scheduling),
    ("shape", text::shape),
    ("signed", text::signed),
    ("subscriptions", wire_bytes::subscriptions),
    ("taskmap", text::taskmap),
    ("transaction", stored::transaction),
    ("treeobj", stored::treeobj),
    ("uri", text::uri),
];

/// Runs the target of that name, which must be one of [`TARGETS`].
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(n, _)| *n == name);
    let (_, check) = target.expect("the name of a target");
    check(data);
}
