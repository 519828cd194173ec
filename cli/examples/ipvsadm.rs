//! ipvsadm alone, for trying it and for measuring its start without the lvx binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run_adm("ipvsadm", std::env::args_os().skip(1))
}
