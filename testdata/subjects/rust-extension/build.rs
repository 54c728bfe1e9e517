// rustc links with -z relro -z now of its own accord; -z lazy behind it gives
// back what h7 takes away: symbols bound at their first call.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let now = std::env::var_os("CARGO_FEATURE_H7").is_some();
    println!("cargo::rustc-link-arg-bins=-Wl,-z,{}", if now { "now" } else { "lazy" });
}
