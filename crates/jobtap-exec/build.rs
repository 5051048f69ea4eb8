//! Compiles the functions that plugins find in this program, and lets them be found.

fn main() {
    for file in ["offer.h", "offer.c", "plugin.c"] {
        println!("cargo::rerun-if-changed=src/{file}");
    }
    cc::Build::new()
        .file("src/offer.c")
        .file("src/plugin.c")
        .link_lib_modifier("+whole-archive")
        .compile("offer");
    println!("cargo::rustc-link-arg-bins=-rdynamic");
}
