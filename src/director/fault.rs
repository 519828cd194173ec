//! What a fault in any thread comes to: the end of the process, at once and in words.
//!
//! A director with a worker less would hold back what that worker's queues get, and what
//! the others do would rest on a state that nobody vouches for. Ended as if killed, it
//! leaves connections, services and the steering program to the process that its
//! supervisor starts, which goes on with them.

/// Has a panic in any thread end the process with SIGABRT, after a word on standard error.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let thread = std::thread::current();
        eprintln!(
            "lvx: ERROR: a fault in thread {}, see above: the director ends at once. Started \
             again, it goes on with its connections; please report the fault",
            thread.name().unwrap_or("without a name")
        );
        std::process::abort();
    }));
}

/// A place where a test has this process fail: `LVX_FAULT=NAME:exit` ends it there,
/// `LVX_FAULT=NAME:hang` stops it. Nothing in a release build.
pub fn point(name: &str) {
    if !cfg!(debug_assertions) {
        return;
    }
    let Ok(wish) = std::env::var("LVX_FAULT") else {
        return;
    };
    match wish
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix(':'))
    {
        Some("exit") => std::process::exit(70),
        Some("hang") => std::thread::sleep(std::time::Duration::from_secs(3600)),
        _ => {}
    }
}
