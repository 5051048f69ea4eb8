//! Compiles the functions that plugins made for upstream find in the shell, and lets them be found.

fn main() {
    println!("cargo::rerun-if-changed=src/plugins/upstream");
    cc::Build::new()
        .files(["load.c", "offer.c"].map(|name| format!("src/plugins/upstream/{name}")))
        .link_lib_modifier("+whole-archive")
        .compile("upstream");
    // Only what plugins ask for: each further symbol keeps its code in the program and is looked at when it starts.
    for names in ["flux_*", "lua_*", "luaL_*"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={names}");
    }
    // Nothing to relocate: a shell starts with each job.
    println!("cargo::rustc-link-arg-bins=-no-pie");
}
