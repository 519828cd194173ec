//! Packets of one kind to and from all devices of a network namespace, by a packet socket
//! (packet(7)): for the control side, which asks neighbours for their link addresses.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::hops::Mac;

/// Packets for this host are of kind 0, broadcast of kind 1 (linux/if_packet.h).
const PACKET_MULTICAST: u8 = 2;

/// Sends and receives packets without their link headers. Never blocks.
#[derive(Debug)]
pub struct LinkSocket {
    socket: OwnedFd,
    kind: u16,
}

impl LinkSocket {
    /// For packets of this EtherType, of which only those are received that have these
    /// bytes at these places. Needs CAP_NET_RAW, and only to be opened.
    pub fn open(kind: u16, having: &[(u32, u8)]) -> io::Result<Self> {
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call reads no memory.
        let answer = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(kind.to_be())) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(answer) };
        let link = Self { socket, kind };
        link.filter(having)?;
        Ok(link)
    }

    /// Has the kernel let go of all packets but those with these bytes (linux/filter.h).
    fn filter(&self, having: &[(u32, u8)]) -> io::Result<()> {
        let step = |code: u32, jf: usize, k: u32| libc::sock_filter {
            code: code as u16,
            jt: 0,
            jf: jf as u8,
            k,
        };
        let mut program = Vec::new();
        for (place, &(at, byte)) in having.iter().enumerate() {
            // To the last step, over two for each byte that follows and the last but one.
            let miss = 2 * (having.len() - place - 1) + 1;
            program.push(step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, at));
            program.push(step(
                libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
                miss,
                u32::from(byte),
            ));
        }
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0));
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the option is read during the call, and so are the steps it points to.
        let answer = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                size_of_val(&filter) as libc::socklen_t,
            )
        };
        match answer {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends a packet by a device.
    pub fn send(&self, device: u32, to: Mac, packet: &[u8]) -> io::Result<()> {
        let mut address = empty();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.kind.to_be();
        address.sll_ifindex = device as i32;
        address.sll_halen = to.len() as u8;
        address.sll_addr[..to.len()].copy_from_slice(&to);
        // SAFETY: packet and address live for the call, and their lengths are right.
        let answer = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        match answer {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next packet that came for this host or for all: its device and its length, which
    /// is cut to the buffer's; none when there are no more.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<(u32, usize)> {
        loop {
            let mut address = empty();
            let mut length = size_of_val(&address) as libc::socklen_t;
            // SAFETY: buffer and address live for the call, and their lengths are right.
            let answer = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut address).cast(),
                    &raw mut length,
                )
            };
            let received = usize::try_from(answer).ok()?;
            // Packet sockets also show what this host sends, and what is for others.
            if address.sll_pkttype <= PACKET_MULTICAST {
                return Some((address.sll_ifindex as u32, received));
            }
        }
    }
}

impl AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn empty() -> libc::sockaddr_ll {
    // SAFETY: an address of zeroes is a valid one: it holds only integers.
    unsafe { std::mem::zeroed() }
}
