//! Where connections may go: networks, and which addresses are public.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Addresses that have their first bits in common, as `10.0.0.0/8` (CIDR, RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether an address is in it. An IPv4 address inside an IPv6 one is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        let ((own, own_v4), (other, other_v4)) = (bits(self.address), bits(address.to_canonical()));
        own_v4 == other_v4 && (own ^ other).leading_zeros() >= u32::from(self.prefix)
    }

    /// Whether all addresses of another are in it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(drop)?.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().map_err(drop)?,
            Some(_) => return Err(()),
            None => longest,
        };
        if prefix <= longest { Ok(Self { address, prefix }) } else { Err(()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Where connections may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Whether to public addresses.
    pub public: bool,
    /// To addresses in these, public or not.
    pub networks: Vec<Network>,
}

impl Reach {
    /// Whether a connection may go there.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.public && is_public(address) || self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether a cell that has this one may do all that `asked` allows.
    pub fn covers(&self, asked: &Self) -> bool {
        let has = |network: &Network| self.networks.iter().any(|own| own.covers(network));
        (self.public || !asked.public) && asked.networks.iter().all(has)
    }

    /// The union of grants of one kind; `None` if there is none.
    pub(super) fn of(granted: impl Iterator<Item = Option<Network>>) -> Option<Self> {
        let mut reach = None;
        for network in granted {
            let reach: &mut Self = reach.get_or_insert_default();
            match network {
                Some(network) => reach.networks.push(network),
                None => reach.public = true,
            }
        }
        reach
    }
}

/// Where the addresses of IPv6 hosts are (RFC 4291, section 2.4, and IANA's registry of its address space): all others are
/// of this machine, private, of the link, for many, or not given out.
const GLOBAL_UNICAST: (&str, u8) = ("2000::", 3);

/// Networks whose addresses are no public hosts (IANA's special-purpose registries, RFC 6890 and its successors): this
/// machine, private ones, those of the link, and those that stand for many, for examples, or for an IPv4 address that is
/// to be looked at as one. Of IPv6, those inside of [`GLOBAL_UNICAST`].
const NOT_PUBLIC: [(&str, u8); 19] = [
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.0.2.0", 24),
    ("192.88.99.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
    ("2001::", 23),
    ("2001:db8::", 32),
    ("2002::", 16),
    ("3fff::", 20),
];

/// Whether an address is that of a public host.
fn is_public(address: IpAddr) -> bool {
    let is_in = |(network, prefix): (&str, u8)| {
        network.parse::<IpAddr>().is_ok_and(|network| Network { address: network, prefix }.contains(address))
    };
    let may_be = address.to_canonical().is_ipv4() || is_in(GLOBAL_UNICAST);
    may_be && !NOT_PUBLIC.into_iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_addresses() {
        let check = |network: &str, address: &str, expected: bool| {
            let contains = network.parse::<Network>().unwrap().contains(address.parse().unwrap());
            assert_eq!(contains, expected, "{address} in {network}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("10.0.0.0/8", "a00::1", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("192.168.1.128/25", "192.168.1.127", false);
        check("192.168.1.128/25", "192.168.1.128", true);
        check("fd00::/8", "fdff::1", true);
        check("::/0", "::1", true);
    }

    #[test]
    fn without_networks_only_public_addresses_are_reached() {
        let public = Reach { public: true, networks: Vec::new() };
        for address in
            ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1", "::ffff:1.1.1.1"]
        {
            assert!(public.allows(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
            "2001:db8::1",
            "3fff::1",
            "4000::1",
            "5f00::1",
            "64:ff9b:1::1",
            "100::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn every_network_that_is_not_public_is_an_address() {
        for (network, prefix) in NOT_PUBLIC.into_iter().chain([GLOBAL_UNICAST]) {
            assert!(format!("{network}/{prefix}").parse::<Network>().is_ok(), "{network}");
        }
    }
}
