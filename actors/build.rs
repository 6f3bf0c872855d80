//! Migrations are embedded: a new file among them must rebuild the crate, which only a build script can say.

fn main() {
    println!("cargo:rerun-if-changed=src/store/migrations");
}
