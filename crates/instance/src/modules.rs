//! The table of built-in modules: name, services, ranks, entry point.

use broker::host::ModuleSpec;

/// All modules, in the order they are loaded.
pub(crate) fn table() -> Vec<ModuleSpec> {
    Vec::new()
}
