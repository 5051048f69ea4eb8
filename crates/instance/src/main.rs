//! The `flux-broker` program: the broker with its built-in modules linked in.
fn main() {}
