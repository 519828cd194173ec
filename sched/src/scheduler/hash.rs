//! The hashes that IPVS schedulers share. Their constants are fixed, so that every
//! director, kernel or not, sends a client to the same server.

use std::net::IpAddr;

/// `GOLDEN_RATIO_32` (Linux's `include/linux/hash.h`).
const GOLDEN_RATIO: u32 = 0x61c8_8647;

/// An address as 32 bits in host order; the four words of an IPv6 address are XORed.
pub(super) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (0..4).fold(0, |folded, word| folded ^ (bits >> (32 * word)) as u32)
        }
    }
}

/// The slot of `value` in a table of 2^`bits` slots (`hash_32` of `include/linux/hash.h`).
pub(super) fn slot(value: u32, bits: u32) -> usize {
    (value.wrapping_mul(GOLDEN_RATIO) >> (32 - bits)) as usize
}

/// SipHash-1-3 of four bytes, cut to 32 bits: `hsiphash_1u32` of Linux's `lib/siphash.c`
/// on 64-bit machines. Both halves of the key are `key`.
pub(super) fn hsiphash(value: u32, key: u64) -> u32 {
    // The initial state spells "somepseudorandomlygeneratedbytes" (SipHash, section 2).
    let mut v = [
        0x736f_6d65_7073_6575 ^ key,
        0x646f_7261_6e64_6f6d ^ key,
        0x6c79_6765_6e65_7261 ^ key,
        0x7465_6462_7974_6573 ^ key,
    ];
    // The last word holds the message's length in its top byte.
    let word = 4 << 56 | u64::from(value);
    v[3] ^= word;
    sip_round(&mut v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut v);
    }
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

/// SipRound (SipHash, figure 2.1).
fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// 64 well-mixed bits of `value` (the finalizer of SplitMix64: Steele, Lea and Flood,
/// "Fast splittable pseudorandom number generators", 2014).
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_fold_by_words() {
        let rows = [
            ("an IPv4 address is its number", "10.9.0.1", 0x0a09_0001),
            (
                "an IPv6 address is XORed",
                "1:2:30:40:500:600:7000:8000",
                0x7531_8642,
            ),
        ];
        for (what, address, folded) in rows {
            assert_eq!(fold(address.parse().unwrap()), folded, "{what}");
        }
    }
}
