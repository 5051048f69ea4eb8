//! The process manager's side of PMI-1, one instance per node, without I/O.
//!
//! Lines from local clients go in, [`Action`]s come out. What clients put stays *pending* until
//! the barrier: then the driver exchanges the pending entries of all nodes and hands the union
//! to [`Server::barrier_complete`]. Entries of [`Server::preput`] and keys that start with
//! `local::` are never exchanged. When all processes of the program are local, the barrier
//! completes without the driver.

use crate::wire::{KEY_MAX, KVSNAME_MAX, Line, LineBuilder, VALUE_MAX, rc};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Something the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write a line to a client.
    Reply { client: u32, line: String },
    /// All local clients wait in the barrier: exchange these entries with the other nodes.
    Barrier { pending: BTreeMap<String, String> },
    /// A client asks for the program to be ended.
    Abort {
        client: u32,
        code: i32,
        message: String,
    },
    /// A client has finished; its connection may close.
    Finalized { client: u32 },
    /// A client broke the protocol; it cannot be answered.
    Violation { client: u32, line: String },
}

/// What the server tells clients about the program.
#[derive(Debug, Clone)]
pub struct Program {
    pub kvsname: String,
    pub appnum: u32,
    /// Processes in the program.
    pub size: u32,
    /// Processes on this node.
    pub local_size: u32,
}

/// The server of one node.
#[derive(Debug)]
pub struct Server {
    program: Program,
    local: HashMap<String, String>,
    pending: BTreeMap<String, String>,
    global: HashMap<String, String>,
    waiting: BTreeSet<u32>,
    /// Clients inside the multi-line spawn request.
    spawning: BTreeSet<u32>,
}

impl Server {
    pub fn new(program: Program) -> Server {
        Server {
            program,
            local: HashMap::new(),
            pending: BTreeMap::new(),
            global: HashMap::new(),
            waiting: BTreeSet::new(),
            spawning: BTreeSet::new(),
        }
    }

