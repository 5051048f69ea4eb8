//! What those who are not the owner may ask of the broker and its modules (RFC 12).
//!
//! Everything else is for the owner, whatever the service itself checks: a method that is new is closed until it is
//! opened here. Services that programs bring along decide for themselves.

/// Methods open to guests, by service. Each looks at the credentials where it matters whose data it is.
const OPEN: &[(&str, &[&str])] = &[
    ("attr", &["get", "list"]),
    ("broker", &["conf-builtin"]),
    ("config", &["get"]),
    ("content", &["stats-get"]),
    ("content-files", &["stats-get"]),
    ("content-sqlite", &["stats-get"]),
    ("event", &["publish"]),
    ("groups", &["get", "stats-get"]),
    ("job-exec", &["critical-ranks", "shell-barrier"]),
    (
        "job-info",
        &[
            "lookup",
            "update-lookup",
            "eventlog-watch",
            "eventlog-watch-cancel",
            "update-watch",
            "update-watch-cancel",
            "stats-get",
        ],
    ),
    ("job-ingest", &["submit", "getinfo", "stats-get"]),
    (
        "job-list",
        &[
            "list",
            "list-id",
            "list-attrs",
            "job-stats",
            "job-stats-cancel",
            "stats-get",
        ],
    ),
    (
        "job-manager",
        &[
            "alloc-query",
            "getattr",
            "getinfo",
            "history.get",
            "kill",
            "killall",
            "memo",
            "queue-list",
            "queue-status",
            "raise",
            "raiseall",
            "stats-get",
            "update",
            "urgency",
            "wait",
        ],
    ),
    (
        "kvs",
        &[
            "commit",
            "getroot",
            "lookup",
            "lookup-plus",
            "setroot-pause",
            "setroot-unpause",
            "wait-version",
            "stats-get",
        ],
    ),
    ("kvs-watch", &["lookup", "cancel", "stats-get"]),
    ("module", &["list"]),
    ("overlay", &["health", "stats-get", "topology"]),
    ("resource", &["sched-status", "status", "topo-get"]),
    ("feasibility", &["check"]),
    ("sched", &["resource-status"]),
    ("state-machine", &["get", "wait"]),
];

/// Whether a guest may ask for this.
pub(super) fn may_ask(topic: &str) -> bool {
    let Some((service, method)) = topic.split_once('.') else {
        return false;
    };
    if matches!(method, "ping" | "rusage" | "disconnect") {
        return true;
    }
    let open = OPEN.iter().find(|(name, _)| *name == service);
    open.is_some_and(|(_, methods)| methods.contains(&method))
}

#[cfg(test)]
mod tests {
    use super::may_ask;

    #[test]
    fn closed_unless_opened() {
        for topic in [
            "kvs.lookup",
            "job-manager.history.get",
            "content.ping",
            "broker.rusage",
            "x.disconnect",
        ] {
            assert!(may_ask(topic), "{topic}");
        }
        for topic in [
            "",
            "kvs",
            "attr.set",
            "module.load",
            "content.load",
            "rexec.exec",
            "get",
        ] {
            assert!(!may_ask(topic), "{topic}");
        }
    }
}
