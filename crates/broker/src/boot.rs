//! Finding the other brokers: the PMI-1 exchange of business cards (RFC 13).
//!
//! Every broker puts a card with its host, overlay endpoint and public key into the launcher's
//! key-value space, waits for the others and reads their cards. Alone, it is an instance of one.

use std::collections::HashMap;

use overlay::{Bound, LinkError, ParentAddress, PublicKey, Topology};
use pmi::client::Client;
use serde::{Deserialize, Serialize};

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

/// The cards this broker needs of its neighbours, and everybody's hostname.
pub(crate) struct Neighbours {
    pub(crate) parent: Option<ParentAddress>,
    pub(crate) children: HashMap<u32, PublicKey>,
    pub(crate) hostnames: Vec<String>,
}

impl Launcher {
    /// Connect to the PMI server the environment names.
    pub(crate) fn from_env() -> Result<Self, BootError> {
        Ok(Self(Client::from_env()?))
    }

    pub(crate) fn rank(&self) -> u32 {
        self.0.rank()
    }

    pub(crate) fn size(&self) -> u32 {
        self.0.size()
    }

    /// Name of the method, for the attribute `broker.boot-method`.
    pub(crate) fn method(&self) -> &'static str {
        if self.0.is_singleton() {
            "single"
        } else {
            "simple"
        }
    }

    /// A value the launcher offers, if it does.
    pub(crate) fn get(&mut self, key: &str) -> Option<String> {
        self.0.get(key).ok().flatten()
    }

    /// Exchange cards with the others and finish with the launcher.
    pub(crate) fn exchange(
        self,
        card: &Card,
        topology: &Topology,
    ) -> Result<Neighbours, BootError> {
        let mut client = self.0;
        let rank = client.rank();
        let key = |rank: u32| format!("flux.card.{rank}");
        // A card is plain data of ours.
        let text = serde_json::to_string(card).expect("plain data encodes as JSON");
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
        let children = topology
            .children(rank)
            .into_iter()
            .map(|child| (child, cards[child as usize].key.clone()))
            .collect();
        client.finalize()?;
        Ok(Neighbours {
            parent,
            children,
            hostnames: cards.into_iter().map(|card| card.hostname).collect(),
        })
    }
}

/// Bind for children, if there are any: on this host's run directory or a TCP port.
pub(crate) fn bind(
    rank: u32,
    topology: &Topology,
    rundir: &str,
    single_host: bool,
    address: &str,
) -> Result<Bound, BootError> {
    let keys = overlay::KeyPair::generate().map_err(|source| LinkError::Socket {
        what: "make keys".into(),
        source,
    })?;
    let endpoint = if topology.children(rank).is_empty() {
        None
    } else if single_host {
        Some(format!("ipc://{rundir}/tbon-{rank}"))
    } else {
        Some(format!("tcp://{address}:*"))
    };
    Ok(Bound::new(keys, endpoint.as_deref())?)
}
