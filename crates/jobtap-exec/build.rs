//! Compiles the functions that plugins find in this program, and lets them be found.

fn main() {
    println!("cargo::rerun-if-changed=src/offer.c");
    cc::Build::new()
        .file("src/offer.c")
        .link_lib_modifier("+whole-archive")
        .compile("offer");
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
