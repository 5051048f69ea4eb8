//! Finding the other brokers: the configuration names them, or a launcher introduces them.
//!
//! With a table `[bootstrap]` all is in the configuration: rank, peers, endpoints and the one key
//! pair they share. Otherwise brokers exchange business cards through PMI-1 (RFC 13): every one
//! puts a card with its host, overlay endpoint and public key into the launcher's key-value space,
//! waits for the others and reads their cards. Alone, it is an instance of one.

pub(crate) mod address;
mod bootstrap;
mod tbon;

use std::collections::HashMap;

use overlay::topology::{Shape, TopologyError};
use overlay::{
    Bound, Certificate, CertificateError, KeyPair, LinkError, ParentAddress, PublicKey,
    SocketOptions, Topology,
};
use pmi::client::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use bootstrap::{Bootstrap, BootstrapError};
pub(crate) use tbon::Tbon;

/// Why a broker could not take its place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// The launcher's PMI server did not play along.
    #[error("PMI bootstrap: {0}")]
    Pmi(#[from] pmi::client::PmiError),
    /// A card is not one of ours.
    #[error("PMI bootstrap: business card of rank {rank}: {source}")]
    Card {
        /// Whose card.
        rank: u32,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// No card.
    #[error("PMI bootstrap: rank {0} left no business card")]
    NoCard(u32),
    /// The parent has no endpoint.
    #[error("PMI bootstrap: rank {0} announced no overlay endpoint")]
    NoEndpoint(u32),
    /// Overlay sockets.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The table `[bootstrap]`.
    #[error(transparent)]
    Config(#[from] BootstrapError),
    /// The certificate it names.
    #[error("Error loading certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The parents it names.
    #[error("Config file error [bootstrap]: {0}")]
    Parents(#[from] TopologyError),
    /// A broker with peers has no endpoint.
    #[error("Config file error [bootstrap]: host {0}: {1} is undefined, and it has children")]
    Undefined(String, &'static str),
    /// `broker.boot-method` is none of ours.
    #[error("broker.boot-method: unknown method {0:?}: use config, simple or single")]
    Method(String),
    /// There is no such table.
    #[error("broker.boot-method is config, but the configuration has no table [bootstrap]")]
    NoTable,
}

/// What a broker tells the others about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Card {
    #[serde(rename = "h")]
    pub(crate) hostname: String,
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    pub(crate) uri: Option<String>,
    #[serde(rename = "k")]
    pub(crate) key: PublicKey,
}

/// The launcher's side: a PMI-1 server, or nobody (an instance of one).
pub(crate) struct Launcher(Client);

impl Launcher {
    /// Connect to the PMI server the environment names; to none if the configuration says all.
    pub(crate) fn from_env(method: Option<&str>, config: &Value) -> Result<Self, BootError> {
        match method {
            Some("config" | "single") => Ok(Self(Client::singleton())),
            None if !config["bootstrap"].is_null() => Ok(Self(Client::singleton())),
            None if !may_use_pmi(std::env::var("FLUX_PMI_CLIENT_METHODS").ok()) => {
                Ok(Self(Client::singleton()))
            }
            _ => Ok(Self(Client::from_env()?)),
        }
    }

    /// A value the launcher offers, if it does.
    pub(crate) fn get(&mut self, key: &str) -> Option<String> {
        self.0.get(key).ok().flatten()
    }
}

/// Whether a list of methods, as FLUX_PMI_CLIENT_METHODS has it, has the one with a launcher.
fn may_use_pmi(methods: Option<String>) -> bool {
    methods.is_none_or(|methods| methods.split_whitespace().any(|method| method == "simple"))
}

/// How a broker finds its place.
pub(crate) enum Boot {
    /// Through a launcher.
    Pmi(Client),
    /// From the configuration.
    Config(Box<Bootstrap>),
}

/// Where a broker may listen.
pub(crate) struct Ground<'a> {
    pub(crate) rundir: &'a str,
    /// All brokers share this host.
    pub(crate) single_host: bool,
    /// The address other hosts reach this one at.
    pub(crate) address: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) sockets: SocketOptions,
}

/// A broker's place among the others.
pub(crate) struct Place {
    pub(crate) bound: Bound,
    /// Where children find this broker.
    pub(crate) endpoint: Option<String>,
    pub(crate) parent: Option<ParentAddress>,
    /// Keys that may connect, and whose they are.
    pub(crate) keys: HashMap<PublicKey, Option<u32>>,
    /// Hosts by rank.
    pub(crate) hostnames: Vec<String>,
}

impl Boot {
    /// Choose by attribute (`method`), configuration and environment.
    pub(crate) fn choose(
        method: Option<&str>,
        config: &Value,
        hostname: &str,
        launcher: Launcher,
    ) -> Result<Self, BootError> {
        let table = &config["bootstrap"];
        match method {
            Some("config") if table.is_null() => Err(BootError::NoTable),
            None if table.is_null() => Ok(Self::Pmi(launcher.0)),
            None | Some("config") => Ok(Self::Config(Box::new(Bootstrap::parse(table, hostname)?))),
            Some("simple" | "single") => Ok(Self::Pmi(launcher.0)),
            Some(other) => Err(BootError::Method(other.to_owned())),
        }
    }

    pub(crate) fn rank(&self) -> u32 {
        match self {
            Self::Pmi(client) => client.rank(),
            Self::Config(config) => config.rank,
        }
    }

    pub(crate) fn size(&self) -> u32 {
        match self {
            Self::Pmi(client) => client.size(),
            Self::Config(config) => config.hosts.len() as u32,
        }
    }

    /// Name of the method, for the attribute `broker.boot-method`.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Pmi(client) if client.is_singleton() => "single",
            Self::Pmi(_) => "simple",
            Self::Config(_) => "config",
        }
    }

    /// The tree.
    pub(crate) fn topology(&self, shape: Shape) -> Result<Topology, BootError> {
        match self {
            Self::Config(config) if shape == Shape::Custom => {
                let parents: Vec<_> = config.hosts.iter().map(|h| h.parent).collect();
                Ok(Topology::custom(&parents)?)
            }
            _ => Ok(Topology::new(shape, self.size())),
        }
    }

    /// Listen for children, if there are any, and learn who the peers are.
    pub(crate) fn join(self, topology: &Topology, ground: &Ground<'_>) -> Result<Place, BootError> {
        match self {
            Self::Pmi(client) => exchange(client, topology, ground),
            Self::Config(config) => configured(&config, topology, ground),
        }
    }
}

