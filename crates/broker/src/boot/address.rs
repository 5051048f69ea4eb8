//! The address other hosts reach this one at, by `tbon.interface-hint` (flux-broker-attributes(7)).

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;

/// Which address to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// That of the default route; without one, the hostname's.
    DefaultRoute,
    /// That of the hostname.
    Hostname,
    /// That of the first interface with an IPv4 address in a network.
    Network { base: u32, prefix: u32 },
    /// That of an interface.
    Interface(String),
}

/// There is no such address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// For an interface or network of that name.
    #[error("tbon.interface-hint: no address is associated with '{0}'")]
    NoInterface(String),
    /// The system's resolver has nothing.
    #[error("tbon.interface-hint: the hostname {0} has no address")]
    NoHost(String),
}

impl FromStr for Hint {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "default-route" => Self::DefaultRoute,
            "hostname" => Self::Hostname,
            _ => network(text).unwrap_or_else(|| Self::Interface(text.to_owned())),
        })
    }
}

/// `10.0.2.0/24`
fn network(text: &str) -> Option<Hint> {
    let (base, prefix) = text.split_once('/')?;
    let base: Ipv4Addr = base.parse().ok()?;
    let prefix: u32 = prefix.parse().ok().filter(|p| *p <= 32)?;
    let base = u32::from(base);
    Some(Hint::Network { base, prefix })
}

/// Interfaces and their addresses, in the system's order.
type Interfaces = Vec<(String, IpAddr)>;

fn interfaces() -> Interfaces {
    // Without them only the hostname is left.
    let all = getifaddrs().into_iter().flatten();
    let usable = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        Some((interface.interface_name, v4.or(v6)?))
    });
    usable.filter(|(_, ip)| !is_link_local(ip)).collect()
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The interface of the default route in a table like that of /proc/net/route.
fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then_some(name)
    })
}

/// The first address, of the family that is preferred if there is one.
fn choose(addresses: impl Iterator<Item = IpAddr> + Clone, prefer_v6: bool) -> Option<IpAddr> {
    let preferred = addresses.clone().find(|ip| ip.is_ipv6() == prefer_v6);
    preferred.or_else(|| addresses.clone().next())
}

impl Hint {
    fn among(&self, interfaces: &Interfaces, routes: &str, prefer_v6: bool) -> Option<IpAddr> {
        let named = |name: &str| {
            let of = interfaces.iter().filter(|(n, _)| n == name);
            choose(of.map(|(_, ip)| *ip), prefer_v6)
        };
        match self {
            Self::Hostname => None,
            Self::DefaultRoute => named(default_interface(routes)?),
            Self::Interface(name) => named(name),
            Self::Network { base, prefix } => {
                let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
                let addresses = interfaces.iter().map(|(_, ip)| *ip);
                addresses.into_iter().find(|ip| match ip {
                    IpAddr::V4(ip) => (u32::from(*ip) ^ base) & mask == 0,
                    IpAddr::V6(_) => false,
                })
            }
        }
    }

    /// The address, of this system. IPv4 is preferred unless FLUX_IPADDR_V6 is set.
    pub(crate) fn resolve(&self, text: &str, hostname: &str) -> Result<IpAddr, AddressError> {
        let prefer_v6 = std::env::var_os("FLUX_IPADDR_V6").is_some();
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        if let Some(ip) = self.among(&interfaces(), &routes, prefer_v6) {
            return Ok(ip);
        }
        if matches!(self, Self::Interface(_) | Self::Network { .. }) {
            return Err(AddressError::NoInterface(text.to_owned()));
        }
        let found = (hostname, 0).to_socket_addrs().map(Vec::from_iter);
        let found = found.unwrap_or_default().into_iter().map(|a| a.ip());
        choose(found.filter(|ip| !is_link_local(ip)), prefer_v6)
            .ok_or_else(|| AddressError::NoHost(hostname.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\n\
        eth1\t0002000A\t00000000\neth0\t00000000\t0102A8C0\n";

    fn found(hint: &str, prefer_v6: bool) -> Option<String> {
        let interfaces = [
            ("lo", "127.0.0.1"),
            ("eth0", "192.168.2.7"),
            ("eth1", "10.0.2.15"),
            ("eth1", "2001:db8::15"),
        ];
        let interfaces = interfaces.map(|(n, ip)| (n.to_owned(), ip.parse().unwrap()));
        let hint: Hint = hint.parse().unwrap();
        let ip = hint.among(&interfaces.to_vec(), ROUTES, prefer_v6);
        ip.map(|ip| ip.to_string())
    }

    #[test]
    fn hints() {
        for (hint, v4, v6) in [
            ("default-route", Some("192.168.2.7"), Some("192.168.2.7")),
            ("eth1", Some("10.0.2.15"), Some("2001:db8::15")),
            ("10.0.0.0/8", Some("10.0.2.15"), Some("10.0.2.15")),
            ("0.0.0.0/0", Some("127.0.0.1"), Some("127.0.0.1")),
            ("10.0.3.0/24", None, None),
            ("eth9", None, None),
            ("10.0.2.0/33", None, None),
            ("hostname", None, None),
        ] {
            assert_eq!(found(hint, false).as_deref(), v4, "{hint}");
            assert_eq!(found(hint, true).as_deref(), v6, "{hint}");
        }
    }

    #[test]
    fn this_system() {
        let hint = |text: &str| text.parse::<Hint>().unwrap().resolve(text, "localhost");
        assert!(hint("hostname").unwrap().is_loopback());
        assert!(hint("lo").unwrap().is_loopback());
        assert_eq!(
            hint("nosuch0").unwrap_err().to_string(),
            "tbon.interface-hint: no address is associated with 'nosuch0'"
        );
    }
}
