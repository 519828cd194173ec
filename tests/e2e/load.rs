//! Clients that keep their connections: each asks again and again and knows which server it belongs to.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// An HTTP/1.1 connection that stays open.
pub struct Client {
    stream: TcpStream,
    /// The server that answered first; every later answer must be its own.
    server: Option<String>,
    /// Requests answered.
    pub answered: u64,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    pub fn connect(to: &str) -> io::Result<Client> {
        let address: SocketAddr = to.parse().expect("tests write addresses");
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            server: None,
            answered: 0,
        })
    }

    pub fn ask(&mut self) -> io::Result<()> {
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nHost: lvx\r\n\r\n")
    }

    /// Reads one answer; an error where another server gives it than before.
    pub fn answer(&mut self) -> io::Result<&str> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 1024];
        // The body is the server's name and a line end, and the last that comes.
        while !bytes.ends_with(b"\n") || !has_body(&bytes) {
            match self.stream.read(&mut buffer)? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the connection was closed",
                    ));
                }
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
        let answer = String::from_utf8_lossy(&bytes);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("no success: {head}")));
        }
        let body = body.trim();
        let server = self.server.get_or_insert_with(|| body.to_owned());
        if server != body {
            return Err(io::Error::other(format!(
                "{body} answers on a connection to {server}"
            )));
        }
        self.answered += 1;
        Ok(server)
    }

    pub fn server(&self) -> &str {
        self.server.as_deref().unwrap_or("none yet")
    }
}

fn has_body(bytes: &[u8]) -> bool {
    bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .is_some_and(|at| bytes.len() > at + 4)
}

/// Opens `count` connections, all at once open.
pub fn connect_all(to: &str, count: usize) -> Vec<Client> {
    (0..count)
        .map(|n| Client::connect(to).unwrap_or_else(|e| panic!("connection {n} to {to}: {e}")))
        .collect()
}

/// All ask, then all are answered: `count` requests in flight together.
pub fn round(clients: &mut [Client]) {
    for (n, client) in clients.iter_mut().enumerate() {
        client
            .ask()
            .unwrap_or_else(|e| panic!("connection {n} to {}: {e}", client.server()));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        if let Err(e) = client.answer() {
            panic!(
                "connection {n} to {}, after {} answers: {e}",
                client.server(),
                client.answered
            );
        }
    }
}

/// Rounds until told to stop; a last one after that. Gives the number of rounds.
pub fn rounds_until(clients: &mut [Client], stop: &AtomicBool) -> u64 {
    let mut rounds = 0;
    loop {
        let last = stop.load(Ordering::Relaxed);
        round(clients);
        rounds += 1;
        if last {
            return rounds;
        }
    }
}