fn fresh_keys() -> Result<KeyPair, BootError> {
    let failed = |source| LinkError::Socket {
        what: "make keys".into(),
        source,
    };
    Ok(KeyPair::generate().map_err(failed)?)
}

/// All from the configuration.
fn configured(
    config: &Bootstrap,
    topology: &Topology,
    ground: &Ground<'_>,
) -> Result<Place, BootError> {
    let keys = match &config.curve_cert {
        Some(path) => Certificate::read(path.as_ref())?.keys,
        None => fresh_keys()?,
    };
    let host = |rank: u32| &config.hosts[rank as usize];
    let public = keys.public.clone();
    let me = host(config.rank);
    let undefined = |rank: u32, key| BootError::Undefined(host(rank).name.clone(), key);
    let has_children = !topology.children(config.rank).is_empty();
    let (bind, endpoint) = if has_children {
        let bind = me.bind.as_deref();
        let connect = me.connect.clone();
        (
            Some(bind.ok_or_else(|| undefined(config.rank, "bind"))?),
            Some(connect.ok_or_else(|| undefined(config.rank, "connect"))?),
        )
    } else {
        (None, None)
    };
    let sockets = SocketOptions {
        ipv6: config.ipv6,
        ..ground.sockets
    };
    let bound = Bound::new(keys, sockets, bind)?;
    let parent = match topology.parent(config.rank) {
        None => None,
        Some(up) => Some(ParentAddress {
            uri: host(up)
                .connect
                .clone()
                .ok_or_else(|| undefined(up, "connect"))?,
            key: public.clone(),
        }),
    };
    Ok(Place {
        bound,
        endpoint,
        parent,
        keys: HashMap::from([(public, None)]),
        hostnames: config.hosts.iter().map(|h| h.name.clone()).collect(),
    })
}

/// Exchange cards with the others and finish with the launcher.
fn exchange(
    mut client: Client,
    topology: &Topology,
    ground: &Ground<'_>,
) -> Result<Place, BootError> {
    let rank = client.rank();
    let bind = if topology.children(rank).is_empty() {
        None
    } else if ground.single_host {
        Some(format!("ipc://{}/tbon-{rank}", ground.rundir))
    } else {
        Some(format!("tcp://{}:*", ground.address))
    };
    let bound = Bound::new(fresh_keys()?, ground.sockets, bind.as_deref())?;
    let endpoint = bound.endpoint().map(str::to_owned);
    let card = Card {
        hostname: ground.hostname.to_owned(),
        uri: endpoint.clone(),
        key: bound.public_key().clone(),
    };
    let key = |rank: u32| format!("flux.card.{rank}");
    // A card is plain data of ours.
    let text = serde_json::to_string(&card).expect("plain data encodes as JSON");
    client.put(&key(rank), &text)?;
    client.barrier()?;
    let mut read = |rank: u32| -> Result<Card, BootError> {
        let text = client.get(&key(rank))?.ok_or(BootError::NoCard(rank))?;
        serde_json::from_str(&text).map_err(|source| BootError::Card { rank, source })
    };
    let cards = (0..topology.size())
        .map(&mut read)
        .collect::<Result<Vec<_>, _>>()?;
    let parent = match topology.parent(rank) {
        None => None,
        Some(up) => {
            let card = &cards[up as usize];
            let uri = card.uri.clone().ok_or(BootError::NoEndpoint(up))?;
            Some(ParentAddress {
                uri,
                key: card.key.clone(),
            })
        }
    };
    let keys = topology.children(rank).iter();
    let keys = keys.map(|child| (cards[*child as usize].key.clone(), Some(*child)));
    let keys = keys.collect();
    client.finalize()?;
    Ok(Place {
        bound,
        endpoint,
        parent,
        keys,
        hostnames: cards.into_iter().map(|card| card.hostname).collect(),
    })
}
