//! Ranges of ports that parallel tests do not share.

use std::net::{Ipv4Addr, TcpListener};

/// Ports in one range.
const SPAN: u16 = 100;
/// Below the range from which Linux takes ports for outgoing connections.
const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;
const ATTEMPTS: u32 = 500;

/// A range that is ours as long as this value lives: its last port is held
/// open as a lock towards other processes.
#[derive(Debug)]
pub struct PortRange {
    base: u16,
    _lock: TcpListener,
}

impl PortRange {
    /// Finds a free range.
    #[must_use]
    pub fn reserve() -> Self {
        for _ in 0..ATTEMPTS {
            let base = FIRST + rand::random::<u16>() % ((LAST - FIRST) / SPAN) * SPAN;
            let Ok(lock) = TcpListener::bind((Ipv4Addr::LOCALHOST, base + SPAN - 1)) else { continue };
            let free = (base..base + SPAN - 1).all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok());
            if free {
                return Self { base, _lock: lock };
            }
        }
        panic!("no {SPAN} free ports in a row after {ATTEMPTS} attempts");
    }

    /// The first port.
    #[must_use]
    pub fn base(&self) -> u16 {
        self.base
    }
}
