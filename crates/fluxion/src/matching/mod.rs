//! From a request to the resources it may have.

mod evals;
mod flexible;
mod index;
mod nodes;
mod order;
mod ordered;
mod policy;
mod search;
mod seen;
mod selection;
mod share;
mod woven;

pub use index::Index;
pub use nodes::{NodeIndex, NodeSet};
pub use policy::{Order, Policy, PolicyError, Score};
pub use search::Lack;
pub use selection::{Selected, Selection, Step};

use crate::graph::{Graph, Word};
use crate::plan::{Ledger, Window};
use crate::request::Request;
use ordered::Way;
use search::{Mode, Search};
use seen::Seen;

/// What a search is made in.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// The resources.
    pub graph: &'a Graph,
    /// Who holds them.
    pub ledger: &'a Ledger,
    /// What is preferred.
    pub policy: Policy,
    /// Whether sibling slots are alternatives.
    pub flexible: bool,
    /// The nodes the request's constraint leaves.
    pub allowed: Option<&'a NodeSet>,
    /// Orders that were made before.
    pub indices: &'a [Index],
}

/// The type whose order a search for a request would follow.
pub fn wanted_index(request: &Request, graph: &Graph, policy: Policy) -> Option<Word> {
    let [variant] = request.variants.as_slice() else {
        return None;
    };
    Way::of(variant, graph, policy).map(Way::kind)
}

/// How many vertices were looked at, and how many of them would do.
pub type Visits = (u64, u64);

impl Field<'_> {
    /// What a request may have in a window; or what was lacking, as far as is known.
    pub fn find(
        &self,
        request: &Request,
        window: Window,
        visits: &mut Visits,
    ) -> Result<Selection, Lack> {
        self.select(request, Mode::At(window), visits)
    }

    /// What a request might have if nobody had anything and everything were up.
    pub fn find_ever(&self, request: &Request, visits: &mut Visits) -> Option<Selection> {
        self.select(request, Mode::Ever, visits).ok()
    }

    fn select(
        &self,
        request: &Request,
        mode: Mode,
        visits: &mut Visits,
    ) -> Result<Selection, Lack> {
        let node = self.graph.words().find("node");
        let mut search = Search {
            graph: self.graph,
            ledger: self.ledger,
            policy: self.policy,
            mode,
            allowed: self.allowed,
            flexible: self.flexible,
            node,
            picks: Vec::new(),
            ordered: false,
            inside: 0,
            above: self.graph.root(),
            seen: Seen::default(),
            labels: Vec::new(),
            lack: Lack::UNKNOWN,
            visits: (0, 0),
        };
        let mut whole: Vec<Word> = request.whole.clone();
        whole.extend(node.filter(|_| self.policy.node_exclusive));
        let mut lack = Lack::HOPELESS;
        let found = request.variants.iter().find_map(|variant| {
            search.lack = Lack::UNKNOWN;
            let way = Way::of(variant, self.graph, self.policy);
            let ordered = way.and_then(|way| {
                let index = self.indices.iter().find(|i| i.kind() == way.kind())?;
                Some((way, index))
            });
            let top = match ordered {
                Some((way, index)) if self.policy.first => {
                    let enough = search.count(variant, way, index);
                    enough.and_then(|()| search.run(variant))
                }
                Some((way, index)) if way.may_follow(index, self.graph) => {
                    search.run_ordered(variant, way, index)
                }
                _ => search.run(variant),
            };
            lack = lack.or(search.lack);
            let top = top?;
            let chosen = Selection::chosen(&search.picks, top, &search.labels);
            let selection = Selection::of(self.graph, chosen, &whole, &search.seen.ways);
            Some(selection).filter(|s| !s.is_empty())
        });
        visits.0 += search.visits.0;
        visits.1 += search.visits.1;
        found.ok_or(lack)
    }
}
