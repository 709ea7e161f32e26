//! Internet addresses and networks. IPv4-mapped IPv6 addresses, zones and
//! leading zeros are refused.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/{ip,cidr}.go`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An internet network; bits behind the prefix may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Reads an address.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )
    })?;
    if let IpAddr::V6(address) = address
        && address.to_ipv4_mapped().is_some()
    {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(address)
}

impl Cidr {
    /// Reads a network.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: &str| {
            format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}")
        };
        let (address, prefix) = text.split_once('/').ok_or_else(|| failed("no '/'"))?;
        if address.contains('%') {
            return Err(failed("IPv6 zones cannot be present in a prefix"));
        }
        let address: IpAddr = address.parse().map_err(|_| failed("unable to parse IP"))?;
        if let IpAddr::V6(v6) = address
            && v6.to_ipv4_mapped().is_some()
        {
            return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
        }
        let plain = !prefix.is_empty()
            && prefix.chars().all(|c| c.is_ascii_digit())
            && (prefix.len() == 1 || !prefix.starts_with('0'));
        let prefix: u8 =
            if plain { prefix.parse().ok() } else { None }.ok_or_else(|| failed("bad bits after slash"))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(failed("prefix length out of range"));
        }
        Ok(Self { address, prefix })
    }

    pub(crate) fn bits(self) -> u8 {
        self.prefix
    }

    pub(crate) fn ip(self) -> IpAddr {
        self.address
    }

    pub(crate) fn masked(self) -> Self {
        Self { address: mask(self.address, self.prefix), prefix: self.prefix }
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix) == mask(self.address, self.prefix)
    }

    pub(crate) fn contains_net(self, other: Self) -> bool {
        self.contains(mask(other.address, other.prefix)) && self.prefix <= other.prefix
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Properties of an address, by the name of the function that asks.
pub(crate) fn property(address: IpAddr, name: &str) -> Option<bool> {
    Some(match (name, address) {
        ("isUnspecified", address) => address.is_unspecified(),
        ("isLoopback", address) => address.is_loopback(),
        ("isLinkLocalMulticast", IpAddr::V4(v4)) => v4.octets()[..3] == [224, 0, 0],
        ("isLinkLocalMulticast", IpAddr::V6(v6)) => v6.segments()[0] & 0xff0f == 0xff02,
        ("isLinkLocalUnicast", IpAddr::V4(v4)) => v4.is_link_local(),
        ("isLinkLocalUnicast", IpAddr::V6(v6)) => v6.segments()[0] & 0xffc0 == 0xfe80,
        ("isGlobalUnicast", address) => {
            let local = match address {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
            };
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || local)
        }
        _ => return None,
    })
}
