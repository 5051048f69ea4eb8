//! C in the `tests` directory of the crate this is compiled in, as shared objects, some of them linked with a stand-in for
//! upstream's library (`library.c`). `module-exec` has this module, too.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the stand-in is found by.
const STAND_IN: &str = "libflux-core.so.2";

/// Compile a source into `dir`, with more options for the compiler.
pub(crate) fn shared_object(dir: &Path, source: &str, object: &str, more: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(source);
    let object = dir.join(object);
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&object, &source])
        .args(more)
        .status();
    assert!(built.expect("there is a C compiler").success());
    object
}

/// The same, linked with the stand-in, which is made beside it.
pub(crate) fn linked_object(dir: &Path, source: &str, object: &str, more: &[&str]) -> PathBuf {
    shared_object(dir, "library.c", STAND_IN, &[]);
    let place = format!("-L{}", dir.display());
    let path = format!("-Wl,-rpath,{}", dir.display());
    let name = format!("-l:{STAND_IN}");
    let link = [&place[..], &path, &name];
    shared_object(dir, source, object, &[&link, more].concat())
}
