//! Compiles the functions that plugins made for upstream find in the shell, and lets them be found.

fn main() {
    println!("cargo::rerun-if-changed=src/plugins/upstream");
    cc::Build::new()
        .files(["load.c", "offer.c"].map(|name| format!("src/plugins/upstream/{name}")))
        .link_lib_modifier("+whole-archive")
        .compile("upstream");
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
