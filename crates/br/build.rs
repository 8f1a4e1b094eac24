//! Finds what only some machines have and tests want: large golden data, and servers.

#[path = "../../tests/golden/find.rs"]
mod golden;
#[path = "../../tests/servers/find.rs"]
mod servers;

fn main() {
    golden::main();
    servers::main();
}
