//! Topic strings (RFC 3): service names, globs and the topics derived from them.

/// The service a request topic addresses: everything before the first period.
pub fn service_of(topic: &str) -> &str {
    topic.split_once('.').map_or(topic, |(service, _)| service)
}

/// Topic that tells a service a client is gone: the last word replaced by `disconnect`.
pub fn disconnect_topic(topic: &str) -> String {
    match topic.rsplit_once('.') {
        Some((service, _)) => format!("{service}.disconnect"),
        None => "disconnect".to_owned(),
    }
}

/// Shell-style match of `glob` (`*`, `?`) against `topic`. Linear in the topic for one star.
pub fn topic_glob_match(glob: &str, topic: &str) -> bool {
    let (g, t) = (glob.as_bytes(), topic.as_bytes());
    let (mut gi, mut ti) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while ti < t.len() {
        if gi < g.len() && (g[gi] == b'?' || g[gi] == t[ti]) && g[gi] != b'*' {
            gi += 1;
            ti += 1;
        } else if gi < g.len() && g[gi] == b'*' {
            star = Some((gi, ti));
            gi += 1;
        } else if let Some((sg, st)) = star {
            gi = sg + 1;
            ti = st + 1;
            star = Some((sg, st + 1));
        } else {
            return false;
        }
    }
    g[gi..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        assert_eq!(service_of("kvs.lookup"), "kvs");
        assert_eq!(service_of("a.b.c"), "a");
        assert_eq!(service_of("plain"), "plain");
        assert_eq!(disconnect_topic("a.b.c"), "a.b.disconnect");
        assert_eq!(disconnect_topic("plain"), "disconnect");
    }

    #[test]
    fn globs() {
        for (glob, topic, want) in [
            ("*", "", true),
            ("job.*", "job.state", true),
            ("job.*", "jobs.state", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.b.*.d", "a.b.c.d", true),
            ("*.b", "a.b.b", true),
            ("", "x", false),
        ] {
            assert_eq!(topic_glob_match(glob, topic), want, "{glob} ~ {topic}");
        }
    }
}
