//! Compiles the functions that plugins made for upstream find in the shell, and lets them be found.

fn main() {
    println!("cargo::rerun-if-changed=src/plugins/upstream.c");
    cc::Build::new()
        .file("src/plugins/upstream.c")
        .link_lib_modifier("+whole-archive")
        .compile("upstream");
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
