//! Two rtnetlink sockets: one that follows changes, one that asks. Apart, so that an
//! answer is never mixed up with a notice and a flood of notices never delays an answer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec};

use dataplane::hops::NeighbourKey;

/// `RTNLGRP_*` of linux/rtnetlink.h: links, neighbours, IPv4 addresses, routes and rules,
/// then the same of IPv6.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];
/// `NLM_F_DUMP_INTR` of linux/netlink.h: the listing changed while it was read.
const DUMP_INTERRUPTED: u16 = 0x10;
/// How often an interrupted listing is asked for again before it is taken as it is: the
/// notices that follow mend it.
const DUMP_TRIES: u32 = 5;
/// Linux fills at most 32 KiB of a listing at a time (net/netlink/af_netlink.c).
const BUFFER_BYTES: usize = 64 * 1024;
const RECEIVE_BUFFER_BYTES: u32 = 4 * 1024 * 1024;
/// Longer than any answer takes.
const ANSWER_MS: i64 = 10_000;

/// What a follower met.
pub enum Notice {
    /// A change.
    Change(RouteNetlinkMessage),
    /// Notices were lost: list everything anew.
    Lost,
}

/// Follows changes.
pub struct Follower {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Follower {
    /// Follows from now on.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Only fewer lost notices hang on it.
        let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER_BYTES);
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        })
    }

    /// Hands every waiting notice to `take`.
    pub fn drain(&mut self, mut take: impl FnMut(Notice)) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => each_message(&self.buffer, |message| {
                    if let NetlinkPayload::InnerMessage(change) = message.payload {
                        take(Notice::Change(change));
                    }
                }),
                Err(error) => match error.raw_os_error() {
                    Some(libc_errno::ENOBUFS) => take(Notice::Lost),
                    Some(libc_errno::EINTR) => {}
                    Some(libc_errno::EAGAIN) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks, and waits for the answer.
pub struct Asker {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Asker {
    /// A socket to ask with.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            sequence: 0,
        })
    }

    /// Lists all that `request` asks for.
    pub fn list(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 1..DUMP_TRIES {
            if let (answers, false) = self.ask(request.clone(), NLM_F_DUMP)? {
                return Ok(answers);
            }
        }
        Ok(self.ask(request, NLM_F_DUMP)?.0)
    }

    /// Carries out `request`.
    pub fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(request, NLM_F_ACK | flags).map(|_| ())
    }

    /// Has the host treat a neighbour as in use: it asks for one that it does not know
    /// and confirms one that it has not heard of for a while.
    pub fn use_neighbour(&mut self, key: NeighbourKey) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = match key.address {
            std::net::IpAddr::V4(_) => AddressFamily::Inet,
            std::net::IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = key.device;
        message.header.flags = NeighbourFlags::Use;
        message.header.kind = RouteType::Unspec;
        let address = NeighbourAddress::from(key.address);
        message
            .attributes
            .push(NeighbourAttribute::Destination(address));
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
    }

    /// The answers, and whether they were interrupted.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(request, flags)?;
        let sequence = self.sequence;
        let mut answers = Vec::new();
        let mut interrupted = false;
        let mut end = None;
        while end.is_none() {
            self.receive()?;
            each_message(&self.buffer, |message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
                match message.payload {
                    NetlinkPayload::Done(_) => end = Some(Ok(())),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        end = Some(Err(error.to_io()));
                    }
                    NetlinkPayload::Error(_) => end = Some(Ok(())),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                }
            });
        }
        end.unwrap_or(Ok(())).map(|()| (answers, interrupted))
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: ANSWER_MS / 1000,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "rtnetlink did not answer",
            )),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asker({})", self.socket.as_raw_fd())
    }
}

/// Error numbers of asm-generic/errno.h, the same on every Linux this runs on.
mod libc_errno {
    pub const EINTR: i32 = 4;
    pub const EAGAIN: i32 = 11;
    pub const ENOBUFS: i32 = 105;
}

/// Calls `take` for each message in a datagram. One that this program cannot read is
/// passed over: it is of a kind that is not asked for here.
fn each_message(mut datagram: &[u8], mut take: impl FnMut(NetlinkMessage<RouteNetlinkMessage>)) {
    while datagram.len() >= 16 {
        let length = u32::from_ne_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]);
        let length = length as usize;
        if length < 16 || length > datagram.len() {
            return;
        }
        match NetlinkMessage::deserialize(&datagram[..length]) {
            Ok(message) => take(message),
            Err(error) => tracing::debug!("an rtnetlink message was passed over: {error}"),
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
}