    /// Puts an entry that local clients find without a barrier. Values that do not fit the
    /// protocol are left out: clients treat a missing key as unknown.
    pub fn preput(&mut self, key: &str, value: &str) {
        if key.len() < KEY_MAX && value.len() < VALUE_MAX {
            self.local.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Handles one line of a client.
    pub fn request(&mut self, client: u32, text: &str) -> Vec<Action> {
        let line = Line::new(text);
        let reply = |builder: LineBuilder| {
            vec![Action::Reply {
                client,
                line: builder.build(),
            }]
        };
        let violation = || {
            vec![Action::Violation {
                client,
                line: line.as_str().to_owned(),
            }]
        };
        if self.spawning.contains(&client) {
            if line.as_str() != "endcmd" {
                return Vec::new();
            }
            self.spawning.remove(&client);
            return reply(LineBuilder::new("spawn_result").field("rc", rc::FAIL));
        }
        let refuse = |command: &str| {
            reply(
                LineBuilder::new(command)
                    .field("rc", rc::FAIL)
                    .field("msg", "not_implemented"),
            )
        };
        match line.command() {
            Some("init") => {
                let version = line.number::<u32>("pmi_version");
                let Some((major, minor)) = version.zip(line.number::<u32>("pmi_subversion")) else {
                    return violation();
                };
                let response = LineBuilder::new("response_to_init");
                if (major, minor) == (1, 0) || major != 1 {
                    return reply(response.field("rc", rc::FAIL));
                }
                let response = response.field("rc", 0).field("pmi_version", 1);
                reply(response.field("pmi_subversion", 1))
            }
            Some("get_maxes") => reply(
                LineBuilder::new("maxes")
                    .field("rc", 0)
                    .field("kvsname_max", KVSNAME_MAX)
                    .field("keylen_max", KEY_MAX)
                    .field("vallen_max", VALUE_MAX),
            ),
            Some("get_universe_size") => reply(
                LineBuilder::new("universe_size")
                    .field("rc", 0)
                    .field("size", self.program.size),
            ),
            Some("get_appnum") => reply(
                LineBuilder::new("appnum")
                    .field("rc", 0)
                    .field("appnum", self.program.appnum),
            ),
            Some("get_my_kvsname") => reply(
                LineBuilder::new("my_kvsname")
                    .field("rc", 0)
                    .field("kvsname", &self.program.kvsname),
            ),
            Some("put") => match self.put(line) {
                Some(code) => reply(LineBuilder::new("put_result").field("rc", code)),
                None => violation(),
            },
            Some("get") => match self.get(line) {
                Some(Ok(value)) => reply(
                    LineBuilder::new("get_result")
                        .field("rc", 0)
                        .field("value", value),
                ),
                Some(Err(code)) => reply(LineBuilder::new("get_result").field("rc", code)),
                None => violation(),
            },
            Some("barrier_in") => {
                if !self.waiting.insert(client) {
                    return violation();
                }
                if self.waiting.len() < self.program.local_size as usize {
                    return Vec::new();
                }
                let pending = std::mem::take(&mut self.pending);
                if self.program.local_size == self.program.size {
                    return self.barrier_complete(Some(pending));
                }
                vec![Action::Barrier { pending }]
            }
            Some("finalize") => {
                let mut actions = reply(LineBuilder::new("finalize_ack").field("rc", 0));
                actions.push(Action::Finalized { client });
                actions
            }
            Some("abort") => {
                // RFC 13 gives abort no parameters; MPICH sends exitcode, older clients others.
                let code = line.number("exitcode").or_else(|| line.number("exit_code"));
                let message = line.rest("error_msg").unwrap_or("aborted").to_owned();
                vec![Action::Abort {
                    client,
                    code: code.unwrap_or(1),
                    message,
                }]
            }
            Some("publish_name") => refuse("publish_result"),
            Some("unpublish_name") => refuse("unpublish_result"),
            Some("lookup_name") => refuse("lookup_result"),
            Some("spawn") => {
                self.spawning.insert(client);
                Vec::new()
            }
            _ => violation(),
        }
    }

    fn put(&mut self, line: Line) -> Option<i32> {
        let (name, key, value) = (
            line.word("kvsname")?,
            line.word("key")?,
            line.rest("value")?,
        );
        if name.len() >= KVSNAME_MAX {
            return Some(rc::INVALID_LENGTH);
        }
        if key.is_empty() {
            return Some(rc::INVALID_KEY);
        }
        if key.len() >= KEY_MAX {
            return Some(rc::INVALID_KEY_LENGTH);
        }
        if value.len() >= VALUE_MAX {
            return Some(rc::INVALID_VAL_LENGTH);
        }
        let (key, value) = (key.to_owned(), value.to_owned());
        if key.starts_with("local::") {
            self.local.insert(key, value);
        } else {
            self.pending.insert(key, value);
        }
        Some(rc::SUCCESS)
    }

    fn get<'a>(&'a self, line: Line) -> Option<Result<&'a str, i32>> {
        let (name, key) = (line.word("kvsname")?, line.word("key")?);
        if name.len() >= KVSNAME_MAX {
            return Some(Err(rc::INVALID_LENGTH));
        }
        if key.len() >= KEY_MAX {
            return Some(Err(rc::INVALID_KEY_LENGTH));
        }
        let value = self
            .local
            .get(key)
            .or_else(|| self.pending.get(key))
            .or_else(|| self.global.get(key))
            .map(String::as_str);
        Some(value.ok_or(rc::INVALID_KEY))
    }

