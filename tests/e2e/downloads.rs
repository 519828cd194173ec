//! Downloads whose every byte is checked: client and server know what each byte must be.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Sent at once, and how long until the next: 40 kB/s a download.
const PIECE_BYTES: usize = 1024;
const PACE: Duration = Duration::from_millis(25);

/// What a download's bytes are: the same on both sides, another for each place and connection.
fn byte(seed: u64, at: u64) -> u8 {
    let word = (at / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed.rotate_left(17));
    (word >> (at % 8 * 8)) as u8
}

pub fn block(seed: u64, from: u64, bytes: &mut [u8]) {
    for (place, byte_) in bytes.iter_mut().enumerate() {
        *byte_ = byte(seed, from + place as u64);
    }
}

/// Serves downloads on every address of a namespace until told to stop: reads a seed, then sends its bytes at a
/// steady pace until the client has had enough.
pub fn serve(port: u16, stop: &AtomicBool) {
    let listener = TcpListener::bind(("::", port)).expect("the port is free");
    listener.set_nonblocking(true).expect("own socket");
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => _ = scope.spawn(move || send(stream, stop)),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    });
}

fn send(mut stream: TcpStream, stop: &AtomicBool) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_write_timeout(Some(Duration::from_secs(20)));
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let mut seed = [0; 8];
    if stream.read_exact(&mut seed).is_err() {
        return;
    }
    let seed = u64::from_le_bytes(seed);
    let (mut at, mut bytes) = (0, [0; PIECE_BYTES]);
    while !stop.load(Ordering::Relaxed) {
        block(seed, at, &mut bytes);
        if stream.write_all(&bytes).is_err() {
            return;
        }
        at += bytes.len() as u64;
        thread::sleep(PACE);
    }
}

/// What all downloads together have seen.
#[derive(Default)]
pub struct Load {
    pub begun: AtomicU64,
    pub bytes: AtomicU64,
    /// The longest time in which a download got nothing, ms.
    pub pause_ms: AtomicU64,
}

/// Downloads until told to stop; the bytes that came, all of them right.
pub fn download(
    to: SocketAddr,
    seed: u64,
    stop: impl Fn() -> bool,
    load: &Load,
) -> Result<u64, String> {
    let failed =
        |what: &str, at: u64, error: std::io::Error| format!("{what} after {at} bytes: {error}");
    let patience = Duration::from_secs(15);
    let mut stream =
        TcpStream::connect_timeout(&to, patience).map_err(|e| failed("connect", 0, e))?;
    stream
        .set_read_timeout(Some(patience))
        .map_err(|e| failed("timeout", 0, e))?;
    stream
        .write_all(&seed.to_le_bytes())
        .map_err(|e| failed("ask", 0, e))?;
    let (mut at, mut bytes, mut expected) = (0, [0; 8192], [0; 8192]);
    loop {
        let last = stop();
        let begin = Instant::now();
        let length = stream.read(&mut bytes).map_err(|e| failed("read", at, e))?;
        let paused = begin.elapsed().as_millis() as u64;
        load.pause_ms.fetch_max(paused, Ordering::Relaxed);
        if length == 0 {
            return Err(format!("closed after {at} bytes"));
        }
        block(seed, at, &mut expected[..length]);
        if bytes[..length] != expected[..length] {
            return Err(format!("wrong bytes at {at}"));
        }
        if at == 0 {
            load.begun.fetch_add(1, Ordering::Relaxed);
        }
        at += length as u64;
        load.bytes.fetch_add(length as u64, Ordering::Relaxed);
        if last {
            let _ = stream.shutdown(Shutdown::Both);
            return Ok(at);
        }
    }
}
