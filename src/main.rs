//! The lvx binary.

fn main() -> std::process::ExitCode {
    lvx::main()
}
