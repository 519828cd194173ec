//! Compiles the XDP programs for the kernel with clang. The objects are built into the
//! library, so the binary needs neither clang nor headers where it runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PROGRAMS: [&str; 2] = ["steer", "everything"];
const INSTALL: &str = "apt-get install clang libbpf-dev linux-libc-dev";

fn main() {
    println!("cargo::rerun-if-env-changed=CLANG");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for program in PROGRAMS {
        let source = format!("bpf/{program}.bpf.c");
        println!("cargo::rerun-if-changed={source}");
        if let Err(problem) = compile(&source, &folder.join(format!("{program}.bpf.o"))) {
            println!("cargo::error={problem}");
        }
    }
}

fn compile(source: &str, object: &Path) -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let mut command = Command::new(&clang);
    command.args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror"]);
    // Debian keeps asm/types.h in the architecture's own folder.
    for folder in architecture_headers() {
        command.arg("-I").arg(folder);
    }
    command.args(["-c", source, "-o"]).arg(object);
    let output = command
        .output()
        .map_err(|error| format!("cannot run {clang} ({error}): {INSTALL}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    for line in text.lines() {
        println!("cargo::warning={line}");
    }
    let missing = text.contains("file not found");
    Err(match missing {
        true => format!("headers for {source} are missing: {INSTALL}"),
        false => format!("{clang} could not compile {source}"),
    })
}

fn architecture_headers() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/usr/include") else {
        return Vec::new();
    };
    let machine = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&machine) && name.ends_with("-linux-gnu")
        })
        .map(|entry| entry.path())
        .collect()
}
