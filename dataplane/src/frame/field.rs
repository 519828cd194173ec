//! Header fields by offset, in network byte order.
//!
//! Offsets come from a [`super::Packet`] of the same frame, so they lie inside; with an
//! offset from elsewhere these panic, as slices do.

use sched::service::Family;

use crate::address::Bits;

/// The `N` bytes at `at`.
#[inline(always)]
pub fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The 16-bit field at `at`.
#[inline(always)]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// The 32-bit field at `at`.
#[inline(always)]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// Writes the bytes of `value` at `at`.
#[inline(always)]
pub fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// Writes a 16-bit field at `at`.
#[inline(always)]
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, value.to_be_bytes());
}

/// The address at `at`.
#[inline(always)]
pub fn address_at(bytes: &[u8], family: Family, at: usize) -> Bits {
    match family {
        Family::V4 => Bits::from(u32_at(bytes, at)),
        Family::V6 => Bits::from_be_bytes(array(bytes, at)),
    }
}

/// Writes an address at `at`.
#[inline(always)]
pub fn put_address(bytes: &mut [u8], family: Family, at: usize, address: Bits) {
    match family {
        Family::V4 => put(bytes, at, (address as u32).to_be_bytes()),
        Family::V6 => put(bytes, at, address.to_be_bytes()),
    }
}