    /// Ends the barrier with the entries of all nodes, or with failure.
    pub fn barrier_complete(&mut self, entries: Option<BTreeMap<String, String>>) -> Vec<Action> {
        let code = if entries.is_some() {
            rc::SUCCESS
        } else {
            rc::FAIL
        };
        self.global.extend(entries.unwrap_or_default());
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|client| {
                let line = LineBuilder::new("barrier_out").field("rc", code).build();
                Action::Reply { client, line }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(size: u32, local_size: u32) -> Server {
        let kvsname = "ƒ123".to_owned();
        Server::new(Program {
            kvsname,
            appnum: 0,
            size,
            local_size,
        })
    }

    fn answer(server: &mut Server, client: u32, line: &str) -> String {
        match &server.request(client, line)[..] {
            [Action::Reply { client: to, line }] if *to == client => line.trim_end().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn fixed_answers() {
        let mut s = server(8, 4);
        for (request, response) in [
            (
                "cmd=init pmi_version=1 pmi_subversion=1",
                "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1",
            ),
            (
                "cmd=init pmi_version=2 pmi_subversion=0",
                "cmd=response_to_init rc=-1",
            ),
            (
                "cmd=get_maxes",
                "cmd=maxes rc=0 kvsname_max=64 keylen_max=64 vallen_max=1024",
            ),
            ("cmd=get_universe_size", "cmd=universe_size rc=0 size=8"),
            ("cmd=get_appnum", "cmd=appnum rc=0 appnum=0"),
            ("cmd=get_my_kvsname", "cmd=my_kvsname rc=0 kvsname=ƒ123"),
            ("cmd=get kvsname=x key=none", "cmd=get_result rc=4"),
            (
                "cmd=publish_name service=a port=b",
                "cmd=publish_result rc=-1 msg=not_implemented",
            ),
        ] {
            assert_eq!(answer(&mut s, 0, request), response);
        }
        assert_eq!(s.request(0, "mcmd=spawn"), []);
        assert_eq!(s.request(0, "nprocs=1"), []);
        assert_eq!(answer(&mut s, 0, "endcmd"), "cmd=spawn_result rc=-1");
        assert_eq!(
            s.request(1, "cmd=abort exitcode=3\n"),
            [Action::Abort {
                client: 1,
                code: 3,
                message: "aborted".into()
            }]
        );
        assert_eq!(
            s.request(1, "what\n"),
            [Action::Violation {
                client: 1,
                line: "what".into()
            }]
        );
    }

    #[test]
    fn put_exchange_get() {
        let mut s = server(3, 2);
        s.preput("PMI_process_mapping", "(vector,(0,1,2),(1,1,1))");
        let got = answer(&mut s, 0, "cmd=get kvsname=k key=PMI_process_mapping");
        assert_eq!(got, "cmd=get_result rc=0 value=(vector,(0,1,2),(1,1,1))");
        assert_eq!(
            answer(&mut s, 0, "cmd=put kvsname=k key=a value=x y"),
            "cmd=put_result rc=0"
        );
        assert_eq!(
            answer(&mut s, 0, "cmd=put kvsname=k key=local::a value=l"),
            "cmd=put_result rc=0"
        );
        assert_eq!(s.request(0, "cmd=barrier_in\n"), []);
        let pending = BTreeMap::from([("a".to_owned(), "x y".to_owned())]);
        assert_eq!(
            s.request(1, "cmd=barrier_in\n"),
            [Action::Barrier {
                pending: pending.clone()
            }]
        );
        let mut all = pending;
        all.insert("b".into(), "z".into());
        let out = |client| Action::Reply {
            client,
            line: "cmd=barrier_out rc=0\n".into(),
        };
        assert_eq!(s.barrier_complete(Some(all)), [out(0), out(1)]);
        assert_eq!(
            answer(&mut s, 1, "cmd=get kvsname=k key=b"),
            "cmd=get_result rc=0 value=z"
        );
        assert_eq!(
            answer(&mut s, 1, "cmd=get kvsname=k key=a"),
            "cmd=get_result rc=0 value=x y"
        );
        assert_eq!(
            answer(&mut s, 1, "cmd=get kvsname=k key=local::a"),
            "cmd=get_result rc=0 value=l"
        );
    }

    #[test]
    fn a_failed_exchange_fails_the_barrier() {
        let mut s = server(2, 1);
        assert_eq!(
            s.request(0, "cmd=barrier_in"),
            [Action::Barrier {
                pending: BTreeMap::new()
            }]
        );
        assert!(matches!(
            &s.request(0, "cmd=barrier_in")[..],
            [Action::Violation { .. }]
        ));
        let line = "cmd=barrier_out rc=-1\n".to_owned();
        assert_eq!(
            s.barrier_complete(None),
            [Action::Reply { client: 0, line }]
        );
    }

    #[test]
    fn limits() {
        let mut s = server(1, 1);
        let long = "x".repeat(1024);
        for (request, code) in [
            (format!("cmd=put kvsname=k key={} value=v", &long[..64]), 5),
            (format!("cmd=put kvsname=k key=k value={long}"), 7),
            (format!("cmd=put kvsname={} key=k value=v", &long[..64]), 8),
            (
                format!("cmd=put kvsname=k key=k value={}", &long[..1023]),
                0,
            ),
        ] {
            assert_eq!(
                answer(&mut s, 0, &request),
                format!("cmd=put_result rc={code}")
            );
        }
    }

    proptest! {
        #[test]
        fn any_line_is_survived(lines in prop::collection::vec("(m?cmd=(put|get|init|barrier_in|spawn|abort|x))?[ -~]{0,40}", 0..20)) {
            let mut s = server(3, 2);
            for (i, line) in lines.iter().enumerate() {
                s.request(i as u32 % 2, line);
            }
        }
    }
}
